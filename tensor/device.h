// Where a tensor's memory lives. The CPU is always there; other devices register a kernel table (kernels.h).
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

inline std::ostream& operator<<(std::ostream& out, Device d) {
  if (d.type == DeviceType::cpu) return out << "cpu";
  return out << "cuda:" << int{d.index};
}

}  // namespace stet
