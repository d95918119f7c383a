// What attention and its gradient share: which keys a row sees, products of a block of rows with a block of keys,
// scores, probabilities.
#pragma once

#include <stet/tensor/cpu/kernels/tree.h>
#include <stet/tensor/cpu/kernels/turn.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kRows = 64, kKeys = 64, kFeatures = 128;
constexpr std::int64_t kGroup = 12;  // rows, or keys, of a triangle that are multiplied at once
// Scores of float are kept in units of log 2, for powers of two: the factor comes with their scale.
template <class T> constexpr T kUnits = sizeof(T) == sizeof(float) ? T(1.4426950408889634) : T(1);

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
  for (std::int64_t i = 0; i < count; i += kRows) {
    at.row = row + i;
    at.rows = least(kRows, count - i);
    at.keys = least(keys, keys_seen(job, at.row + at.rows - 1) - at.key);
    if (at.keys > 0 && first_seen(job, at.row) < at.key + at.keys) body(at, i);
  }
}

/// body(i, n) for [0, count) in even pieces of at most kGroup.
template <class Body> inline void in_groups(std::int64_t count, const Body& body) {
  const std::int64_t groups = (count + kGroup - 1) / kGroup, few = count / groups, more = count % groups;
  for (std::int64_t g = 0, i = 0, n; g < groups; ++g, i += n) {
    n = few + (g < more ? 1 : 0);
    body(i, n);
  }
}
/// body(i, n, seen) for the rows of a block, n at once, of which the last sees that many keys.
template <class Body> inline void for_groups(const Attention& job, const Block& at, const Body& body) {
  if (seen_by(job, at, 0) == at.keys) return body(std::int64_t(0), at.rows, at.keys);
  in_groups(at.rows, [&](std::int64_t i, std::int64_t n) { body(i, n, seen_by(job, at, i + n - 1)); });
}

/// out (rows, width) (+)= p y, of the keys that are seen: y has the keys as rows.
template <class T> inline void times_keys(const Attention& job, const Block& at, bool more, const T* p, const T* y,
                                          std::int64_t ldy, std::int64_t width, T* out, std::int64_t ldo) {
  for_groups(job, at, [&](std::int64_t i, std::int64_t n, std::int64_t seen) {
    multiply(false, more, n, width, seen, p + i * kKeys, kKeys, y, ldy, out + i * ldo, ldo);
  });
}
/// out (keys, width) (+)= p^T y, of the rows that see the keys.
template <class T> inline void times_rows(const Attention& job, const Block& at, bool more, const T* p, const T* y,
                                          std::int64_t ldy, std::int64_t width, T* out, std::int64_t ldo) {
  if (seen_by(job, at, 0) == at.keys) return multiply(true, more, at.keys, width, at.rows, p, kKeys, y, ldy, out, ldo);
  in_groups(at.keys, [&](std::int64_t j, std::int64_t n) {
    const std::int64_t i = most(0, at.key + j + job.rows - job.keys - at.row);  // the first that sees key j
    multiply(true, more, n, width, at.rows - i, p + i * kKeys + j, kKeys, y + i * ldy, ldy, out + j * ldo, ldo);
  });
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
  /// s (rows, kKeys) = scale a x^T, of the keys that are seen; what lies behind them is not written.
  void product(const Attention& job, const Block& block, const T* a, std::int64_t lda, T* s) {
    if constexpr (sizeof(T) == sizeof(float))
      if (block.rows <= 4) {
        multiply(false, false, block.rows, block.keys, width, a, lda, x, stride, s, kKeys, true);
        for (std::int64_t i = 0; i < block.rows; ++i)
          for (std::int64_t j = 0; j < block.keys; ++j) s[i * kKeys + j] *= scale;
        return;
      }
    for (std::int64_t from = 0; from < width; from += kFeatures) {
      const std::int64_t count = least(kFeatures, width - from);
      if (!done) turn_part(from, count);
      done = width <= kFeatures;
      for_groups(job, block, [&](std::int64_t i, std::int64_t rows, std::int64_t seen) {
        multiply(false, from > 0, rows, seen, count, a + i * lda + from, lda, at, kKeys, s + i * kKeys, kKeys);
      });
    }
  }
};

/// A finite bias stays finite: only -inf hides.
inline double in_units(double bias) { return bias; }
inline float in_units(float bias) {
  constexpr float most = 3.4028235e38f, units = kUnits<float>;
  const float x = bias * units, bounded = math::detail::at_most(most, math::detail::at_least(-most, x));
  return math::detail::magnitude(bias) <= most ? bounded : bias;
}

