// A pool whose workers spin for a moment, then sleep on a futex (std::atomic::wait). Each thread claims chunks of a
// range of its own first, the same one in every job of a shape, so that data stays in the cache of the core that wrote
// it; then those that are left in the ranges of others. Which thread runs a chunk never matters to the result.
#include <stet/tensor/threads.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
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
  explicit Pool(int count) : workers_(static_cast<std::size_t>(count - 1)), ranges_(static_cast<std::size_t>(count)) {
    const auto cores = std::thread::hardware_concurrency();
    spin_ = count <= static_cast<int>(cores) ? 4000 : 0;  // spinning steals from others when oversubscribed
    for (std::size_t i = 0; i < workers_.size(); ++i)
      workers_[i].thread = std::thread([this, i] { work(workers_[i], i + 1); });
  }

  ~Pool() {
    stop_.store(true, std::memory_order_relaxed);
    for (Worker& worker : workers_) worker.call();
    for (Worker& worker : workers_) worker.thread.join();
  }

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t chunks, void (*body)(void*, std::int64_t), void* context) {
    // A second caller at the same moment does its own work alone.
    std::unique_lock owner(busy_, std::try_to_lock);
    if (workers_.empty() || !owner.owns_lock()) return run_alone(chunks, body, context);
    body_ = body;
    context_ = context;
    const auto invited = std::min(workers_.size(), static_cast<std::size_t>(chunks - 1));
    shares_ = invited + 1;
    for (std::size_t i = 0; i < shares_; ++i) {
      ranges_[i].next.store(start(chunks, i), std::memory_order_relaxed);
      ranges_[i].end = start(chunks, i + 1);
    }
    gate_.store(0, std::memory_order_release);  // open
    for (std::size_t i = 0; i < invited; ++i) workers_[i].call();
    drain(0);
    // Who has not entered by now is not waited for: on a busy machine a worker may get no core for milliseconds. One
    // that is inside and does not finish soon may be waiting for this very core.
    gate_.fetch_or(kClosed, std::memory_order_acq_rel);
    for (int i = 0; gate_.load(std::memory_order_acquire) != kClosed; ++i) {
      if (i < spin_) pause_cpu();
      else std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  static void run_alone(std::int64_t chunks, void (*body)(void*, std::int64_t), void* context) {
    for (std::int64_t i = 0; i < chunks; ++i) body(context, i);
  }

 private:
  /// A thread and the number of times it has been called; it sleeps on that number.
  struct Worker {
    alignas(64) std::atomic<std::uint32_t> calls{0};
    std::atomic<bool> asleep{false};
    std::thread thread;

    void call() {
      calls.fetch_add(1, std::memory_order_seq_cst);
      if (asleep.load(std::memory_order_seq_cst)) calls.notify_one();
    }
    std::uint32_t wait(std::uint32_t seen, int spin) {
      for (int i = 0; i < spin; ++i) {
        const std::uint32_t now = calls.load(std::memory_order_acquire);
        if (now != seen) return now;
        pause_cpu();
      }
      asleep.store(true, std::memory_order_seq_cst);
      calls.wait(seen, std::memory_order_seq_cst);
      asleep.store(false, std::memory_order_relaxed);
      return calls.load(std::memory_order_acquire);
    }
  };

  /// Enters the present job unless it is closed. Who comes late may so enter a later job, which is as good.
  bool enter() {
    int inside = gate_.load(std::memory_order_acquire);
    while (!(inside & kClosed))
      if (gate_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  /// Chunks of one thread, from an even division among all.
  struct alignas(64) Range {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  std::int64_t start(std::int64_t chunks, std::size_t share) const {
    const auto all = static_cast<std::int64_t>(shares_), at = static_cast<std::int64_t>(share);
    return chunks / all * at + chunks % all * at / all;
  }

  void drain(std::size_t own) {
    inside_chunk = true;
    try {
      for (std::size_t k = 0; k < shares_; ++k) {
        Range& range = ranges_[(own + k) % shares_];
        for (std::int64_t i; (i = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;) body_(context_, i);
      }
    } catch (...) {
      abandon(std::current_exception());
    }
    inside_chunk = false;
  }

  /// Keeps the first error for the caller of run() and leaves no chunk to anyone.
  void abandon(std::exception_ptr error) {
    const std::lock_guard lock(failing_);
    for (std::size_t k = 0; k < shares_; ++k) ranges_[k].next.store(ranges_[k].end, std::memory_order_relaxed);
    if (!failure_) failure_ = std::move(error);
  }

  void work(Worker& worker, std::size_t own) {
    flush_denormals();
    for (std::uint32_t seen = 0;;) {
      seen = worker.wait(seen, spin_);
      if (stop_.load(std::memory_order_relaxed)) return;
      if (!enter()) continue;
      drain(own);
      gate_.fetch_sub(1, std::memory_order_release);
    }
  }

  static constexpr int kClosed = 1 << 30;
  std::vector<Worker> workers_;
  std::mutex busy_;
  int spin_ = 0;
  void (*body_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;
  std::vector<Range> ranges_;
  std::size_t shares_ = 0;
  alignas(64) std::atomic<int> gate_{kClosed};  // workers inside, and kClosed when no more may enter
  std::atomic<bool> stop_{false};
  std::mutex failing_;
  std::exception_ptr failure_;  // what a chunk of the present job threw
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
