// Sorting by a bitonic network over positions: comparisons are by value and, among equals, by position, so the
// result is stable and the CPU's. Lines of up to 1,024 elements are sorted in one block's shared memory, longer ones
// by a launch for each step whose distance exceeds a block.
#include <stet/cuda/kernels/sort.h>
#include <stet/cuda/launch.h>

namespace stet::cuda {
namespace {

constexpr std::int64_t kShared = 1024;  // positions that a block holds in shared memory; two for each thread

/// Lines of (outer, n, inner) as the network sees them.
template <class T> struct Lines {
  Pointer<const T> in;
  std::int64_t n, inner;
  bool descending;

  __device__ __forceinline__ Pointer<const T> line(std::int64_t number) const {
    return in + (number / inner * n * inner + number % inner);
  }
  /// NaN last when ascending, first when descending (it counts as the largest).
  static __device__ __forceinline__ bool less(T a, T b) { return a < b || (b != b && a == a); }
  /// Whether the element at position i comes before the one at j; positions from n on come last.
  __device__ __forceinline__ bool before(Pointer<const T> from, std::int64_t i, std::int64_t j) const {
    if (i >= n || j >= n) return i < j;
    const T a = from[i * inner], b = from[j * inner];
    if (descending ? less(b, a) : less(a, b)) return true;
    if (descending ? less(a, b) : less(b, a)) return false;
    return i < j;
  }
};

/// Position of the t-th pair at that distance.
__device__ __forceinline__ std::int64_t pair_at(std::int64_t t, std::int64_t distance) {
  return (t / distance * 2) * distance + t % distance;
}

/// Puts the pair (i, i + distance) in order: ascending where bit `run` of i is clear.
template <class T, class Positions>
__device__ __forceinline__ void exchange(const Lines<T>& lines, Pointer<const T> from, Positions positions,
                                         std::int64_t i, std::int64_t distance, bool ascending) {
  const std::int64_t a = positions[i], b = positions[i + distance];
  if (lines.before(from, a, b) == ascending) return;
  positions[i] = b;
  positions[i + distance] = a;
}

/// A block sorts one stretch of `width` positions: the whole network up to runs of `width`, or, when `merging`, the
/// steps of run length `run` whose distance is below the stretch.
template <class T> __global__ void sort_block(Lines<T> lines, Pointer<std::int64_t> positions, std::int64_t width,
                                              std::int64_t blocks, std::int64_t run, bool merging) {
  STET_SHARED(std::int64_t, held, kShared);
  const std::int64_t number = blockIdx.x / blocks, base = blockIdx.x % blocks * width;
  const Pointer<const T> from = lines.line(number);
  const Pointer<std::int64_t> mine = positions + (number * blocks * width + base);
  const std::int64_t me = threadIdx.x, step = blockDim.x;
  for (std::int64_t i = me; i < width; i += step) held[i] = merging ? mine[i] : base + i;
  __syncthreads();
  for (std::int64_t r = merging ? run : 2; r <= (merging ? run : width); r *= 2)
    for (std::int64_t distance = (r < width ? r : width) / 2; distance > 0; distance /= 2) {
      for (std::int64_t t = me; t < width / 2; t += step) {
        const std::int64_t i = pair_at(t, distance);
        exchange(lines, from, held, i, distance, ((base + i) & r) == 0);
      }
      __syncthreads();
    }
  for (std::int64_t i = me; i < width; i += step) mine[i] = held[i];
}

/// One step of the network for distances that leave a block's stretch.
template <class T> struct StepBody {
  Lines<T> lines;
  Pointer<std::int64_t> positions;
  std::int64_t padded, run, distance;
  __device__ void operator()(std::int64_t t) const {
    const std::int64_t pairs = padded / 2, number = t / pairs, i = pair_at(t % pairs, distance);
    exchange(lines, lines.line(number), positions + number * padded, i, distance, (i & run) == 0);
  }
};

/// The first k positions of every line, with their values.
template <class T> struct TakeBody {
  Lines<T> lines;
  Pointer<const std::int64_t> positions;
  std::int64_t padded, k;
  Pointer<T> values;
  Pointer<std::int64_t> indices;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t column = i % lines.inner, place = i / lines.inner % k, outer = i / lines.inner / k;
    const std::int64_t number = outer * lines.inner + column, from = positions[number * padded + place];
    indices[i] = from;
    values[i] = lines.line(number)[from * lines.inner];
  }
};

template <class T> void sort_lines(std::string_view op, const Lines<T>& lines, std::int64_t outer, std::int64_t k,
                                   T* values, std::int64_t* indices) {
  std::int64_t padded = 2;
  while (padded < lines.n) padded *= 2;
  const std::int64_t count = outer * lines.inner, width = std::min(padded, kShared), blocks = padded / width;
  const Scratch scratch(op, count * padded * static_cast<std::int64_t>(sizeof(std::int64_t)));
  std::int64_t* positions = scratch.as<std::int64_t>();
  const dim3 block(static_cast<unsigned>(std::max<std::int64_t>(width / 2, kWarp)));
  launch(op, sort_block<T>, exact_grid(op, count * blocks), block, lines, positions, width, blocks, 0, false);
  for (std::int64_t run = width * 2; run <= padded; run *= 2) {
    for (std::int64_t distance = run / 2; distance >= width; distance /= 2)
      for_each(op, StepBody<T>{lines, positions, padded, run, distance}, count * padded / 2);
    launch(op, sort_block<T>, exact_grid(op, count * blocks), block, lines, positions, width, blocks, run, true);
  }
  for_each(op, TakeBody<T>{lines, positions, padded, k, values, indices}, outer * k * lines.inner);
}

void sort(const Sort& job) {
  dispatch(job.dtype, [&]<class T>() {
    if constexpr (!std::is_same_v<T, BFloat16> && !std::is_same_v<T, bool>)
      sort_lines<T>("sort", {static_cast<const T*>(job.in), job.n, job.inner, job.descending}, job.outer, job.k,
                    static_cast<T*>(job.values), job.indices);
  });
}

}  // namespace

void sort_indices(std::string_view op, const std::int64_t* index, std::int64_t outer, std::int64_t n,
                  std::int64_t inner, std::int64_t* sorted, std::int64_t* order) {
  sort_lines<std::int64_t>(op, {index, n, inner, false}, outer, n, sorted, order);
}

void fill_sort(Kernels& table) { table.sort = sort; }

}  // namespace stet::cuda
