// Attention by tiles, a block for each tile of rows of a head (of keys, for dk and dv). Same recurrences as
// tensor/cpu/kernels/attention.cpp; sums run in another order. A tile of scores stands in shared memory, results
// gather in their own place: right for any width first, fast second.
#include <stet/cuda/kernels/block.h>
#include <stet/tensor/random.h>

namespace stet::cuda {
namespace {

constexpr int kRows = 16, kKeys = kWarp, kThreads = 128, kTile = kRows * kKeys;

template <class T> struct Heads {
  Pointer<T> data;
  std::int64_t batch, head, row;
  __device__ __forceinline__ Pointer<T> at(std::int64_t b, std::int64_t h, std::int64_t r) const {
    return data + (b * batch + h * head + r * row);
  }
};

template <class E> struct MaskJob {
  Pointer<const E> data;
  std::int64_t stride[4];
  __device__ __forceinline__ E at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    return data[b * stride[0] + h * stride[1] + i * stride[2] + j * stride[3]];
  }
};

template <class T> struct AttentionJob {
  std::int64_t heads, group, kv_heads, rows, keys, width, value_width;
  T scale;
  bool causal;
  std::int64_t window;
  float kept;     // 1 - dropout
  T kept_factor;  // 1 / (1 - dropout)
  RandomKey key;
  MaskJob<bool> keep[2];
  MaskJob<T> bias;
  Heads<const T> q, k, v, g;
  Heads<T> out, dq, dk, dv;
  Pointer<T> log_sum, delta;

  __device__ __forceinline__ std::int64_t line(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return (b * heads + h) * rows + i;
  }
  __device__ __forceinline__ std::int64_t keys_seen(std::int64_t i) const {
    const std::int64_t seen = causal ? i + 1 + keys - rows : keys;
    return seen < 0 ? 0 : seen < keys ? seen : keys;
  }
  __device__ __forceinline__ std::int64_t first_seen(std::int64_t i) const {
    const std::int64_t first = window ? i + 1 + keys - rows - window : 0;
    return first < 0 ? 0 : first < keys ? first : keys;
  }
  /// The masked score of row i and key j, both in range.
  __device__ T score(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    const T hidden = -T(__builtin_inf());
    if (j >= keys_seen(i) || j < first_seen(i)) return hidden;
    for (int m = 0; m < 2; ++m)
      if (keep[m].data && !keep[m].at(b, h, i, j)) return hidden;
    const T s = dot(q.at(b, h, i), k.at(b, h / group, j), width) * scale;
    return bias.data ? s + bias.at(b, h, i, j) : s;
  }
  __device__ static T dot(Pointer<const T> x, Pointer<const T> y, std::int64_t n) {
    T sum = T(0);
    for (std::int64_t c = 0; c < n; ++c) sum += x[c] * y[c];
    return sum;
  }
  /// The dropout's factor: 0, or 1 / (1 - p).
  __device__ __forceinline__ T factor(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    if (kept >= 1.0f) return T(1);
    return bernoulli(key, static_cast<std::uint64_t>(line(b, h, i) * keys + j), kept) ? kept_factor : T(0);
  }
};

/// Which tile a block works on: block = (batch * heads + head) * tiles + tile.
struct Place {
  std::int64_t batch, head, first;
};
__device__ __forceinline__ Place place(std::int64_t heads, std::int64_t count, int tile) {
  const std::int64_t tiles = (count + tile - 1) / tile, at = blockIdx.x;
  return {at / tiles / heads, at / tiles % heads, at % tiles * tile};
}

template <class T> __global__ void attention_kernel(AttentionJob<T> job) {
  STET_SHARED(T, s, kTile);
  STET_SHARED(T, top, kRows);
  STET_SHARED(T, sum, kRows);
  STET_SHARED(T, past, kRows);
  const T none = -T(__builtin_inf());
  const Place at = place(job.heads, job.rows, kRows);
  const std::int64_t b = at.batch, h = at.head, last = at.first + kRows < job.rows ? at.first + kRows : job.rows;
  const std::int64_t seen = job.keys_seen(last - 1), elements = (last - at.first) * job.value_width;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const auto out = [&](std::int64_t e) {
    return job.out.at(b, h, at.first + e / job.value_width) + e % job.value_width;
  };
  for (std::int64_t e = thread; e < elements; e += kThreads) *out(e) = T(0);
  if (thread < kRows) {
    top[thread] = none;
    sum[thread] = T(0);
  }
  __syncthreads();
  for (std::int64_t key = job.first_seen(at.first) / kKeys * kKeys; key < seen; key += kKeys) {
    for (int e = thread; e < kTile; e += kThreads) {
      const std::int64_t i = at.first + e / kKeys, j = key + e % kKeys;
      s[e] = i < last && j < seen ? job.score(b, h, i, j) : none;
    }
    __syncthreads();
    for (int r = thread / kWarp; r < kRows; r += kThreads / kWarp) {  // a warp for each row, a lane for each key
      const T x = s[r * kKeys + lane], before = top[r], total = sum[r];
      const T high = Max::eval(before, reduce_warp<Max>(x));
      const T shrink = high == none ? T(1) : math::exp(before - high), p = math::exp(x - (high == none ? T(0) : high));
      const T more = reduce_warp<Sum>(p);
      const std::int64_t i = at.first + r, j = key + lane;
      s[r * kKeys + lane] = i < last && j < seen ? p * job.factor(b, h, i, j) : T(0);
      __syncwarp();
      if (lane == 0) {
        top[r] = high;
        sum[r] = total * shrink + more;
        past[r] = shrink;
      }
    }
    __syncthreads();
    const std::int64_t many = seen - key < kKeys ? seen - key : kKeys;
    for (std::int64_t e = thread; e < elements; e += kThreads) {
      const std::int64_t r = e / job.value_width, c = e % job.value_width;
      T value = *out(e) * past[r];
      for (std::int64_t j = 0; j < many; ++j) value += s[r * kKeys + j] * job.v.at(b, h / job.group, key + j)[c];
      *out(e) = value;
    }
    __syncthreads();
  }
  for (std::int64_t e = thread; e < elements; e += kThreads) {
    const std::int64_t r = e / job.value_width;
    *out(e) = top[r] == none ? T(0) : *out(e) / sum[r];
  }
  if (job.log_sum && thread < last - at.first)
    job.log_sum[job.line(b, h, at.first + thread)] = top[thread] == none ? none : top[thread] + math::log(sum[thread]);
}

/// The probability of (i, j), times the dropout's factor, and the gradient of the score.
template <class T> __device__ void probability(const AttentionJob<T>& job, std::int64_t b, std::int64_t h,
                                               std::int64_t i, std::int64_t j, T& p, T& ds) {
  const std::int64_t line = job.line(b, h, i);
  const T top = job.log_sum[line], factor = job.factor(b, h, i, j);
  const T plain = math::exp(job.score(b, h, i, j) - (top == -T(__builtin_inf()) ? T(0) : top));
  const T dp = job.dot(job.g.at(b, h, i), job.v.at(b, h / job.group, j), job.value_width) * factor;
  p = plain * factor;
  ds = plain * (dp - job.delta[line]) * job.scale;
}

template <class T> __global__ void attention_dq_kernel(AttentionJob<T> job) {
  STET_SHARED(T, s, kTile);
  const Place at = place(job.heads, job.rows, kRows);
  const std::int64_t b = at.batch, h = at.head, last = at.first + kRows < job.rows ? at.first + kRows : job.rows;
  const std::int64_t seen = job.keys_seen(last - 1), elements = (last - at.first) * job.width;
  const auto dq = [&](std::int64_t e) { return job.dq.at(b, h, at.first + e / job.width) + e % job.width; };
  for (std::int64_t e = threadIdx.x; e < elements; e += kThreads) *dq(e) = T(0);
  for (std::int64_t key = job.first_seen(at.first) / kKeys * kKeys; key < seen; key += kKeys) {
    for (int e = static_cast<int>(threadIdx.x); e < kTile; e += kThreads) {
      const std::int64_t i = at.first + e / kKeys, j = key + e % kKeys;
      T p = T(0), ds = T(0);
      if (i < last && j < seen) probability(job, b, h, i, j, p, ds);
      s[e] = ds;
    }
    __syncthreads();
    const std::int64_t many = seen - key < kKeys ? seen - key : kKeys;
    for (std::int64_t e = threadIdx.x; e < elements; e += kThreads) {
      T value = *dq(e);
      for (std::int64_t j = 0; j < many; ++j)
        value += s[e / job.width * kKeys + j] * job.k.at(b, h / job.group, key + j)[e % job.width];
      *dq(e) = value;
    }
    __syncthreads();
  }
}

/// out (keys, width) += tile^T x: a tile of rows from `row` on, gathered over the rows.
template <class T, class Shared> __device__ void add_rows(Heads<T> out, Heads<const T> x, Shared tile, std::int64_t b,
                                                          std::int64_t h, std::int64_t group, std::int64_t row,
                                                          std::int64_t rows, std::int64_t key, std::int64_t keys,
                                                          std::int64_t width) {
  for (std::int64_t e = threadIdx.x; e < keys * width; e += kThreads) {
    const std::int64_t j = e / width, c = e % width;
    const Pointer<T> to = out.at(b, h / group, key + j) + c;
    T value = *to;
    for (std::int64_t r = 0; r < rows; ++r) value += tile[r * kKeys + j] * x.at(b, h, row + r)[c];
    *to = value;
  }
}

template <class T> __global__ void attention_dkv_kernel(AttentionJob<T> job) {
  STET_SHARED(T, p, kTile);
  STET_SHARED(T, ds, kTile);
  const Place at = place(job.kv_heads, job.keys, kKeys);
  const std::int64_t b = at.batch, key = at.first, keys = job.keys - key < kKeys ? job.keys - key : kKeys;
  for (std::int64_t e = threadIdx.x; e < keys * job.width; e += kThreads)
    *(job.dk.at(b, at.head, key + e / job.width) + e % job.width) = T(0);
  for (std::int64_t e = threadIdx.x; e < keys * job.value_width; e += kThreads)
    *(job.dv.at(b, at.head, key + e / job.value_width) + e % job.value_width) = T(0);
  for (std::int64_t h = at.head * job.group; h < (at.head + 1) * job.group; ++h)
    for (std::int64_t row = 0; row < job.rows; row += kRows) {
      const std::int64_t rows = job.rows - row < kRows ? job.rows - row : kRows;
      if (job.keys_seen(row + rows - 1) <= key || job.first_seen(row) >= key + keys) continue;
      for (int e = static_cast<int>(threadIdx.x); e < kTile; e += kThreads) {
        T pe = T(0), de = T(0);
        if (e / kKeys < rows && e % kKeys < keys) probability(job, b, h, row + e / kKeys, key + e % kKeys, pe, de);
        p[e] = pe;
        ds[e] = de;
      }
      __syncthreads();
      add_rows(job.dk, job.q, ds, b, h, job.group, row, rows, key, keys, job.width);
      add_rows(job.dv, job.g, p, b, h, job.group, row, rows, key, keys, job.value_width);
      __syncthreads();
    }
}

template <class T> struct DeltaBody {
  AttentionJob<T> job;
  __device__ void operator()(std::int64_t at) const {
    const std::int64_t i = at % job.rows, h = at / job.rows % job.heads, b = at / job.rows / job.heads;
    job.delta[at] = job.dot(job.g.at(b, h, i), job.out.at(b, h, i), job.value_width);
  }
};

template <class T> Heads<T> heads(const Attention::Operand& x) {
  return {static_cast<T*>(x.data), x.stride[0], x.stride[1], x.stride[2]};
}
template <class E> MaskJob<E> mask(const AttentionMask& m) {
  return {static_cast<const E*>(m.data), {m.stride[0], m.stride[1], m.stride[2], m.stride[3]}};
}

template <class T> AttentionJob<T> typed(const Attention& job) {
  return {job.heads,
          job.heads / job.kv_heads,
          job.kv_heads,
          job.rows,
          job.keys,
          job.width,
          job.value_width,
          static_cast<T>(job.scale),
          job.causal,
          job.window,
          static_cast<float>(1 - job.dropout),
          static_cast<T>(1 / (1 - job.dropout)),
          job.key,
          {mask<bool>(job.keep[0]), mask<bool>(job.keep[1])},
          mask<T>(job.bias),
          heads<const T>(job.q),
          heads<const T>(job.k),
          heads<const T>(job.v),
          heads<const T>(job.g),
          heads<T>(job.out),
          heads<T>(job.dq),
          heads<T>(job.dk),
          heads<T>(job.dv),
          static_cast<T*>(job.log_sum),
          static_cast<T*>(job.delta)};
}

template <class T> void attention(const Attention& job) {
  launch("attention", attention_kernel<T>, exact_grid("attention", job.batch * job.heads * ceil_div(job.rows, kRows)),
         dim3(kThreads), typed<T>(job));
}

template <class T> void attention_grad(const Attention& job) {
  const AttentionJob<T> now = typed<T>(job);
  for_each("attention", DeltaBody<T>{now}, job.batch * job.heads * job.rows);
  if (job.dq.data && job.rows > 0)
    launch("attention", attention_dq_kernel<T>,
           exact_grid("attention", job.batch * job.heads * ceil_div(job.rows, kRows)), dim3(kThreads), now);
  if (job.dk.data && job.keys > 0)
    launch("attention", attention_dkv_kernel<T>,
           exact_grid("attention", job.batch * job.kv_heads * ceil_div(job.keys, kKeys)), dim3(kThreads), now);
}

}  // namespace

void fill_attention(Kernels& table) {
  table.attention = either<attention<float>, attention<double>>;
  table.attention_grad = either<attention_grad<float>, attention_grad<double>>;
}

}  // namespace stet::cuda
