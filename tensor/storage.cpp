// Storage on top of the device table's alloc and free, with the live counters.
#include <stet/tensor/storage.h>

#include <stet/tensor/error.h>
#include <stet/tensor/kernels.h>

namespace stet {
namespace {

std::atomic<std::int64_t> live_tensors{0}, live_bytes{0}, peak_bytes{0};

void count_live(std::int64_t bytes) {
  live_tensors.fetch_add(1, std::memory_order_relaxed);
  const std::int64_t now = live_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::int64_t peak = peak_bytes.load(std::memory_order_relaxed);
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

}  // namespace

Storage::Storage(Device device, std::int64_t bytes) : bytes_(bytes), device_(device) {
  if (device.type == DeviceType::cpu && bytes <= kInline) {
    data_ = local_;
  } else {
    data_ = kernels(device).alloc(bytes);
    if (!data_)
      fail<OutOfMemory>("alloc", device, " has no memory for ", bytes, " bytes (",
                        live_bytes.load(std::memory_order_relaxed), " bytes live in ",
                        live_tensors.load(std::memory_order_relaxed), " tensors)");
  }
  count_live(bytes);
}

Storage::~Storage() {
  live_tensors.fetch_sub(1, std::memory_order_relaxed);
  live_bytes.fetch_sub(bytes_, std::memory_order_relaxed);
  if (data_ != local_) kernels(device_).free(data_, bytes_);
}

MemoryStats memory_stats() {
  MemoryStats stats;
  stats.live_tensors = live_tensors.load(std::memory_order_relaxed);
  stats.live_bytes = live_bytes.load(std::memory_order_relaxed);
  stats.peak_bytes = peak_bytes.load(std::memory_order_relaxed);
  const SystemMemory system = kernels(default_device()).system_memory();
  stats.system_bytes = system.bytes;
  stats.system_allocations = system.allocations;
  return stats;
}

void reset_peak_memory() { peak_bytes.store(live_bytes.load(std::memory_order_relaxed)); }
void release_cached_memory() {
  for (const Device device : {Device::cpu(), default_device()}) kernels(device).release();
}
void set_memory_limit(std::int64_t bytes) { kernels(default_device()).set_limit(bytes); }

}  // namespace stet
