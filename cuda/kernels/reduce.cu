// Reductions over (outer, n, inner) without a copy: along lines where inner is 1, down columns otherwise; positions
// of extremes; running sums. Long lines are cut into pieces whose results a second pass joins. No float atomics: the
// order of a sum depends on the shape alone.
#include <stet/cuda/kernels/block.h>

namespace stet::cuda {
namespace {

constexpr std::int64_t kPiece = 16384;         // elements of a long line that one block takes
constexpr int kColumns = 32, kRowThreads = 8;  // a block on columns
constexpr std::int64_t kRowsPerPiece = 512;    // rows that it takes at a time

/// Warp or block b reduces piece b % pieces of line b / pieces.
template <class Op, class T> __global__ void reduce_lines(Pointer<T> out, Pointer<const T> in, std::int64_t n,
                                                          std::int64_t jobs, std::int64_t pieces, std::int64_t piece) {
  STET_SHARED(T, scratch, kWarp);
  const std::int64_t job = own_line(), line = job / pieces, begin = job % pieces * piece;
  if (job >= jobs) return;
  const std::int64_t length = n - begin < piece ? n - begin : piece;
  const Pointer<const T> from = in + (line * n + begin);
  const T start = start_of<Op, T>(from[0]);
  T sum[4] = {start, start, start, start};  // four chains: loads overlap, and errors stay small
  const std::int64_t step = blockDim.x;
  std::int64_t i = threadIdx.x;
  for (; i + 3 * step < length; i += 4 * step)
    for (int k = 0; k < 4; ++k) sum[k] = Op::eval(sum[k], from[i + k * step]);
  for (; i < length; i += step) sum[0] = Op::eval(sum[0], from[i]);
  const T total = reduce_block<Op>(Op::eval(Op::eval(sum[0], sum[1]), Op::eval(sum[2], sum[3])), scratch);
  if (threadIdx.x == 0) out[job] = total;
}

/// 32 columns by 8 threads down: thread y takes rows y, y + 8, ... of a piece, and the eight are joined.
/// in (outer, n, inner) -> out (outer, pieces, inner).
template <class Op, class T> __global__ void reduce_columns(Pointer<T> out, Pointer<const T> in, std::int64_t n,
                                                            std::int64_t inner, std::int64_t pieces, std::int64_t piece,
                                                            std::int64_t blocks_across) {
  STET_SHARED(T, scratch, kColumns * kRowThreads);
  const std::int64_t column = blockIdx.x % blocks_across * kColumns + threadIdx.x;
  const std::int64_t part = blockIdx.x / blocks_across % pieces, outer = blockIdx.x / blocks_across / pieces;
  const std::int64_t begin = part * piece, end = n - begin < piece ? n : begin + piece;
  const int y = static_cast<int>(threadIdx.y), at = y * kColumns + static_cast<int>(threadIdx.x);
  if (column < inner) {
    const Pointer<const T> from = in + (outer * n * inner + column);
    T sum = start_of<Op, T>(from[begin * inner]);
    for (std::int64_t row = begin + y; row < end; row += kRowThreads) sum = Op::eval(sum, from[row * inner]);
    scratch[at] = sum;
  }
  __syncthreads();
  if (y != 0 || column >= inner) return;
  T total = scratch[at];
  for (int k = 1; k < kRowThreads; ++k) total = Op::eval(total, scratch[k * kColumns + at]);
  out[(outer * pieces + part) * inner + column] = total;
}

template <class Op, class T> void lines(const T* in, T* out, std::int64_t outer, std::int64_t n) {
  const std::int64_t pieces = ceil_div(n, kPiece), piece = pieces == 1 ? n : kPiece;
  if (pieces == 1) {
    const LineGrid grid(outer, n);
    return launch(Op::name, reduce_lines<Op, T>, exact_grid(Op::name, grid.blocks), grid.block, out, in, n, outer,
                  pieces, piece);
  }
  const Scratch partial(Op::name, outer * pieces * static_cast<std::int64_t>(sizeof(T)));
  launch(Op::name, reduce_lines<Op, T>, exact_grid(Op::name, outer * pieces), dim3(kBlock), partial.as<T>(), in, n,
         outer * pieces, pieces, piece);
  lines<Op, T>(partial.as<T>(), out, outer, pieces);
}

template <class Op, class T> void columns(const T* in, T* out, const Reduce& job) {
  const std::int64_t across = ceil_div(job.inner, kColumns), pieces = ceil_div(job.n, kRowsPerPiece);
  const dim3 block(kColumns, kRowThreads), grid = exact_grid(Op::name, job.outer * pieces * across);
  const std::int64_t piece = pieces == 1 ? job.n : kRowsPerPiece;
  if (pieces == 1)
    return launch(Op::name, reduce_columns<Op, T>, grid, block, out, in, job.n, job.inner, pieces, piece, across);
  const Scratch partial(Op::name, job.outer * pieces * job.inner * static_cast<std::int64_t>(sizeof(T)));
  launch(Op::name, reduce_columns<Op, T>, grid, block, partial.as<T>(), in, job.n, job.inner, pieces, piece, across);
  columns<Op, T>(partial.as<T>(), out, {job.outer, pieces, job.inner, nullptr, nullptr});
}

template <class Op, class T> struct Empty {
  Pointer<T> out;
  __device__ void operator()(std::int64_t i) const { out[i] = start_of<Op, T>(T(0)); }
};

template <class Op, class T> void reduce(const Reduce& job) {
  const T* in = static_cast<const T*>(job.in);
  T* out = static_cast<T*>(job.out);
  if (job.n == 0) for_each(Op::name, Empty<Op, T>{out}, job.outer * job.inner);
  else if (job.inner == 1) lines<Op, T>(in, out, job.outer, job.n);
  else columns<Op, T>(in, out, job);
}

template <class T> struct Best {
  T value;
  std::int64_t at;  // -1: nothing seen
};

/// NaN before all; then the larger (smaller); of equals the first.
template <bool smallest, class T> __device__ __forceinline__ Best<T> better(Best<T> a, Best<T> b) {
  if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
  const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
  if (nan_a != nan_b) return nan_a ? a : b;
  const bool wins_a = !nan_a && (smallest ? a.value < b.value : a.value > b.value);
  const bool wins_b = !nan_a && (smallest ? b.value < a.value : b.value > a.value);
  if (wins_a != wins_b) return wins_a ? a : b;
  return a.at < b.at ? a : b;
}

/// A block for each line; lines of (outer, n, inner) are strided by inner.
template <class T, bool smallest>
__global__ void arg_kernel(Pointer<std::int64_t> out, Pointer<const T> in, std::int64_t n, std::int64_t inner) {
  STET_SHARED(T, values, kBlock);
  STET_SHARED(std::int64_t, places, kBlock);
  const std::int64_t line = blockIdx.x;
  const Pointer<const T> from = in + (line / inner * n * inner + line % inner);
  Best<T> best{T(0), -1};
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) best = better<smallest>(best, Best<T>{from[i * inner], i});
  const unsigned me = threadIdx.x;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    values[me] = best.value;
    places[me] = best.at;
    __syncthreads();
    if (me < half) best = better<smallest>(best, Best<T>{values[me + half], places[me + half]});
    __syncthreads();
  }
  if (me == 0) out[line] = best.at;
}

