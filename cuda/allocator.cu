// The caching allocator, one for each device: freed blocks wait in size classes for the next request of their class, so
// that a training step after the first asks the driver for nothing. A device's work runs on one stream, which is why a
// block may be handed on at once: its new owner's work comes after the old one's. A recorded graph has a pool of its
// own. While one is recorded, nothing goes back to the driver: that would wait for the device.
#include <mutex>
#include <unordered_map>
#include <vector>

#include <stet/cuda/allocator.h>
#include <stet/cuda/device.h>
#include <stet/tensor/size_class.h>

#if defined(STET_CUDA_SIMULATED)
#include <stet/cuda/simulated/device.h>
#endif

namespace stet::cuda {
namespace {

/// Tells the simulated device how much of a block is in use, so that it can watch the rest.
void mark([[maybe_unused]] void* block, [[maybe_unused]] std::int64_t bytes) {
#if defined(STET_CUDA_SIMULATED)
  simulated::mark(block, static_cast<std::size_t>(bytes));
#endif
}

class Allocator {
 public:
  void* take(std::int64_t bytes) {
    if (bytes > std::int64_t{1} << 60) return nullptr;
    const std::lock_guard lock(mutex_);
    const SizeClass cls = SizeClass::of(bytes);
    Pool& pool = active_ && is_recording() ? *active_ : shared_;  // other threads may ask meanwhile
    auto& bin = pool.bins[static_cast<std::size_t>(cls.index)];
    void* data = nullptr;
    if (!bin.empty()) {
      data = bin.back();
      bin.pop_back();
    } else {
      data = from_driver(cls.bytes);
      if (!data && !active_) {  // the cache may be holding what is missing
        release(shared_);
        data = from_driver(cls.bytes);
      }
      if (!data) return nullptr;
      if (&pool != &shared_) owners_[data] = &pool;
    }
    // A graph uses its blocks whenever it is replayed, also those that are free as far as tensors go.
    mark(data, owners_.contains(data) ? cls.bytes : std::max<std::int64_t>(bytes, 1));
    return data;
  }

  void give(void* data, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto owner = owners_.find(data);
    Pool& pool = owner == owners_.end() ? shared_ : *owner->second;
    if (owner == owners_.end()) mark(data, 0);
    pool.bins[static_cast<std::size_t>(SizeClass::of(bytes).index)].push_back(data);
  }

  void release_shared() {
    const std::lock_guard lock(mutex_);
    if (!active_) release(shared_);
  }

  Pool* begin() {
    const std::lock_guard lock(mutex_);
    active_ = new Pool;
    return active_;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    active_ = nullptr;
  }
  /// The pool's free blocks join the shared pool, those still in use when they are freed.
  void drop(Pool* pool) {
    const std::lock_guard lock(mutex_);
    std::erase_if(owners_, [pool](const auto& entry) { return entry.second == pool; });
    for (std::size_t i = 0; i < SizeClass::kCount; ++i)
      for (void* data : pool->bins[i]) {
        mark(data, 0);
        shared_.bins[i].push_back(data);
      }
    delete pool;
  }

  void set_limit(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }

 private:
  void* from_driver(std::int64_t bytes) {
    if (limit_ > 0 && count().held_bytes + bytes > limit_) return nullptr;
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // reported by whoever asked
      return nullptr;
    }
    check_cuda("alloc", status);
    ++count().allocations;
    count().held_bytes += bytes;
    return data;
  }

  void release(Pool& pool) {
    forget(cudaDeviceSynchronize());  // nobody may still be working in them
    for (std::size_t i = 0; i < SizeClass::kCount; ++i) {
      for (void* data : pool.bins[i]) {
        forget(cudaFree(data));
        count().held_bytes -= SizeClass::bytes_of(static_cast<int>(i));
      }
      pool.bins[i].clear();
    }
  }

  std::mutex mutex_;
  Pool shared_;
  Pool* active_ = nullptr;
  std::unordered_map<void*, Pool*> owners_;  // of blocks that belong to a graph
  std::int64_t limit_ = 0;
};

Allocator& allocator() { return of_current_device<Allocator>(); }

}  // namespace

void* allocate(std::int64_t bytes) { return allocator().take(bytes); }
void deallocate(void* data, std::int64_t bytes) noexcept { allocator().give(data, bytes); }
void release_blocks() { allocator().release_shared(); }
void set_limit(std::int64_t bytes) { allocator().set_limit(bytes); }

Pool* begin_pool() { return allocator().begin(); }
void end_pool() { allocator().end(); }
void drop_pool(Pool* pool) { allocator().drop(pool); }

}  // namespace stet::cuda
