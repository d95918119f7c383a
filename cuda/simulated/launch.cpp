// Runs a kernel: block after block, each thread as a fiber that goes on until it has to wait. A fiber runs thread after
// thread; only where one waits does another fiber take over. Blocks, warps and lanes come in an order drawn anew for
// each block and each stretch between barriers, so that code which relies on an order gives a wrong answer.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <stet/cuda/simulated/fibers.h>
#include <stet/cuda/simulated/internal.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace stet::simulated {

std::uint64_t running_block = 1;

namespace {

constexpr unsigned kThreads = 1024, kWarp = 32;
constexpr std::size_t kShared = 48 << 10, kArrays = 64;
constexpr unsigned char kGuardByte = 0xab;

const char* const seed_text = std::getenv("STET_SIMULATED_SEED");
std::mt19937_64 draw(seed_text ? std::strtoull(seed_text, nullptr, 10) : 1);

/// 0 .. n-1 in a drawn order: a walk with a stride that has no divisor in common with n.
class Walk {
 public:
  explicit Walk(std::uint64_t n) : n_(n), left_(n) {
    constexpr std::uint64_t primes[] = {4294967161, 4294967291, 4294967197, 4294967279};  // 1, 3, 5, 7 modulo 8
    const std::uint64_t bits = draw();
    stride_ = primes[bits % 4] % n;
    at_ = (bits >> 2) % n;
  }
  bool more() const { return left_ > 0; }
  std::uint64_t take() {
    const std::uint64_t at = at_;
    if ((at_ += stride_) >= n_) at_ -= n_;
    --left_;
    return at;
  }

 private:
  std::uint64_t n_, left_, stride_, at_;
};

/// Thrown in the threads that still wait after another one has failed, so that their stacks are unwound.
struct Abandoned {};

struct Warp {  // lanes that wait for the rest of their mask
  Site site{};
  unsigned mask = 0, arrived = 0;
  std::array<std::uint64_t, kWarp> value{};
  std::array<int, kWarp> source{};
};
struct Machine {  // without a destructor, since kernels may run late
  const char* kernel = nullptr;
  const Work* body = nullptr;
  unsigned threads = 0, exited = 0, arrived = 0;  // at the barrier
  bool flat = true;                               // threads are numbered in x alone
  Site barrier{};
  std::array<Warp, kThreads / kWarp> warps;
  std::array<unsigned, kThreads> runnable{};       // threads that may go on or have not begun; the last is the next
  std::array<Fiber*, kThreads> waiting{}, idle{};  // waiting null: has not begun, or has ended
  unsigned runnable_count = 0, idle_count = 0, array_count = 0;
  Fiber host;
  Fiber* current = nullptr;
  std::string* error = nullptr;
  bool illegal_address = false;

