// Where a tensor's memory lives. The CPU is always there; another device is a kernel table (kernels.h).
#pragma once

#include <cstdint>
#include <ostream>

namespace stet {

enum class DeviceType : std::uint8_t { cpu, cuda };
inline constexpr int kDeviceTypes = 2;

struct Device {
  DeviceType type = DeviceType::cpu;
  std::uint8_t index = 0;

  static constexpr Device cpu() { return {}; }
  static constexpr Device cuda(int index = 0) { return {DeviceType::cuda, static_cast<std::uint8_t>(index)}; }
  friend constexpr bool operator==(Device, Device) = default;
};

/// Where tensors are made when nothing else is said: the CPU, or what set_default_device() chose.
namespace detail {
inline constinit Device default_device{};
}
inline Device default_device() { return detail::default_device; }
/// An Error when there is no such device. Tensors that exist stay where they are.
void set_default_device(Device device);

/// The default device for a scope.
class DefaultDevice {
 public:
  explicit DefaultDevice(Device device) : before_(default_device()) { set_default_device(device); }
  ~DefaultDevice() { detail::default_device = before_; }
  DefaultDevice(const DefaultDevice&) = delete;
  DefaultDevice& operator=(const DefaultDevice&) = delete;

 private:
  Device before_;
};

inline std::ostream& operator<<(std::ostream& out, Device d) {
  if (d.type == DeviceType::cpu) return out << "cpu";
  return out << "cuda:" << int{d.index};
}

}  // namespace stet
