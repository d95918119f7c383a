// Bins of freed blocks, one for each size class.
#include <stet/tensor/cpu/allocator.h>

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include <stet/tensor/size_class.h>

namespace stet::cpu {
namespace {

constexpr std::int64_t kAlign = SizeClass::kAlign, kHuge = std::int64_t{2} << 20;

/// Held for a few instructions, and by one thread at a time nearly always: a mutex would cost more than the work.
class SpinLock {
 public:
  void lock() {
    while (held_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { held_.clear(std::memory_order_release); }

 private:
  std::atomic_flag held_ = ATOMIC_FLAG_INIT;
};

class Allocator {
 public:
  void* take(std::int64_t bytes) {
    if (bytes > std::int64_t{1} << 60) return nullptr;
    const SizeClass cls = SizeClass::of(bytes);
    {
      const std::lock_guard guard(lock_);
      auto& bin = free_[static_cast<std::size_t>(cls.index)];
      if (!bin.empty()) {
        void* data = bin.back();
        bin.pop_back();
        return data;
      }
    }
    void* data = from_system(cls.bytes);
    if (!data) {  // the cache may be holding what is missing
      release();
      data = from_system(cls.bytes);
    }
    return data;
  }

  void give(void* data, std::int64_t bytes) noexcept {
    const SizeClass cls = SizeClass::of(bytes);
    const std::lock_guard guard(lock_);
    free_[static_cast<std::size_t>(cls.index)].push_back(data);
  }

  void release() {
    const std::lock_guard guard(lock_);
    for (std::size_t i = 0; i < SizeClass::kCount; ++i) {
      for (void* data : free_[i]) {
        std::free(data);
        system_bytes_ -= SizeClass::bytes_of(static_cast<int>(i));
      }
      free_[i].clear();
    }
  }

  std::int64_t system_bytes() {
    const std::lock_guard guard(lock_);
    return system_bytes_;
  }
  std::int64_t system_allocations() {
    const std::lock_guard guard(lock_);
    return system_allocations_;
  }
  void set_limit(std::int64_t bytes) {
    const std::lock_guard guard(lock_);
    limit_ = bytes;
  }

 private:
  void* from_system(std::int64_t bytes) {
    const std::lock_guard guard(lock_);
    if (limit_ > 0 && system_bytes_ + bytes > limit_) return nullptr;
    const bool huge = bytes >= kHuge;
    const auto align = static_cast<std::size_t>(huge ? kHuge : kAlign);
    const auto size = (static_cast<std::size_t>(bytes) + align - 1) / align * align;
    void* data = std::aligned_alloc(align, size);
    if (!data) return nullptr;
    if (huge) madvise(data, size, MADV_HUGEPAGE);  // fewer page faults and TLB misses; only a hint
    system_bytes_ += bytes;
    ++system_allocations_;
    return data;
  }

  SpinLock lock_;
  std::vector<void*> free_[SizeClass::kCount];
  std::int64_t system_bytes_ = 0, system_allocations_ = 0, limit_ = 0;
};

Allocator& allocator() {
  static auto* instance = new Allocator;  // outlives every static tensor
  return *instance;
}

}  // namespace

void* allocate(std::int64_t bytes) { return allocator().take(bytes); }
void deallocate(void* data, std::int64_t bytes) noexcept { allocator().give(data, bytes); }
std::int64_t allocator_system_bytes() { return allocator().system_bytes(); }
std::int64_t allocator_system_allocations() { return allocator().system_allocations(); }
void allocator_release() { allocator().release(); }
void allocator_set_limit(std::int64_t bytes) { allocator().set_limit(bytes); }

}  // namespace stet::cpu
