// Strided copies with conversion, transposes through shared memory, and filling.
#include <stet/cuda/kernels/layout.h>
#include <stet/tensor/convert.h>

namespace stet::cuda {
namespace {

constexpr int kTile = 32, kTileRows = 8;

template <class To, class From> struct StridedCopy {
  Pointer<To> out;
  Pointer<const From> in;
  Layout<2> layout;  // of in and out
  __device__ void operator()(std::int64_t i) const {
    std::int64_t at[2];
    layout.offsets(i, at);
    out[at[1]] = convert<To>(in[at[0]]);
  }
};

template <class To, class From> struct FlatCopy {
  Pointer<To> out;
  Pointer<const From> in;
  __device__ void operator()(std::int64_t i) const { out[i] = convert<To>(in[i]); }
};

template <class T> struct FillBody {
  Pointer<T> out;
  T value;
  __device__ void operator()(std::int64_t i) const { out[i] = value; }
};

/// out (planes, rows, cols) from in, whose rows are adjacent: a tile is read along its rows, written along its
/// columns, so that both sides move whole lines of memory. The odd width keeps a column out of one memory bank.
template <class T> __global__ void transpose_kernel(Pointer<T> out, Pointer<const T> in, std::int64_t rows,
                                                    std::int64_t cols, std::int64_t in_step, std::int64_t plane_step,
                                                    std::int64_t tiles_across) {
  STET_SHARED(T, tile, kTile * (kTile + 1));
  const std::int64_t row0 = blockIdx.x / tiles_across * kTile, col0 = blockIdx.x % tiles_across * kTile;
  const Pointer<const T> from = in + blockIdx.y * plane_step;
  const Pointer<T> to = out + blockIdx.y * (rows * cols);
  const int x = static_cast<int>(threadIdx.x), y0 = static_cast<int>(threadIdx.y);
  for (int y = y0; y < kTile; y += kTileRows)
    if (row0 + x < rows && col0 + y < cols) tile[y * (kTile + 1) + x] = from[(col0 + y) * in_step + row0 + x];
  __syncthreads();
  for (int y = y0; y < kTile; y += kTileRows)
    if (row0 + y < rows && col0 + x < cols) to[(row0 + y) * cols + col0 + x] = tile[x * (kTile + 1) + y];
}

/// A contiguous result whose last two axes are swapped in memory on the other side.
bool is_transpose(const Copy& job) {
  const int r = job.rank;
  if (job.from != job.to || r < 2 || r > 3) return false;
  const bool plain = job.out_stride[r - 1] == 1 && job.out_stride[r - 2] == job.size[r - 1] &&
                     (r == 2 || job.out_stride[0] == job.size[1] * job.size[2]);
  return plain && job.in_stride[r - 2] == 1 && job.in_stride[r - 1] > 1 && (r == 2 || job.size[0] <= 65535) &&
         job.size[r - 1] >= kTile / 2 && job.size[r - 2] >= kTile / 2;
}

template <class T> void transpose(const Copy& job) {
  const int r = job.rank;
  const std::int64_t rows = job.size[r - 2], cols = job.size[r - 1], across = ceil_div(cols, kTile);
  const dim3 grid(static_cast<unsigned>(ceil_div(rows, kTile) * across),
                  r == 3 ? static_cast<unsigned>(job.size[0]) : 1);
  launch("copy", transpose_kernel<T>, grid, dim3(kTile, kTileRows), static_cast<T*>(job.out),
         static_cast<const T*>(job.in), rows, cols, job.in_stride[r - 1], r == 3 ? job.in_stride[0] : 0, across);
}

/// Bits are moved, whatever they mean.
template <std::size_t bytes> void transpose_bits(const Copy& job) {
  if constexpr (bytes == 1) transpose<std::uint8_t>(job);
  else if constexpr (bytes == 2) transpose<std::uint16_t>(job);
  else if constexpr (bytes == 4) transpose<std::uint32_t>(job);
  else transpose<std::uint64_t>(job);
}

template <class To, class From> void copy_typed(const Copy& job) {
  To* out = static_cast<To*>(job.out);
  const From* in = static_cast<const From*>(job.in);
  const bool flat = job.rank == 0 || (job.rank == 1 && job.in_stride[0] == 1 && job.out_stride[0] == 1);
  if constexpr (std::is_same_v<To, From>) {
    if (flat && !is_recording()) {  // a recorded copy could not be given other addresses later
      const auto bytes = static_cast<std::size_t>(job.count) * sizeof(To);
      return check_cuda("copy", cudaMemcpyAsync(out, in, bytes, cudaMemcpyDeviceToDevice, stream()));
    }
    if (is_transpose(job)) return transpose_bits<sizeof(To)>(job);
  }
  if (flat) return for_each("copy", FlatCopy<To, From>{out, in}, job.count);
  const Layout<2> layout(job.rank, job.size, job.count, {job.in_stride, job.out_stride});
  for_each("copy", StridedCopy<To, From>{out, in, layout}, job.count);
}

void copy(const Copy& job) {
  dispatch(job.from, [&]<class From>() { dispatch(job.to, [&]<class To>() { copy_typed<To, From>(job); }); });
}

void fill(const Fill& job) {
  dispatch(job.dtype, [&]<class T>() {
    for_each("fill", FillBody<T>{static_cast<T*>(job.out), convert<T>(job.value)}, job.count);
  });
}

}  // namespace

void fill_copy(Kernels& table) {
  table.copy = copy;
  table.fill = fill;
}

}  // namespace stet::cuda
