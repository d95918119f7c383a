// What a kernel sees of the simulated device: CUDA's language as plain C++, checked pointers, shared arrays. And what
// the backend calls besides the CUDA API: launch, mark, last_message.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#define __global__ inline  // into the closure that launches it, if the compiler likes
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Written while a kernel runs, by the one host thread that runs it.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace stet::simulated {

// --- what the backend calls ---------------------------------------------------------------------------------------
/// Queues a kernel. `kernel` must outlive the launch (a literal). Never throws; a refused launch is also what
/// cudaGetLastError says.
cudaError_t launch(const char* kernel, dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> thread_body);

/// Says how many bytes of a block from cudaMalloc are in use; 0 puts it back into a cache, where it is poisoned once
/// the work has run that is now queued on any stream.
void mark(void* block, std::size_t bytes_in_use);

std::string last_message();          ///< the full text of the last error
void reset_error();                  ///< forgets a sticky error, and whatever was queued
void set_memory(std::size_t bytes);  ///< the size of the card (8 GiB)
void set_seed(std::uint64_t seed);   ///< the order of blocks and threads
enum class Refusal { none, unsupported, invalid, late };
inline Refusal refusal = Refusal::none;  ///< of epilogues, by cuBLASLt: its heuristic in two ways, or the product
bool is_device(const void* pointer);     ///< lies in the device's range of addresses

std::size_t last_node(cudaStream_t stream);  ///< number of the node that was captured last
/// From the next launch of the graph on, that node is this kernel.
void replace_node(cudaGraphExec_t graph, std::size_t node, const char* kernel, dim3 grid, dim3 block,
                  std::function<void()> thread_body);

// --- pointers -----------------------------------------------------------------------------------------------------
struct Extent {
  std::uintptr_t begin = 0, end = 0;
};
/// The bytes in use of the allocation that `pointer` lies in. Null has none; what is no live device memory is an Error.
Extent extent_of(const void* pointer);
[[noreturn]] void outside(std::uintptr_t at, Extent in, std::int64_t index, std::int64_t count, std::size_t size);
extern bool watch_freed;  ///< a graph runs, and memory was freed since its capture
bool is_freed(std::uintptr_t address);

/// A device pointer that knows its allocation's bounds: every access is checked against them.
template <class T> class Pointer {
 public:
  Pointer(std::nullptr_t = nullptr) {}
  Pointer(T* pointer) : at_(reinterpret_cast<std::uintptr_t>(pointer)), in_(extent_of(pointer)) {}
  Pointer(T* pointer, Extent in) : at_(reinterpret_cast<std::uintptr_t>(pointer)), in_(in) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>> Pointer(const Pointer<U>& other)
      : at_(other.address()), in_(other.bounds()) {}

  /// `n` elements from element `i` on.
  T* at(std::int64_t i, std::int64_t n) const {
    const std::uintptr_t first = at_ + static_cast<std::uintptr_t>(i) * sizeof(T), offset = first - in_.begin;
    const std::uintptr_t size = in_.end - in_.begin;
    if (offset > size || n < 0 || (size - offset) / sizeof(T) < static_cast<std::uintptr_t>(n) ||
        (watch_freed && is_freed(in_.begin))) [[unlikely]]
      outside(at_, in_, i, n, sizeof(T));
    return reinterpret_cast<T*>(first);
  }
  T& operator[](std::int64_t i) const { return *at(i, 1); }
  T& operator*() const { return *at(0, 1); }

  Pointer operator+(std::int64_t n) const {
    Pointer p = *this;
    p.at_ += static_cast<std::uintptr_t>(n) * sizeof(T);
    return p;
  }
  explicit operator bool() const { return at_ != 0; }

  std::uintptr_t address() const { return at_; }
  Extent bounds() const { return in_; }

 private:
  std::uintptr_t at_ = 0;
  Extent in_;
};

/// A place in a kernel, for messages.
struct Site {
  const char *op, *file;
  int line;
  bool operator==(const Site&) const = default;
};

// --- shared memory ------------------------------------------------------------------------------------------------
/// A shared array: checked by index, and a plain pointer where one is asked for.
template <class T> class Shared : public Pointer<T> {
 public:
  using Pointer<T>::Pointer;
  operator T*() const { return reinterpret_cast<T*>(this->address()); }
};

/// One for each shared array of each function; says where the running block has it.
struct SharedSite {
  std::uint64_t block = 0;
  Extent bytes{};
  Site site{};
};
extern std::uint64_t running_block;
void place_shared(SharedSite& array, std::size_t bytes, Site site);

template <class T> Shared<T> shared(SharedSite& array, std::size_t count, Site site) {
  static_assert(std::is_trivially_destructible_v<T> && alignof(T) <= 16);
  if (array.block != running_block) [[unlikely]]
    place_shared(array, count * sizeof(T), site);
  return {reinterpret_cast<T*>(array.bytes.begin), array.bytes};
}

// --- what threads wait for ------------------------------------------------------------------------------------------
void barrier(Site site);
/// What lane `source` of the mask brought as `value`; with no source, one bit for each lane whose value is not 0.
constexpr int kVote = -1;
std::uint64_t collective(Site site, unsigned mask, std::uint64_t value, int source = kVote);
int lane();
[[noreturn]] void float_atomic();

/// The value of lane `from`, or the lane's own where that is outside its group of `width` lanes.
template <class T> T shuffle(Site site, unsigned mask, T value, int from, int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const int source = (from & -width) == (lane() & -width) ? from : lane();
  return std::bit_cast<T>(static_cast<Bits>(collective(site, mask, std::bit_cast<Bits>(value), source)));
}

template <class T, class Next> T change(T* at, Next next) {
  constexpr bool integer =
      std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
  static_assert(integer || std::is_floating_point_v<T>);
  if constexpr (!integer) float_atomic();
  return std::exchange(*at, static_cast<T>(next(*at)));
}
}  // namespace stet::simulated

