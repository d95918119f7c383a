// Attention by tiles (Dao et al. 2022, "FlashAttention"): a block of rows meets one block of keys after another and
// keeps, for each row, the largest score so far and the sum of exponentials relative to it. The gradient computes the
// probabilities again from the scores and the logarithm of that sum. Every output element is written by one piece of
// work, whose order of sums depends on the shape alone.
#include <stet/tensor/cpu/kernels/tree.h>
#include <stet/tensor/cpu/kernels/turn.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kRows = 64, kKeys = 64, kFeatures = 128;
constexpr std::int64_t kBlocks = 4;  // of rows that share a turned block of keys
constexpr std::int64_t kSlice = 24;  // rows where not all keys of a block are seen: less is computed in vain

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

/// A block of rows of one head and a block of keys.
struct Block {
  std::int64_t batch, head, row, rows, key, keys;
};

template <class T> inline T* start(const Attention::Operand& x, std::int64_t b, std::int64_t h, std::int64_t row) {
  return static_cast<T*>(x.data) + b * x.stride[0] + h * x.stride[1] + row * x.stride[2];
}

/// C (m, n) (+)= op(A) op(B), one of them transposed at most.
inline void multiply(bool ta, bool accumulate, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                     std::int64_t lda, const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool tb = false) {
  Gemm job{};
  job.dtype = DType::f32;
  job.transpose_a = ta;
  job.transpose_b = tb;
  job.accumulate = accumulate;
  job.m = m;
  job.n = n;
  job.k = k;
  job.lda = lda;
  job.ldb = ldb;
  job.ldc = ldc;
  small_gemm(job, a, b, c, m, n);
}

void multiply(bool ta, bool accumulate, std::int64_t m, std::int64_t n, std::int64_t k, const double* a,
              std::int64_t lda, const double* b, std::int64_t ldb, double* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i) {
    double* __restrict row = c + i * ldc;
    if (!accumulate)
      for (std::int64_t j = 0; j < n; ++j) row[j] = 0;
    for (std::int64_t p = 0; p < k; ++p) {
      const double factor = ta ? a[p * lda + i] : a[i * lda + p];
      const double* __restrict y = b + p * ldb;
      for (std::int64_t j = 0; j < n; ++j) row[j] += factor * y[j];
    }
  }
}

/// A block of keys (or values) with its features as rows: products with it then run along the keys, in registers,
/// where sums of dot products would have to be folded. It is turned once where it fits, else piece by piece; a few rows
/// alone, as in decoding, are not worth it. The scores' scale is taken in on the way.
template <class T> struct Turned {
  const T* x = nullptr;
  std::int64_t keys = 0, width = 0, stride = 0;
  T scale = 1;
  bool done = false;
  alignas(64) T at[kFeatures * kKeys];

  void set(const T* start, std::int64_t count, std::int64_t features, std::int64_t row, T factor) {
    x = start;
    scale = factor;
    keys = count;
    width = features;
    stride = row;
    done = false;
  }
  void turn_part(std::int64_t from, std::int64_t count) {
    if constexpr (sizeof(T) == sizeof(float))
      return turn<kKeys>(x + from, stride, keys, count, at, (keys + 3) / 4 * 4, scale);
    for (std::int64_t j = 0; j < keys; ++j)
      for (std::int64_t c = 0; c < count; ++c) at[c * kKeys + j] = x[j * stride + from + c] * scale;
  }
  /// s (rows, kKeys) = scale a x^T, of the first keys.
  void product(std::int64_t rows, std::int64_t first, const T* a, std::int64_t lda, T* s) {
    if constexpr (sizeof(T) == sizeof(float))
      if (rows <= 4) {
        multiply(false, false, rows, first, width, a, lda, x, stride, s, kKeys, true);
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < first; ++j) s[i * kKeys + j] *= scale;
        return;
      }
    for (std::int64_t from = 0; from < width; from += kFeatures) {
      const std::int64_t count = least(kFeatures, width - from);
      if (!done) turn_part(from, count);
      done = width <= kFeatures;
      multiply(false, from > 0, rows, first, count, a + from, lda, at, kKeys, s, kKeys);
    }
  }
};

template <class T> inline void clear(T* x, std::int64_t rows, std::int64_t width, std::int64_t stride) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < width; ++c) x[i * stride + c] = T(0);
}

