// A pool whose workers spin for a moment, then sleep on a futex (std::atomic::wait). Chunks are claimed from
// one counter; which thread runs a chunk never matters to the result.
#include <stet/tensor/threads.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include <stet/tensor/error.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stet {
namespace {

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

thread_local bool inside_chunk = false;

class Pool {
 public:
  explicit Pool(int count) {
    const auto cores = std::thread::hardware_concurrency();
    spin_ = count <= static_cast<int>(cores) ? 4000 : 0;  // spinning steals from others when oversubscribed
    for (int i = 1; i < count; ++i) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    stop_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t chunks, void (*body)(void*, std::int64_t), void* context) {
    // A second caller at the same moment does its own work alone.
    std::unique_lock owner(busy_, std::try_to_lock);
    if (workers_.empty() || !owner.owns_lock()) return run_alone(chunks, body, context);
    body_ = body;
    context_ = context;
    chunks_ = chunks;
    next_.store(0, std::memory_order_relaxed);
    active_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
    drain();
    while (active_.load(std::memory_order_acquire) != 0) pause_or_yield();
  }

  static void run_alone(std::int64_t chunks, void (*body)(void*, std::int64_t), void* context) {
    for (std::int64_t i = 0; i < chunks; ++i) body(context, i);
  }

 private:
  void pause_or_yield() const {
    if (spin_ > 0) pause_cpu();
    else std::this_thread::yield();
  }

  void drain() {
    inside_chunk = true;
    for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;) body_(context_, i);
    inside_chunk = false;
  }

  void work() {
    flush_denormals();
    std::uint32_t seen = 0;
    while (true) {
      seen = wait_for_work(seen);
      if (stop_.load(std::memory_order_relaxed)) return;
      drain();
      active_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::uint32_t wait_for_work(std::uint32_t seen) {
    for (int i = 0; i < spin_; ++i) {
      const std::uint32_t now = generation_.load(std::memory_order_acquire);
      if (now != seen) return now;
      pause_cpu();
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    generation_.wait(seen, std::memory_order_acquire);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    return generation_.load(std::memory_order_acquire);
  }

  std::vector<std::thread> workers_;
  std::mutex busy_;
  int spin_ = 0;
  void (*body_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;
  std::int64_t chunks_ = 0;
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<int> active_{0};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
};

int default_threads() {
  if (const char* text = std::getenv("STET_THREADS")) {
    char* end = nullptr;
    const long count = std::strtol(text, &end, 10);
    check(*text && !*end && count >= 1 && count <= 256, "threads", "STET_THREADS is '", text,
          "': expected a number from 1 to 256");
    return static_cast<int>(count);
  }
  const auto cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

struct PoolHolder {
  std::mutex mutex;
  std::atomic<Pool*> pool{nullptr};
  ~PoolHolder() { delete pool.load(); }
};

PoolHolder& holder() {
  static PoolHolder instance;
  return instance;
}

Pool& pool() {
  if (Pool* ready = holder().pool.load(std::memory_order_acquire)) return *ready;
  const std::lock_guard lock(holder().mutex);
  if (!holder().pool.load()) holder().pool.store(new Pool(default_threads()), std::memory_order_release);
  return *holder().pool.load();
}

}  // namespace

int threads() { return pool().count(); }

void set_threads(int count) {
  check(count >= 1 && count <= 256, "set_threads", count, " threads: expected 1 to 256");
  const std::lock_guard lock(holder().mutex);
  delete holder().pool.exchange(nullptr);
  holder().pool.store(new Pool(count), std::memory_order_release);
}

void parallel_run(std::int64_t chunks, void (*run)(void*, std::int64_t), void* context) {
  if (inside_chunk || chunks <= 1) return Pool::run_alone(chunks, run, context);
  pool().run(chunks, run, context);
}

void flush_denormals() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ and DAZ
#endif
}

}  // namespace stet