  alignas(16) std::array<char, kShared + kArrays * 2 * kGuard> shared{};
  std::size_t shared_used = 0;
  std::array<const SharedSite*, kArrays> arrays{};
};
Machine m;

/// All threads may go on, warp by warp.
void release_threads() {
  for (Walk warps((m.threads + kWarp - 1) / kWarp); warps.more();) {
    const unsigned first = static_cast<unsigned>(warps.take()) * kWarp;
    for (Walk lanes(std::min(kWarp, m.threads - first)); lanes.more();)
      m.runnable[m.runnable_count++] = first + static_cast<unsigned>(lanes.take());
  }
}

uint3 index_of(unsigned thread) {
  if (m.flat) return {thread, 0, 0};
  return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

std::string name_of(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string name_of(const Site& site) {
  const std::string file = site.file;
  return std::string(site.op) + " at " + file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

template <class... Parts> void keep_error(unsigned thread, bool illegal_address, const Parts&... parts) {
  if (m.error) return;
  std::ostringstream out;
  out << "block " << name_of(blockIdx) << ", thread " << name_of(index_of(thread)) << ": ";
  (out << ... << parts);
  m.error = new std::string(out.str());
  m.illegal_address = illegal_address;
  m.runnable_count = 0;
}

/// No thread can go on: says why.
void deadlock() {
  for (unsigned t = 0; t < m.threads; ++t) {
    const Warp& warp = m.warps[t / kWarp];
    if (warp.arrived >> t % kWarp & 1)
      return keep_error(t, false, "waits for lane ", std::countr_zero(warp.mask & ~warp.arrived), " in ",
                        name_of(warp.site), ", which that lane does not reach");
    if (m.waiting[t])
      return keep_error(t, false, "waits in ", name_of(m.barrier), ", which only ", m.arrived, " of ", m.threads,
                        " threads reach (", m.exited, " have ended)");
  }
}

void run_threads();

Fiber* wake(unsigned thread) { return std::exchange(m.waiting[thread], nullptr); }

/// Who runs next, when the present fiber cannot.
Fiber* successor() {
  if (!m.runnable_count && m.arrived == m.threads) {  // the barrier opens
    m.arrived = 0;
    release_threads();
  }
  if (m.runnable_count) {
    const unsigned next = m.runnable[m.runnable_count - 1];
    if (m.waiting[next]) return --m.runnable_count, wake(next);
    return m.idle_count ? m.idle[--m.idle_count] : make_fiber(run_threads);
  }
  if (m.exited < m.threads && !m.error) deadlock();
  for (unsigned t = 0; t < m.threads; ++t)
    if (m.waiting[t]) return wake(t);
  return &m.host;
}

void go_to(Fiber* next) {
  Fiber* self = std::exchange(m.current, next);
  if (next != self) switch_fiber(*self, *next);
}

/// What a fiber does: runs threads until the next in order has begun already, hands over to that one, and sleeps.
void run_threads() {
  Fiber& self = *m.current;
  fiber_entered(self);
  for (;;) {
    while (m.runnable_count && !m.waiting[m.runnable[m.runnable_count - 1]]) {
      self.thread = m.runnable[--m.runnable_count];
      threadIdx = index_of(self.thread);
      try {
        (*m.body)();
      } catch (const Abandoned&) {
      } catch (const std::exception& error) {
        keep_error(self.thread, dynamic_cast<const IllegalAddress*>(&error) != nullptr, error.what());
      } catch (...) {
        keep_error(self.thread, false, "an exception of unknown type");
      }
      ++m.exited;
    }
    m.idle[m.idle_count++] = &self;
    go_to(successor());
  }
}

void wait() {
  Fiber& self = *m.current;
  m.waiting[self.thread] = &self;
  go_to(successor());
  if (m.error) throw Abandoned{};
  threadIdx = index_of(self.thread);
}

void check_guards() {
  static const std::vector<unsigned char> whole(kGuard, kGuardByte);
  const auto broken = [](std::uintptr_t at) { return std::memcmp(reinterpret_cast<void*>(at), whole.data(), kGuard); };
  for (unsigned i = 0; i < m.array_count; ++i)
    check(!broken(m.arrays[i]->bytes.begin - kGuard) && !broken(m.arrays[i]->bytes.end), m.kernel, "block ",
          name_of(blockIdx), ": wrote outside the shared array ", name_of(m.arrays[i]->site));
}

void run_block() {
  ++running_block;
  m.shared_used = m.exited = m.arrived = m.runnable_count = m.array_count = 0;
  release_threads();
  for (unsigned w = 0; w * kWarp < m.threads; ++w) m.warps[w].arrived = 0;
  go_to(successor());
  const std::unique_ptr<std::string> error(std::exchange(m.error, nullptr));
  if (error) m.illegal_address ? fail<IllegalAddress>(m.kernel, *error) : fail(m.kernel, *error);
  check_guards();
}

void execute(const char* kernel, dim3 grid, dim3 block, const Work& body) {
  m.kernel = kernel;
  m.body = &body;
  m.threads = block.x * block.y * block.z;
  m.host = {};
  m.current = &m.host;
  adopt_host(m.host);
  blockDim = block;
  gridDim = grid;
  m.flat = block.x == m.threads;
  const std::uint64_t row = grid.x, plane = row * grid.y;
  for (Walk blocks(plane * grid.z); blocks.more();) {
    const std::uint64_t i = blocks.take();
    blockIdx = {static_cast<unsigned>(i % row), static_cast<unsigned>(i % plane / row),
                static_cast<unsigned>(i / plane)};
    run_block();
  }
}

/// All lanes of the mask are there: each gets its result, and may go on.
void complete(Warp& warp, unsigned first) {
  const auto brought = warp.value;
  std::uint64_t ballot = 0;
  for (unsigned i = 0; i < kWarp; ++i) ballot |= std::uint64_t{(warp.mask >> i & 1) && brought[i]} << i;
  for (Walk lanes(kWarp); lanes.more();) {
    const auto lane = static_cast<unsigned>(lanes.take());
    if (!(warp.mask >> lane & 1)) continue;
    const int source = warp.source[lane];
    if (source != kVote && !(warp.mask >> source & 1)) [[unlikely]]
      fail("warp", "lane ", lane, " reads lane ", source, " in ", name_of(warp.site), ", which is not in the mask");
    warp.value[lane] = source == kVote ? ballot : brought[static_cast<unsigned>(source)];
    m.runnable[m.runnable_count++] = first + lane;
  }
  warp.arrived = 0;
}

}  // namespace

void set_seed(std::uint64_t seed) {
  const std::lock_guard lock(mutex());
  draw.seed(seed);
}

Work kernel_work(const char* kernel, dim3 grid, dim3 block, Work thread_body) {
  const auto limit = [kernel](const char* what, const dim3& n, const dim3& most, std::uint64_t product) {
    demand(n.x >= 1 && n.y >= 1 && n.z >= 1 && n.x <= most.x && n.y <= most.y && n.z <= most.z &&
               std::uint64_t{n.x} * n.y * n.z <= product,
           cudaErrorInvalidConfiguration, kernel, what, name_of({n.x, n.y, n.z}), ": expected 1 to ",
           name_of({most.x, most.y, most.z}), ", in all at most ", product);
  };
  limit("grid ", grid, {0x7fffffff, 65535, 65535}, std::uint64_t{1} << 63);
  limit("block ", block, {1024, 1024, 64}, 1024);
  return [=, body = std::move(thread_body)] { execute(kernel, grid, block, body); };
}

void place_shared(SharedSite& array, std::size_t bytes, Site site) {
  char* guard = m.shared.data() + m.shared_used + m.array_count * 2 * kGuard;
  const std::size_t padded = (bytes + 15) / 16 * 16;
  m.shared_used += padded;
  check(m.shared_used <= kShared && m.array_count < kArrays, "shared memory", m.shared_used, " bytes of shared ",
        "arrays in one block: at most ", kShared, ", in ", kArrays, " arrays");
  std::memset(guard, kGuardByte, padded + 2 * kGuard);
  std::memset(guard + kGuard, kPoison, bytes);
  const auto begin = reinterpret_cast<std::uintptr_t>(guard + kGuard);
  array = {running_block, {begin, begin + bytes}, site};
  m.arrays[m.array_count++] = &array;
}

void float_atomic() {
  fail("atomicAdd", "float atomics make results depend on the order of threads: use integers or a reduction");
}

int lane() { return static_cast<int>(m.current->thread % kWarp); }

void barrier(Site site) {
  if (m.arrived == 0) m.barrier = site;
  if (m.barrier != site) [[unlikely]]
    fail("barrier", "reached ", name_of(site), " while others of the block wait in ", name_of(m.barrier));
  ++m.arrived;
  wait();
}

std::uint64_t collective(Site site, unsigned mask, std::uint64_t value, int source) {
  const unsigned thread = m.current->thread, lane = thread % kWarp, first = thread - lane;
  const unsigned lanes = std::min(kWarp, m.threads - first);
  if (!(mask >> lane & 1)) [[unlikely]]
    fail("warp", name_of(site), " with a mask that lacks its own lane ", lane);
  if (lanes < kWarp && mask >> lanes) [[unlikely]]
    fail("warp", name_of(site), " with a mask of more lanes than the ", lanes, " that the warp has");
  Warp& warp = m.warps[first / kWarp];
  if (!warp.arrived) warp.site = site, warp.mask = mask;
  if (warp.site != site || warp.mask != mask) [[unlikely]]
    fail("warp", "reached ", name_of(site), " while other lanes wait in ", name_of(warp.site), ", or for other lanes");
  warp.arrived |= 1u << lane;
  warp.value[lane] = value;
  warp.source[lane] = source;
  if (warp.arrived == mask) complete(warp, first);
  wait();
  return warp.value[lane];
}

}  // namespace stet::simulated