/// Keys that rows up to `last_row` can see at all: [.., result).
inline std::int64_t keys_seen(const Attention& job, std::int64_t last_row) {
  return job.causal ? most(0, least(job.keys, last_row + 1 + job.keys - job.rows)) : job.keys;
}
/// And rows from `row` on: [result, ..).
inline std::int64_t first_seen(const Attention& job, std::int64_t row) {
  return job.window ? most(0, least(job.keys, row + 1 + job.keys - job.rows - job.window)) : 0;
}
/// Keys of the block that row i of it may see: [.., result).
inline std::int64_t seen_by(const Attention& job, const Block& at, std::int64_t i) {
  return most(0, least(at.keys, keys_seen(job, at.row + i) - at.key));
}
/// The same in whole vectors: what is worked on. Those that are not seen are hidden.
inline std::int64_t whole(std::int64_t keys) { return (keys + kLanes - 1) / kLanes * kLanes; }
/// Whether each row from `row` on sees some of the first block of keys, which can be written then instead of added.
inline bool all_start(const Attention& job, std::int64_t row) { return job.window == 0 && keys_seen(job, row) > 0; }
/// body(block, i) for the blocks of rows [row, row + count) that see anything of a block of keys; row + i is the first.
template <class Body> inline void for_blocks(const Attention& job, Block at, std::int64_t count, const Body& body) {
  const std::int64_t row = at.row, keys = at.keys;
  for (std::int64_t i = 0; i < count; i += at.rows) {
    at.row = row + i;
    at.rows = least(keys_seen(job, at.row) >= at.key + keys ? kRows : kSlice, count - i);
    at.keys = least(keys, keys_seen(job, at.row + at.rows - 1) - at.key);
    if (at.keys > 0 && first_seen(job, at.row) < at.key + at.keys) body(at, i);
  }
}

/// Adds the bias of what row i of a block sees and hides what its masks say.
template <class T> void apply_given(const Attention& job, const Block& at, std::int64_t i, T* __restrict line) {
  const auto offset = [&](const AttentionMask& mask) {
    return at.batch * mask.stride[0] + at.head * mask.stride[1] + (at.row + i) * mask.stride[2] +
           at.key * mask.stride[3];
  };
  if (job.bias.data) {
    const T* bias = static_cast<const T*>(job.bias.data) + offset(job.bias);
    for (std::int64_t j = 0; j < at.keys; ++j) line[j] += bias[j * job.bias.stride[3]];
  }
  for (const AttentionMask& mask : job.keep) {
    if (!mask.data) continue;
    const bool* keep = static_cast<const bool*>(mask.data) + offset(mask);
    for (std::int64_t j = 0; j < at.keys; ++j) line[j] = keep[j * mask.stride[3]] ? line[j] : T(-__builtin_inf());
  }
}

template <class T> void apply_masks(const Attention& job, const Block& at, T* s) {
  const T hidden = T(-__builtin_inf());
  const bool given = job.bias.data || job.keep[0].data || job.keep[1].data;
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* line = s + i * kKeys;
    if (given) apply_given(job, at, i, line);
    for (std::int64_t j = seen_by(job, at, i); j % kLanes; ++j) line[j] = hidden;
    if (job.window)
      for (std::int64_t j = least(at.keys, first_seen(job, at.row + i) - at.key) - 1; j >= 0; --j) line[j] = hidden;
  }
}

/// exp(x) of a score less the largest, so that x is not above 0 but for rounding: 0 where float has no normal number.
template <class T> inline T probability(T x) {
  constexpr T least = sizeof(T) == sizeof(float) ? T(-87) : T(-708);
  const T e = math::detail::exp_bounded(math::detail::at_least(least, x));
  return x < least ? T(0) : e;
}

/// body(j) for elements of whole vectors.
template <class Body> inline void for_vectors(std::int64_t n, const Body& body) {
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int l = 0; l < kLanes; ++l) body(j + l);
}

/// The largest of whole vectors, where NaN may be passed over: what it gives by exp is NaN at any shift.
template <class T> inline T largest(const T* x, std::int64_t n) {
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  constexpr int wide = kVectorBytes / sizeof(T);
  const auto at = [x](std::int64_t i) { return *reinterpret_cast<const Vector*>(x + i); };
  Vector top = at(0);
  for (std::int64_t i = wide; i < n; i += wide) top = top < at(i) ? at(i) : top;
  return largest_lane<wide / 2, T>(top, std::make_integer_sequence<int, wide>{});
}

/// s (rows, kKeys) = scale q k^T, masked; whole vectors of each row.
template <class T> void scores(const Attention& job, const Block& at, Turned<T>& k, T* s) {
  k.product(at.rows, at.keys, start<T>(job.q, at.batch, at.head, at.row), job.q.stride[2], s);
  apply_masks(job, at, s);
}

