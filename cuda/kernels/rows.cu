// Fused operations on rows, a warp or a block for each: softmax, logsumexp, layer and RMS norm, cross-entropy from
// logits. Same formulas as tensor/cpu/kernels/rows.cpp; sums run over the row's threads.
#include <stet/cuda/kernels/block.h>

namespace stet::cuda {
namespace {

/// The work that the threads of a row share: visits of its elements and reductions over all.
template <class T, class Shared> struct Row {
  std::int64_t number, n;
  Shared scratch;

  template <class Body> __device__ __forceinline__ void each(const Body& body) const {
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) body(i);
  }
  template <class Op, class Load> __device__ __forceinline__ T reduce(T start, const Load& load) const {
    T value = start;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) value = Op::eval(value, load(i));
    return reduce_block<Op>(value, scratch);
  }
  template <class Load> __device__ __forceinline__ T sum(const Load& load) const { return reduce<Sum>(T(0), load); }
  __device__ __forceinline__ T max(Pointer<const T> x) const {
    return reduce<Max>(x[0], [=](std::int64_t i) { return x[i]; });
  }
};
template <class T, class Shared> __device__ __forceinline__ Row<T, Shared> row_of(std::int64_t n, Shared scratch) {
  return {own_line(), n, scratch};
}

template <class T, bool log>
__global__ void softmax_kernel(std::int64_t rows, Pointer<T> out, Pointer<const T> in, std::int64_t n) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(n, scratch);
  const Pointer<const T> x = in + row.number * n;
  const Pointer<T> y = out + row.number * n;
  const T top = row.max(x);
  const T sum = row.sum([=](std::int64_t i) { return math::exp(x[i] - top); });
  const T log_sum = math::log(sum), scale = T(1) / sum;
  row.each([=](std::int64_t i) { y[i] = log ? (x[i] - top) - log_sum : math::exp(x[i] - top) * scale; });
}

template <class T>
__global__ void logsumexp_kernel(std::int64_t rows, Pointer<T> out, Pointer<const T> in, std::int64_t n) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(n, scratch);
  const Pointer<const T> x = in + row.number * n;
  const T infinite = T(__builtin_inf());
  T value = -infinite;
  if (n > 0) {
    const T top = row.max(x);
    value = top;  // a row of -inf, one with +inf, one with NaN
    if (top > -infinite && top < infinite)
      value = top + math::log(row.sum([=](std::int64_t i) { return math::exp(x[i] - top); }));
  }
  if (threadIdx.x == 0) out[row.number] = value;
}

template <class T> struct LayerNormJob {
  std::int64_t n;
  T eps;
  Pointer<const T> x, weight, bias;
  Pointer<T> y, mean, rstd;
};

template <class T> __global__ void layer_norm_kernel(std::int64_t rows, LayerNormJob<T> job) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(job.n, scratch);
  const Pointer<const T> x = job.x + row.number * job.n;
  const Pointer<T> y = job.y + row.number * job.n;
  const T over_n = T(1) / static_cast<T>(job.n);
  const T mean = row.sum([=](std::int64_t i) { return x[i]; }) * over_n;
  const T variance = row.sum([=](std::int64_t i) { return (x[i] - mean) * (x[i] - mean); }) * over_n;
  const T rstd = T(1) / math::sqrt(variance + job.eps);
  row.each([&](std::int64_t i) {
    T value = (x[i] - mean) * rstd;
    if (job.weight) value = value * job.weight[i];
    if (job.bias) value = value + job.bias[i];
    y[i] = value;
  });
  if (threadIdx.x == 0 && job.mean) {
    job.mean[row.number] = mean;
    job.rstd[row.number] = rstd;
  }
}

template <class T> struct RmsNormJob {
  std::int64_t n;
  T eps;
  Pointer<const T> x, weight;
  Pointer<T> y, rstd;
};

template <class T> __global__ void rms_norm_kernel(std::int64_t rows, RmsNormJob<T> job) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(job.n, scratch);
  const Pointer<const T> x = job.x + row.number * job.n;
  const Pointer<T> y = job.y + row.number * job.n;
  const T square = row.sum([=](std::int64_t i) { return x[i] * x[i]; }) * (T(1) / static_cast<T>(job.n));
  const T rstd = T(1) / math::sqrt(square + job.eps);
  row.each([&](std::int64_t i) { y[i] = job.weight ? x[i] * rstd * job.weight[i] : x[i] * rstd; });
  if (threadIdx.x == 0 && job.rstd) job.rstd[row.number] = rstd;
}