/// Adds the bias of what row i of a block sees and hides what its masks say.
template <class T> void apply_given(const Attention& job, const Block& at, std::int64_t i, T* __restrict line) {
  const auto offset = [&](const AttentionMask& mask) {
    return at.batch * mask.stride[0] + at.head * mask.stride[1] + (at.row + i) * mask.stride[2] +
           at.key * mask.stride[3];
  };
  const std::int64_t keys = seen_by(job, at, i);
  if (job.bias.data) {
    const T* bias = static_cast<const T*>(job.bias.data) + offset(job.bias);
    for (std::int64_t j = 0; j < keys; ++j) line[j] += in_units(bias[j * job.bias.stride[3]]);
  }
  for (const AttentionMask& mask : job.keep) {
    if (!mask.data) continue;
    const bool* keep = static_cast<const bool*>(mask.data) + offset(mask);
    for (std::int64_t j = 0; j < keys; ++j) line[j] = keep[j * mask.stride[3]] ? line[j] : T(-__builtin_inf());
  }
}

/// Sets what lies in the vectors of a row's first `seen` elements behind these.
template <class T> inline void hide_from(T* row, std::int64_t seen, T value) {
  using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  typedef Int Mask __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  static constexpr Int shown[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  constexpr int wide = kVectorBytes / sizeof(T);
  const std::int64_t rest = seen % kLanes;
  for (int l = 0; rest > 0 && l < kLanes; l += wide) {
    const Mask keep = *reinterpret_cast<const Mask*>(shown + kLanes - rest + l);
    Vector& v = *reinterpret_cast<Vector*>(row + seen - rest + l);
    v = keep ? v : Vector{} + value;
  }
}

template <class T> void apply_masks(const Attention& job, const Block& at, T* s) {
  const T hidden = T(-__builtin_inf());
  const bool given = job.bias.data || job.keep[0].data || job.keep[1].data;
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* line = s + i * kKeys;
    if (given) apply_given(job, at, i, line);
    hide_from(line, seen_by(job, at, i), hidden);
    if (job.window)
      for (std::int64_t j = least(at.keys, first_seen(job, at.row + i) - at.key) - 1; j >= 0; --j) line[j] = hidden;
  }
}

/// The power of a score less the largest, so that x is not above 0 but for rounding: 0 where there is no normal number.
inline double probability(double x) {
  const double e = math::detail::exp_bounded(math::detail::at_least(-708.0, x));
  return x < -708 ? 0.0 : e;
}
/// 2^x: adding 1.5 * 2^23 leaves the whole part in the low bits.
inline float probability(float x) {
  constexpr float least = -125, shifter = 12582912.0f;
  const float high = math::detail::at_least(least, x), shifted = high + shifter;
  const float scale = math::detail::float_of((math::detail::bits_of(shifted) << 23) + 0x3f800000u);
  const float e = math::detail::exp2_reduced(high - (shifted - shifter)) * scale;
  return x < least ? 0.0f : e;
}

/// body(j) for elements of whole vectors.
template <class Body> inline void for_vectors(std::int64_t n, const Body& body) {
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int l = 0; l < kLanes; ++l) body(j + l);
}

/// Whole vectors in a register's worth of lanes, which are then joined.
template <class T, class Op> inline T fold(const T* x, std::int64_t n, const Op& op) {
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  constexpr int wide = kVectorBytes / sizeof(T);
  const auto at = [x](std::int64_t i) { return *reinterpret_cast<const Vector*>(x + i); };
  Vector all = at(0);
  for (std::int64_t i = wide; i < n; i += wide) all = op(all, at(i));
  return join_vector<wide / 2>(all, op, std::make_integer_sequence<int, wide>{});
}
/// NaN may be passed over: what it gives by exp is NaN at any shift.
template <class T> inline T largest(const T* x, std::int64_t n) {
  return fold(x, n, [](auto a, auto b) { return a < b ? b : a; });
}
template <class T> inline T total(const T* x, std::int64_t n) {
  return fold(x, n, [](auto a, auto b) { return a + b; });
}

/// s (rows, kKeys) = scale q k^T, masked; whole vectors of each row.
template <class T> void scores(const Attention& job, const Block& at, Turned<T>& k, T* s) {
  k.product(job, at, start<T>(job.q, at.batch, at.head, at.row), job.q.stride[2], s);
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

}  // namespace
}  // namespace stet::cpu::STET_ISA