/// x times the dropout's factor of each element: 0, or 1 / (1 - p).
template <class T> void drop(const Attention& job, const Block& at, T* x) {
  const auto kept = static_cast<float>(1 - job.dropout);
  const T factor = static_cast<T>(1 / (1 - job.dropout));
  for (std::int64_t i = 0; i < at.rows; ++i) {
    const std::int64_t row = (at.batch * job.heads + at.head) * job.rows + at.row + i;
    const auto first = static_cast<std::uint64_t>(row * job.keys + at.key);
    for (std::int64_t j = 0; j < at.keys; ++j)
      x[i * kKeys + j] =
          bernoulli(job.key, first + static_cast<std::uint64_t>(j), kept) ? x[i * kKeys + j] * factor : T(0);
  }
}

/// The rows of a piece of work: each has its largest score so far and the sum of exponentials relative to it.
template <class T> struct Running { T top[kRows * kBlocks], sum[kRows * kBlocks]; };

/// One block of rows meets one block of keys: out and its running sums take in what the keys add. Without `more` there
/// is nothing in out yet.
template <class T>
void step(const Attention& job, const Block& at, Turned<T>& k, T* s, T* top, T* sum, T* out, bool more) {
  const T none = T(-__builtin_inf());
  const std::int64_t ldo = job.out.stride[2], kv_head = at.head / (job.heads / job.kv_heads);
  T high[kRows], past[kRows];
  scores(job, at, k, s);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T here = keys ? largest(s + i * kKeys, keys) : none;
    high[i] = here > top[i] ? here : top[i];
  }
  for (std::int64_t i = 0; i < at.rows; ++i) past[i] = high[i] == top[i] ? T(1) : probability(top[i] - high[i]);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* __restrict line = s + i * kKeys;
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T shift = high[i] == none ? T(0) : high[i];
    for_vectors(keys, [=](std::int64_t j) { line[j] = probability(line[j] - shift); });
    for (std::int64_t j = keys; j < at.keys; ++j) line[j] = T(0);
  }
  for (std::int64_t i = 0; i < at.rows; ++i) {
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T* line = s + i * kKeys;
    if (keys) sum[i] = sum[i] * past[i] + reduce_leaf<Sum, T>(keys, [=](std::int64_t j) { return line[j]; });
    if (more && past[i] != T(1))
      for (std::int64_t c = 0; c < job.value_width; ++c) out[i * ldo + c] *= past[i];
    top[i] = high[i];
  }
  if (job.dropout > 0) drop(job, at, s);
  multiply(false, more, at.rows, job.value_width, at.keys, s, kKeys, start<T>(job.v, at.batch, kv_head, at.key),
           job.v.stride[2], out, ldo);
}

/// `count` rows of the result, at most kRows * kBlocks.
template <class T>
void forward(const Attention& job, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count) {
  const T none = T(-__builtin_inf());
  alignas(64) T s[kRows * kKeys];
  Turned<T> k;
  Running<T> running;
  T* out = start<T>(job.out, batch, head, row);
  const std::int64_t ldo = job.out.stride[2], kv_head = head / (job.heads / job.kv_heads);
  for (std::int64_t i = 0; i < count; ++i) {
    running.top[i] = none;
    running.sum[i] = T(0);
  }
  const bool written = all_start(job, row);
  if (!written) clear(out, count, job.value_width, ldo);
  const std::int64_t seen = keys_seen(job, row + count - 1);
  for (std::int64_t key = first_seen(job, row) / kKeys * kKeys; key < seen; key += kKeys) {
    k.set(start<T>(job.k, batch, kv_head, key), least(kKeys, seen - key), job.width, job.k.stride[2],
          static_cast<T>(job.scale));
    for_blocks(job, {batch, head, row, 0, key, k.keys}, count, [&](const Block& at, std::int64_t i) {
      step(job, at, k, s, running.top + i, running.sum + i, out + i * ldo, !written || key > 0);
    });
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const T scale = running.top[i] == none ? T(0) : T(1) / running.sum[i];
    for (std::int64_t c = 0; c < job.value_width; ++c) out[i * ldo + c] *= scale;
  }
  if (!job.log_sum) return;
  T* log_sum = static_cast<T*>(job.log_sum) + (batch * job.heads + head) * job.rows + row;
  for (std::int64_t i = 0; i < count; ++i)
    log_sum[i] = running.top[i] == none ? none : running.top[i] + math::log(running.sum[i]);
}

