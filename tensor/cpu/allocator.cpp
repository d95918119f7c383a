// Size classes: multiples of 64 bytes up to 1 KiB, then four steps per power of two (at most 25 % is wasted).
#include <stet/tensor/cpu/allocator.h>

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace stet::cpu {
namespace {

constexpr std::int64_t kAlign = 64, kSmall = 1024, kHuge = std::int64_t{2} << 20;
constexpr int kSmallClasses = kSmall / kAlign;

struct SizeClass {
  int index;
  std::int64_t bytes;
};

SizeClass size_class(std::int64_t bytes) {
  if (bytes <= kSmall) {
    const std::int64_t units = bytes <= 0 ? 1 : (bytes + kAlign - 1) / kAlign;
    return {static_cast<int>(units - 1), units * kAlign};
  }
  const int log =
      static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bytes - 1))) - 1;  // 2^log < bytes <= 2^(log + 1)
  const std::int64_t step = (std::int64_t{1} << log) / 4;
  const std::int64_t over = bytes - (std::int64_t{1} << log);
  const std::int64_t steps = (over + step - 1) / step;  // 1..4
  return {kSmallClasses + (log - 10) * 4 + static_cast<int>(steps - 1), (std::int64_t{1} << log) + steps * step};
}

class Allocator {
 public:
  void* take(std::int64_t bytes) {
    if (bytes > std::int64_t{1} << 60) return nullptr;
    const SizeClass cls = size_class(bytes);
    {
      const std::lock_guard lock(mutex_);
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
    const SizeClass cls = size_class(bytes);
    const std::lock_guard lock(mutex_);
    free_[static_cast<std::size_t>(cls.index)].push_back(data);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < kClasses; ++i) {
      for (void* data : free_[i]) {
        std::free(data);
        system_bytes_ -= class_bytes(static_cast<int>(i));
      }
      free_[i].clear();
    }
  }

  std::int64_t system_bytes() {
    const std::lock_guard lock(mutex_);
    return system_bytes_;
  }
  std::int64_t system_allocations() {
    const std::lock_guard lock(mutex_);
    return system_allocations_;
  }
  void set_limit(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }

 private:
  static constexpr std::size_t kClasses = kSmallClasses + 4 * 52;

  static std::int64_t class_bytes(int index) {
    if (index < kSmallClasses) return (index + 1) * kAlign;
    const int log = (index - kSmallClasses) / 4 + 10, steps = (index - kSmallClasses) % 4 + 1;
    return (std::int64_t{1} << log) + steps * ((std::int64_t{1} << log) / 4);
  }

  void* from_system(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
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

  std::mutex mutex_;
  std::vector<void*> free_[kClasses];
  std::int64_t system_bytes_ = 0, system_allocations_ = 0, limit_ = 0;
};

Allocator& allocator() {
  static auto* instance = new Allocator;  // outlives every static tensor
  return *instance;
}

}  // namespace

void* allocate(std::int64_t bytes) { return allocator().take(bytes); }
void deallocate(void* data, std::int64_t bytes) { allocator().give(data, bytes); }
std::int64_t allocator_system_bytes() { return allocator().system_bytes(); }
std::int64_t allocator_system_allocations() { return allocator().system_allocations(); }
void allocator_release() { allocator().release(); }
void allocator_set_limit(std::int64_t bytes) { allocator().set_limit(bytes); }

}  // namespace stet::cpu