template <class T> struct NormGradJob {
  std::int64_t rows, n;
  Pointer<const T> g, x, weight, mean, rstd;  // no mean: RMS norm
  Pointer<T> dx;
  bool add;  // to what is there

  __device__ __forceinline__ T normalized(std::int64_t row, std::int64_t i) const {
    const T value = x[row * n + i];
    return mean ? (value - mean[row]) * rstd[row] : value * rstd[row];
  }
};

/// dx = rstd (gw - mean(gw) - xhat mean(gw xhat)), gw = g * weight; without mean(gw) for RMS norm.
template <class T> __global__ void norm_grad_kernel(std::int64_t rows, NormGradJob<T> job) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(job.n, scratch);
  const Pointer<const T> g = job.g + row.number * job.n;
  const Pointer<T> dx = job.dx + row.number * job.n;
  const T rstd = job.rstd[row.number], over_n = T(1) / static_cast<T>(job.n);
  const auto gw = [&](std::int64_t i) { return job.weight ? g[i] * job.weight[i] : g[i]; };
  const T a = job.mean ? row.sum(gw) * over_n : T(0);
  const T b = row.sum([&](std::int64_t i) { return gw(i) * job.normalized(row.number, i); }) * over_n;
  row.each([&](std::int64_t i) {
    const T value = rstd * (gw(i) - a - job.normalized(row.number, i) * b);
    dx[i] = job.add ? dx[i] + value : value;
  });
}

constexpr int kColumns = 32, kRowThreads = 8;
constexpr std::int64_t kRowsPerPiece = 256;  // that a block of 32 columns takes

/// What a piece of rows adds to the gradients of weight and bias: (pieces, n) each. Thread y takes rows y, y + 8, ...
template <class T>
__global__ void norm_sums_kernel(NormGradJob<T> job, Pointer<T> dweight, Pointer<T> dbias, std::int64_t across) {
  STET_SHARED(T, scratch, kColumns * kRowThreads);
  STET_SHARED(T, plain, kColumns * kRowThreads);
  const std::int64_t column = blockIdx.x % across * kColumns + threadIdx.x, piece = blockIdx.x / across;
  const std::int64_t begin = piece * kRowsPerPiece;
  const std::int64_t end = job.rows - begin < kRowsPerPiece ? job.rows : begin + kRowsPerPiece;
  const int y = static_cast<int>(threadIdx.y), at = y * kColumns + static_cast<int>(threadIdx.x);
  if (column < job.n) {
    T weighted = T(0), sum = T(0);
    for (std::int64_t row = begin + y; row < end; row += kRowThreads) {
      const T g = job.g[row * job.n + column];
      if (dweight) weighted = weighted + g * job.normalized(row, column);
      sum = sum + g;
    }
    scratch[at] = weighted;
    plain[at] = sum;
  }
  __syncthreads();
  if (y != 0 || column >= job.n) return;
  for (int k = 1; k < kRowThreads; ++k) {
    scratch[at] = scratch[at] + scratch[k * kColumns + at];
    plain[at] = plain[at] + plain[k * kColumns + at];
  }
  if (dweight) dweight[piece * job.n + column] = scratch[at];
  if (dbias) dbias[piece * job.n + column] = plain[at];
}

template <class T> struct CrossEntropyJob {
  std::int64_t n;
  T smoothing;
  std::int64_t ignore;
  Pointer<const T> x;
  Pointer<const std::int64_t> target;
  Pointer<const T> weight, log_sums, g;  // the last two for the gradient
  Pointer<T> out, log_sum_out;
  Pointer<Complaint> complaint;

  __device__ __forceinline__ T weight_of(std::int64_t c) const { return weight ? weight[c] : T(1); }
};