/// The tiles of the gradient: keys and values turned, probabilities, gradients of the scores.
template <class T> struct Tiles {
  Turned<T> k, v;
  alignas(64) T p[kRows * kKeys], ds[kRows * kKeys];

  void set(const Attention& job, std::int64_t batch, std::int64_t kv_head, std::int64_t key, std::int64_t keys) {
    k.set(start<T>(job.k, batch, kv_head, key), keys, job.width, job.k.stride[2], static_cast<T>(job.scale));
    v.set(start<T>(job.v, batch, kv_head, key), keys, job.value_width, job.v.stride[2], T(1));
  }
};

/// Which results a block of rows and keys has a part in, and which of them hold a sum already.
struct Parts {
  bool to_q, to_kv, more_q, more_kv;
};

/// What one block of rows and keys adds to dq, or to dk and dv, or to all:
///   ds = p (dp - delta) scale with dp = g v^T, delta = sum(g out);  dq = ds k, dk = ds^T q, dv = p^T g.
template <class T> void gradient(const Attention& job, const Block& at, const Parts& parts, Tiles<T>& tiles) {
  const std::int64_t kv_head = at.head / (job.heads / job.kv_heads);
  const std::int64_t line = (at.batch * job.heads + at.head) * job.rows + at.row;
  const T *log_sum = static_cast<const T*>(job.log_sum) + line, *delta = static_cast<const T*>(job.delta) + line;
  const T *g = start<T>(job.g, at.batch, at.head, at.row), *q = start<T>(job.q, at.batch, at.head, at.row);
  T *p = tiles.p, *ds = tiles.ds;
  const T none = T(-__builtin_inf()), scale = static_cast<T>(job.scale);
  scores(job, at, tiles.k, p);
  tiles.v.product(at.rows, at.keys, g, job.g.stride[2], ds);
  if (job.dropout > 0) drop(job, at, ds);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* __restrict pi = p + i * kKeys, * __restrict di = ds + i * kKeys;
    const bool empty = log_sum[i] == none;
    const T shift = empty ? T(0) : log_sum[i], seed = delta[i];
    const std::int64_t keys = whole(seen_by(job, at, i));
    for_vectors(keys, [=](std::int64_t j) {
      pi[j] = probability(pi[j] - shift);
      di[j] = pi[j] * (di[j] - seed) * scale;
    });
    for (std::int64_t j = keys; j < at.keys; ++j) pi[j] = di[j] = T(0);
  }
  if (parts.to_q)
    multiply(false, parts.more_q, at.rows, job.width, at.keys, ds, kKeys, tiles.k.x, job.k.stride[2],
             start<T>(job.dq, at.batch, at.head, at.row), job.dq.stride[2]);
  if (!parts.to_kv) return;
  multiply(true, parts.more_kv, at.keys, job.width, at.rows, ds, kKeys, q, job.q.stride[2],
           start<T>(job.dk, at.batch, kv_head, at.key), job.dk.stride[2]);
  if (job.dropout > 0) drop(job, at, p);
  multiply(true, parts.more_kv, at.keys, job.value_width, at.rows, p, kKeys, g, job.g.stride[2],
           start<T>(job.dv, at.batch, kv_head, at.key), job.dv.stride[2]);
}

/// dq of one block of rows.
template <class T>
void gradient_of_rows(const Attention& job, std::int64_t batch, std::int64_t head, std::int64_t row) {
  Tiles<T> tiles;
  const std::int64_t rows = least(kRows, job.rows - row), seen = keys_seen(job, row + rows - 1);
  const bool written = all_start(job, row);
  if (!written) clear(start<T>(job.dq, batch, head, row), rows, job.width, job.dq.stride[2]);
  for (std::int64_t key = first_seen(job, row) / kKeys * kKeys; key < seen; key += kKeys) {
    const std::int64_t keys = least(kKeys, seen - key);
    tiles.set(job, batch, head / (job.heads / job.kv_heads), key, keys);
    for_blocks(job, {batch, head, row, 0, key, keys}, rows, [&](const Block& at, std::int64_t) {
      gradient(job, at, {true, false, !written || key > 0, false}, tiles);
    });
  }
}