template <class T, bool smallest> void arg_reduce(const Reduce& job) {
  launch(smallest ? "argmin" : "argmax", arg_kernel<T, smallest>, exact_grid("argmax", job.outer * job.inner),
         dim3(threads_for(job.n)), static_cast<std::int64_t*>(job.out), static_cast<const T*>(job.in), job.n,
         job.inner);
}

/// A block for each line: 256 elements at a time, summed in steps of doubling distance, on top of what came before.
template <class T>
__global__ void cumsum_kernel(Pointer<T> out, Pointer<const T> in, std::int64_t n, std::int64_t inner) {
  STET_SHARED(T, window, kBlock);
  const std::int64_t start = blockIdx.x / inner * n * inner + blockIdx.x % inner;
  const int me = static_cast<int>(threadIdx.x), width = static_cast<int>(blockDim.x);
  T before = T(0);
  for (std::int64_t base = 0; base < n; base += width) {
    const std::int64_t i = base + me;
    T sum = i < n ? in[start + i * inner] : T(0);
    for (int distance = 1; distance < width; distance *= 2) {
      window[me] = sum;
      __syncthreads();
      if (me >= distance) sum = Add::eval(window[me - distance], sum);
      __syncthreads();
    }
    window[me] = sum;
    __syncthreads();
    if (i < n) out[start + i * inner] = Add::eval(before, sum);
    before = Add::eval(before, window[width - 1]);
    __syncthreads();
  }
}

template <class T> void cumsum(const Reduce& job) {
  launch("cumsum", cumsum_kernel<T>, exact_grid("cumsum", job.outer * job.inner), dim3(threads_for(job.n)),
         static_cast<T*>(job.out), static_cast<const T*>(job.in), job.n, job.inner);
}

template <class T> void set(Kernels& table) {
  constexpr auto t = static_cast<std::size_t>(dtype_of<T>);
  ReduceOps::for_each([&]<class Op>() { table.reduce[ReduceOps::index<Op>][t] = reduce<Op, T>; });
  table.arg_reduce[0][t] = arg_reduce<T, false>;
  table.arg_reduce[1][t] = arg_reduce<T, true>;
  table.cumsum[t] = cumsum<T>;
}

}  // namespace

void sum(DType dtype, const Reduce& job) {
  if (dtype == DType::f32) reduce<Sum, float>(job);
  else reduce<Sum, double>(job);
}

void fill_reduce(Kernels& table) {
  set<float>(table);
  set<double>(table);
  set<std::int64_t>(table);
}

}  // namespace stet::cuda
