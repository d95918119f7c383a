// Storage: one block of device memory with a version counter, shared by all tensors that view it.
// Memory comes from the device's caching allocator, whose counters are public.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <stet/tensor/device.h>
#include <stet/tensor/ref.h>

namespace stet {

class Storage final : public RefCounted {
 public:
  /// Uninitialised memory; throws OutOfMemory.
  Storage(Device device, std::int64_t bytes);
  ~Storage();

  void* data() { return data_; }
  std::int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  /// Counts the in-place writes. A saved input whose version has moved makes backward throw.
  std::uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version() { version_.fetch_add(1, std::memory_order_relaxed); }

 private:
  static constexpr std::int64_t kInline = 16;  // scalars live inside the object
  void* data_;
  std::int64_t bytes_;
  Device device_;
  std::atomic<std::uint32_t> version_{0};
  alignas(16) std::byte local_[kInline];
};

inline void dispose(Storage* storage) { delete storage; }

struct MemoryStats {
  std::int64_t live_tensors = 0;        ///< storages alive, on all devices
  std::int64_t live_bytes = 0;          ///< their bytes
  std::int64_t peak_bytes = 0;          ///< highest live_bytes since reset_peak_memory()
  std::int64_t system_bytes = 0;        ///< bytes held from the default device's system, cached blocks included
  std::int64_t system_allocations = 0;  ///< times the allocator had to ask the system
};

MemoryStats memory_stats();
void reset_peak_memory();
/// Gives cached blocks back to the system.
void release_cached_memory();
/// The default device's allocator throws OutOfMemory rather than hold more than this from the system. 0: no limit.
void set_memory_limit(std::int64_t bytes);

}  // namespace stet