/// dk and dv of one block of keys, and with `to_q` what it adds to dq.
template <class T>
void gradient_of_keys(const Attention& job, std::int64_t batch, std::int64_t kv_head, std::int64_t key, bool to_q) {
  Tiles<T> tiles;
  const std::int64_t group = job.heads / job.kv_heads, keys = least(kKeys, job.keys - key);
  const bool written = all_start(job, 0);
  Parts parts{to_q, true, !written || key > 0, false};
  const auto clear_from = [&](std::int64_t row) {
    clear(start<T>(job.dk, batch, kv_head, key + row), keys - row, job.width, job.dk.stride[2]);
    clear(start<T>(job.dv, batch, kv_head, key + row), keys - row, job.value_width, job.dv.stride[2]);
  };
  tiles.set(job, batch, kv_head, key, keys);
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for_blocks(job, {batch, head, 0, 0, key, keys}, job.rows, [&](const Block& at, std::int64_t) {
      if (!parts.more_kv) clear_from(at.keys);
      gradient(job, at, parts, tiles);
      parts.more_kv = true;
    });
  if (!parts.more_kv) clear_from(0);
}

/// All three gradients of one head of keys and the heads that share it, each block of scores computed once.
template <class T> void gradient_of_group(const Attention& job, std::int64_t batch, std::int64_t kv_head) {
  const std::int64_t group = job.heads / job.kv_heads;
  for (std::int64_t head = kv_head * group; !all_start(job, 0) && head < (kv_head + 1) * group; ++head)
    clear(start<T>(job.dq, batch, head, 0), job.rows, job.width, job.dq.stride[2]);
  for (std::int64_t key = 0; key < job.keys; key += kKeys) gradient_of_keys<T>(job, batch, kv_head, key, true);
}

template <class T> void sums_of_products(const Attention& job) {
  in_chunks(job.batch * job.heads * job.rows, kChunk / job.value_width + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t row = at % job.rows, head = at / job.rows % job.heads, batch = at / job.rows / job.heads;
      const T *g = start<T>(job.g, batch, head, row), *out = start<T>(job.out, batch, head, row);
      static_cast<T*>(job.delta)[at] =
          reduce_tree<Sum, T>(0, job.value_width, [=](std::int64_t c) { return g[c] * out[c]; });
    }
  });
}

/// One row of each head, as in decoding: the heads that share their keys are the rows of one.
Attention by_group(Attention job) {
  const std::int64_t group = job.heads / job.kv_heads;
  if (job.rows != 1 || group == 1 || job.window > 0) return job;
  const auto turn = [group](auto& operand) {
    operand.stride[2] = operand.stride[1];
    operand.stride[1] *= group;
  };
  turn(job.q);
  turn(job.out);
  turn(job.keep[0]);
  turn(job.keep[1]);
  turn(job.bias);
  job.heads = job.kv_heads;
  job.rows = group;
  job.causal = false;  // a last row sees all keys
  return job;
}

template <class T> void attention(const Attention& given) {
  const Attention job = by_group(given);
  const std::int64_t heads = job.batch * job.heads, wide = (job.rows + kRows * kBlocks - 1) / (kRows * kBlocks);
  const std::int64_t rows = heads * wide >= 16 ? kRows * kBlocks : kRows, blocks = (job.rows + rows - 1) / rows;
  const std::int64_t work = most(1, least(rows, job.rows) * job.keys * (job.width + job.value_width));
  in_chunks(heads * blocks, 40'000 / work + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t row = at % blocks * rows;
      forward<T>(job, at / blocks / job.heads, at / blocks % job.heads, row, least(rows, job.rows - row));
    }
  });
}

template <class T> void attention_grad(const Attention& job) {
  sums_of_products<T>(job);
  const bool to_q = job.dq.data, to_kv = job.dk.data;
  const std::int64_t matrices = job.batch * job.kv_heads, wide = (job.keys + kKeys - 1) / kKeys;
  // With enough heads to share out, one pass gives all three and computes the scores once; the choice depends on
  // the shape alone, and so do the bits.
  if (to_q && to_kv && matrices >= 8)
    return parallel_for(matrices,
                        [&](std::int64_t at) { gradient_of_group<T>(job, at / job.kv_heads, at % job.kv_heads); });
  const std::int64_t tall = (job.rows + kRows - 1) / kRows;
  if (to_q)
    parallel_for(job.batch * job.heads * tall, [&](std::int64_t at) {
      gradient_of_rows<T>(job, at / tall / job.heads, at / tall % job.heads, at % tall * kRows);
    });
  if (to_kv)
    parallel_for(matrices * wide, [&](std::int64_t at) {
      gradient_of_keys<T>(job, at / wide / job.kv_heads, at / wide % job.kv_heads, at % wide * kKeys, false);
    });
}

}  // namespace

void fill_attention(Kernels& table) {
  table.attention = either<attention<float>, attention<double>>;
  table.attention_grad = either<attention_grad<float>, attention_grad<double>>;
}

}  // namespace stet::cpu::STET_ISA