/// loss = (1 - s) w_t (lse - x_t) + s / n sum_c w_c (lse - x_c); 0 for an ignored row.
template <class T> __global__ void cross_entropy_kernel(std::int64_t rows, CrossEntropyJob<T> job) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(job.n, scratch);
  const Pointer<const T> x = job.x + row.number * job.n;
  const T top = row.max(x);
  const T log_sum = math::log(row.sum([=](std::int64_t i) { return math::exp(x[i] - top); }));
  T spread = T(0);
  if (job.smoothing != T(0))
    spread = row.sum([&](std::int64_t i) { return job.weight_of(i) * (log_sum - (x[i] - top)); });
  if (threadIdx.x != 0) return;
  job.log_sum_out[row.number] = log_sum;
  job.log_sum_out[rows + row.number] = top;
  const std::int64_t wanted = job.target[row.number];
  T value = T(0);
  if (wanted != job.ignore) {
    const std::int64_t t = checked(wanted, job.n, row.number, Checked::cross_entropy, job.complaint);
    value = job.weight_of(t) * (log_sum - (x[t] - top));
    if (job.smoothing != T(0)) value = (T(1) - job.smoothing) * value + job.smoothing / static_cast<T>(job.n) * spread;
  }
  job.out[row.number] = value;
}

template <class T> __global__ void cross_entropy_grad_kernel(std::int64_t rows, CrossEntropyJob<T> job) {
  STET_SHARED(T, scratch, kWarp);
  if (own_line() >= rows) return;
  const auto row = row_of<T>(job.n, scratch);
  const Pointer<const T> x = job.x + row.number * job.n;
  const Pointer<T> dx = job.out + row.number * job.n;
  const std::int64_t wanted = job.target[row.number];
  if (wanted == job.ignore) return row.each([=](std::int64_t i) { dx[i] = T(0); });
  const std::int64_t t = wanted >= 0 && wanted < job.n ? wanted : 0;  // forward has complained
  const T spread = job.smoothing / static_cast<T>(job.n);
  T weights = static_cast<T>(job.n);
  if (job.weight) weights = row.sum([&](std::int64_t i) { return job.weight[i]; });
  const T top = job.log_sums[rows + row.number], log_sum = job.log_sums[row.number], seed = job.g[row.number];
  const T hit = (T(1) - job.smoothing) * job.weight_of(t), total = hit + spread * weights;
  // The difference first, then the seed: p - hit is where the digits are.
  row.each([&](std::int64_t i) {
    const T rest = total * math::exp((x[i] - top) - log_sum) - spread * job.weight_of(i);
    dx[i] = i == t ? seed * (rest - hit) : seed * rest;
  });
}

template <class T> const T* in(const Rows& job, int k) { return static_cast<const T*>(job.in[k]); }
template <class T> T* out(const Rows& job, int k) { return static_cast<T*>(job.out[k]); }

template <class... Parameters, class... Arguments>
void on_rows(std::string_view op, const Rows& job, void (*kernel)(Parameters...), const Arguments&... arguments) {
  const LineGrid grid(job.rows, job.n);
  launch(op, kernel, exact_grid(op, grid.blocks), grid.block, job.rows, arguments...);
}

template <bool log> void softmax(const Rows& job) {
  const auto run = [&]<class T>() {
    on_rows(log ? "log_softmax" : "softmax", job, softmax_kernel<T, log>, out<T>(job, 0), in<T>(job, 0), job.n);
  };
  job.dtype == DType::f32 ? run.template operator()<float>() : run.template operator()<double>();
}

template <class T> void logsumexp(const Rows& job) {
  on_rows("logsumexp", job, logsumexp_kernel<T>, out<T>(job, 0), in<T>(job, 0), job.n);
}

template <class T> void layer_norm(const Rows& job) {
  on_rows("layer_norm", job, layer_norm_kernel<T>,
          LayerNormJob<T>{job.n, static_cast<T>(job.scalar[0]), in<T>(job, 0), in<T>(job, 1), in<T>(job, 2),
                          out<T>(job, 0), out<T>(job, 1), out<T>(job, 2)});
}

template <class T> void rms_norm(const Rows& job) {
  on_rows("rms_norm", job, rms_norm_kernel<T>,
          RmsNormJob<T>{job.n, static_cast<T>(job.scalar[0]), in<T>(job, 0), in<T>(job, 1), out<T>(job, 0),
                        out<T>(job, 1)});
}