#define STET_SHARED(type, name, count)              \
  static ::stet::simulated::SharedSite name##_site; \
  const auto name = ::stet::simulated::shared<type>(name##_site, count, {#name, __FILE__, __LINE__})

// --- the language -------------------------------------------------------------------------------------------------
// Where a thread waits is told by default arguments, which name the line of the call.
#define STET_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(STET_WHERE) { stet::simulated::barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = ~0u, STET_WHERE) {
  stet::simulated::collective({"__syncwarp", file, line}, mask, 0);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, STET_WHERE) {
  return static_cast<unsigned>(stet::simulated::collective({"__ballot_sync", file, line}, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate, STET_WHERE) {
  return stet::simulated::collective({"__any_sync", file, line}, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, STET_WHERE) {
  return stet::simulated::collective({"__all_sync", file, line}, mask, predicate != 0) == mask;
}

#define STET_SHUFFLE(name, type, from)                                                    \
  template <class T> T name(unsigned mask, T value, type x, int width = 32, STET_WHERE) { \
    const int me = stet::simulated::lane(), by = static_cast<int>(x);                     \
    return stet::simulated::shuffle({#name, file, line}, mask, value, from, width);       \
  }
STET_SHUFFLE(__shfl_sync, int, (me & -width) + (by & (width - 1)))
STET_SHUFFLE(__shfl_up_sync, unsigned, me - by)
STET_SHUFFLE(__shfl_down_sync, unsigned, me + by)
STET_SHUFFLE(__shfl_xor_sync, int, me ^ by)
#undef STET_SHUFFLE
#undef STET_WHERE

template <class T> T atomicAdd(T* at, std::type_identity_t<T> v) {
  const auto add = [v](T old) { return static_cast<unsigned long long>(old) + static_cast<unsigned long long>(v); };
  return stet::simulated::change(at, add);
}
template <class T> T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return stet::simulated::change(at, [=](T old) { return old == expected ? v : old; });
}