/// The gradients of weight and bias, in pieces where there are many rows.
template <class T> void norm_sums(const Rows& job, const NormGradJob<T>& with) {
  const std::int64_t pieces = ceil_div(job.rows, kRowsPerPiece), across = ceil_div(job.n, kColumns);
  const dim3 grid = exact_grid("norm_grad", pieces * across);
  T *const dweight = out<T>(job, 1), *const dbias = out<T>(job, 2);
  if (pieces == 1)
    return launch("norm_grad", norm_sums_kernel<T>, grid, dim3(kColumns, kRowThreads), with, dweight, dbias, across);
  const Scratch partial("norm_grad", 2 * pieces * job.n * static_cast<std::int64_t>(sizeof(T)));
  T *const weights = partial.as<T>(), *const biases = weights + pieces * job.n;
  launch("norm_grad", norm_sums_kernel<T>, grid, dim3(kColumns, kRowThreads), with, dweight ? weights : nullptr,
         dbias ? biases : nullptr, across);
  if (dweight) sum(job.dtype, {1, pieces, job.n, weights, dweight});
  if (dbias) sum(job.dtype, {1, pieces, job.n, biases, dbias});
}

template <class T> void norm_grad(const Rows& job) {
  const NormGradJob<T> with{job.rows,      job.n,         in<T>(job, 0),  in<T>(job, 1),     in<T>(job, 2),
                            in<T>(job, 3), in<T>(job, 4), out<T>(job, 0), job.scalar[0] != 0};
  if (job.out[0]) on_rows("norm_grad", job, norm_grad_kernel<T>, with);
  if (job.out[1] || job.out[2]) norm_sums(job, with);
}

template <class T> CrossEntropyJob<T> cross_entropy_job(const Rows& job, bool gradient) {
  return {job.n,
          static_cast<T>(job.scalar[0]),
          job.ignore,
          in<T>(job, 0),
          in<std::int64_t>(job, 1),
          in<T>(job, 2),
          gradient ? in<T>(job, 3) : nullptr,
          gradient ? in<T>(job, 4) : nullptr,
          out<T>(job, 0),
          gradient ? nullptr : out<T>(job, 1),
          complaint()};
}

template <class T> void cross_entropy(const Rows& job) {
  on_rows("cross_entropy", job, cross_entropy_kernel<T>, cross_entropy_job<T>(job, false));
}
template <class T> void cross_entropy_grad(const Rows& job) {
  on_rows("cross_entropy", job, cross_entropy_grad_kernel<T>, cross_entropy_job<T>(job, true));
}

template <class T> struct RotaryBody {
  Rotary job;
  Pointer<const T> x, cos, sin;
  Pointer<T> out;

  __device__ void operator()(std::int64_t i) const {
    const Split place = split(i, job.width);
    const std::int64_t column = place.rest;
    std::int64_t rest = place.quotient, row = 0, angle = 0;
    for (int d = job.rank - 1; d >= 0; --d) {
      const Split at = split(rest, job.size[d]);
      row += at.rest * job.stride[d];
      angle += at.rest * job.angle_stride[d];
      rest = at.quotient;
    }
    if (column >= 2 * job.half) {
      out[i] = x[row + column];
      return;
    }
    const bool first = job.interleaved ? column % 2 == 0 : column < job.half;
    const std::int64_t apart = job.interleaved ? 1 : job.half;
    const std::int64_t pair = job.interleaved ? column / 2 : first ? column : column - job.half;
    const T turn = job.inverse ? -sin[angle + pair] : sin[angle + pair];
    const T mine = x[row + column], other = x[first ? row + column + apart : row + column - apart];
    out[i] = first ? mine * cos[angle + pair] - other * turn : mine * cos[angle + pair] + other * turn;
  }
};

template <class T> void rotary(const Rotary& job) {
  for_each("rotary",
           RotaryBody<T>{job, static_cast<const T*>(job.x), static_cast<const T*>(job.cos),
                         static_cast<const T*>(job.sin), static_cast<T*>(job.out)},
           job.rows * job.width);
}

}  // namespace

void fill_rows(Kernels& table) {
  table.rotary = either<rotary<float>, rotary<double>>;
  table.softmax = softmax<false>;
  table.log_softmax = softmax<true>;
  table.logsumexp = either<logsumexp<float>, logsumexp<double>>;
  table.layer_norm = either<layer_norm<float>, layer_norm<double>>;
  table.rms_norm = either<rms_norm<float>, rms_norm<double>>;
  table.norm_grad = either<norm_grad<float>, norm_grad<double>>;
  table.cross_entropy = either<cross_entropy<float>, cross_entropy<double>>;
  table.cross_entropy_grad = either<cross_entropy_grad<float>, cross_entropy_grad<double>>;
}

}  // namespace stet::cuda
