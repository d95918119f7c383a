// Products of small matrices without packing. OpenBLAS clears C and copies both operands into panels before
// it multiplies: at the sizes of a small network that costs as much as the product. Here C is written once,
// straight from registers.
#include <utility>

#include <stet/tensor/cpu/kernels/tile.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr int kDotRows = kLanes == 16 ? 4 : 3, kDotCols = 4;

template <int R> void outer_rows(const Gemm& job, const float* a, const float* b, float* c, std::int64_t row,
                                 std::int64_t from, std::int64_t to) {
  const std::int64_t ra = job.transpose_a ? 1 : job.lda, pa = job.transpose_a ? job.lda : 1;
  a += row * ra;
  c += row * job.ldc;
  std::int64_t col = from;
  for (; col + kPanel <= to; col += kPanel)
    outer_tile<R, 2, true>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, kLanes);
  if (col + kLanes <= to) {
    outer_tile<R, 1, true>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, kLanes);
    col += kLanes;
  }
  if (col < to) outer_tile<R, 1, false>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, to - col);
}

inline Vec4 fold(Vec v) {
#if defined(__AVX512F__)
  typedef float Vec8 __attribute__((vector_size(32)));
  const Vec8 w = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(w, w, 0, 1, 2, 3) + __builtin_shufflevector(w, w, 4, 5, 6, 7);
#elif defined(__AVX__)
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  return v;
#endif
}

/// The sums of four accumulators at once: a 4 x 4 transpose whose rows are added.
inline Vec4 sum_four(Vec4 a, Vec4 b, Vec4 c, Vec4 d) {
  const Vec4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Vec4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/// C (R, C) = rows of A times rows of B: dot products along k.
template <int R, int C> inline void dot_tile(const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                                             float* c, std::int64_t ldc, std::int64_t k, bool accumulate) {
  Vec acc[R][C];
  repeat<R>([&](auto r) { repeat<C>([&](auto j) { acc[r.value][j.value] = Vec{}; }); });
  std::int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes) {
    Vec av[R];
    repeat<R>([&](auto r) { av[r.value] = load(a + r.value * lda + p); });
    repeat<C>([&](auto j) {
      const Vec bv = load(b + j.value * ldb + p);
      repeat<R>([&](auto r) { acc[r.value][j.value] += av[r.value] * bv; });
    });
  }
  if (p < k) {  // the rest of k, padded with zeros
    Vec av[R];
    repeat<R>([&](auto r) { av[r.value] = load_part(a + r.value * lda + p, k - p); });
    repeat<C>([&](auto j) {
      const Vec bv = load_part(b + j.value * ldb + p, k - p);
      repeat<R>([&](auto r) { acc[r.value][j.value] += av[r.value] * bv; });
    });
  }
  repeat<R>([&](auto i) {
    constexpr int r = decltype(i)::value;
    const Vec4 sums = C == 4 ? sum_four(fold(acc[r][0]), fold(acc[r][1 % C]), fold(acc[r][2 % C]), fold(acc[r][3 % C]))
                             : sum_four(fold(acc[r][0]), Vec4{}, Vec4{}, Vec4{});
    for (int j = 0; j < C; ++j) {
      c[r * ldc + j] = accumulate ? c[r * ldc + j] + sums[j] : sums[j];
    }
  });
}

/// The lanes of the dot product of two rows: four accumulators, since one would wait for itself.
inline Vec dot_lanes(const float* a, const float* b, std::int64_t k) {
  Vec acc[4];
  repeat<4>([&](auto i) { acc[i.value] = Vec{}; });
  std::int64_t p = 0;
  for (; p + 4 * kLanes <= k; p += 4 * kLanes)
    repeat<4>([&](auto i) { acc[i.value] += load(a + p + i.value * kLanes) * load(b + p + i.value * kLanes); });
  for (; p + kLanes <= k; p += kLanes) acc[0] += load(a + p) * load(b + p);
  if (p < k) acc[1] += load_part(a + p, k - p) * load_part(b + p, k - p);
  return (acc[0] + acc[1]) + (acc[2] + acc[3]);
}

/// Four columns of one row of C, as when a model writes one token after the other: B is read once, from memory, and in
/// the order in which it lies there.
inline void dot_four(const float* a, const float* b, std::int64_t ldb, float* c, std::int64_t k, bool accumulate) {
  Vec4 lanes[4];
  repeat<4>([&](auto j) { lanes[j.value] = fold(dot_lanes(a, b + j.value * ldb, k)); });
  const Vec4 sums = sum_four(lanes[0], lanes[1], lanes[2], lanes[3]);
  for (int j = 0; j < 4; ++j) c[j] = accumulate ? c[j] + sums[j] : sums[j];
}

/// Lanes of a and b by turns of `width`, each added to its neighbours.
template <int width, int... lane> inline Vec join_pair(Vec a, Vec b, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, (lane / width % 2 ? kLanes + lane - width : lane)...) +
         __builtin_shufflevector(a, b, (lane / width % 2 ? kLanes + lane : lane + width)...);
}
/// Lane i of the result is the sum of the lanes of x[i], in pairs.
template <int width = 1> inline Vec sum_each(const Vec* x) {
  if constexpr (width == kLanes) return x[0];
  else {
    constexpr int pairs = kLanes / (2 * width);
    Vec joined[pairs];
    repeat<pairs>([&](auto i) {
      joined[i.value] = join_pair<width>(x[2 * i.value], x[2 * i.value + 1], std::make_integer_sequence<int, kLanes>{});
    });
    return sum_each<2 * width>(joined);
  }
}

/// A vector of columns of one row of C: the sums along k are short, so that folding them would take the time.
inline void dot_vector(const float* a, const float* b, std::int64_t ldb, float* c, std::int64_t k, bool accumulate) {
  Vec acc[kLanes];
  repeat<kLanes>([&](auto j) { acc[j.value] = Vec{}; });
  std::int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes) {
    const Vec av = load(a + p);
    repeat<kLanes>([&](auto j) { acc[j.value] += av * load(b + j.value * ldb + p); });
  }
  if (p < k) {
    const Vec av = load_part(a + p, k - p);
    repeat<kLanes>([&](auto j) { acc[j.value] += av * load_part(b + j.value * ldb + p, k - p); });
  }
  const Vec sums = sum_each(acc);
  store(c, accumulate ? load(c) + sums : sums);
}

template <int R> void dot_rows(const Gemm& job, const float* a, const float* b, float* c, std::int64_t row,
                               std::int64_t from, std::int64_t to) {
  a += row * job.lda;
  c += row * job.ldc;
  std::int64_t col = from;
  for (; R == 1 && job.k >= 256 && col + 4 <= to; col += 4)
    dot_four(a, b + col * job.ldb, job.ldb, c + col, job.k, job.accumulate);
  for (; R == 1 && col + kLanes <= to; col += kLanes)
    dot_vector(a, b + col * job.ldb, job.ldb, c + col, job.k, job.accumulate);
  for (; col + kDotCols <= to; col += kDotCols)
    dot_tile<R, kDotCols>(a, job.lda, b + col * job.ldb, job.ldb, c + col, job.ldc, job.k, job.accumulate);
  for (; col < to; ++col)
    dot_tile<R, 1>(a, job.lda, b + col * job.ldb, job.ldb, c + col, job.ldc, job.k, job.accumulate);
}

/// Rows [row, row + count) and columns [from, to) of C: row groups of even size, columns outside so that the
/// piece of B that they share stays in cache.
void block(const Gemm& job, const float* a, const float* b, float* c, std::int64_t row, std::int64_t count,
           std::int64_t from, std::int64_t to) {
  const bool dot = job.transpose_b;
  const std::int64_t most = dot ? kDotRows : kMaxRows, groups = (count + most - 1) / most;
  const std::int64_t width = dot ? 16 * kDotCols : 16 * kLanes;
  for (std::int64_t col = from; col < to; col += width) {
    const std::int64_t stop = col + width < to ? col + width : to;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = row + count * g / groups, rows = row + count * (g + 1) / groups - first;
      if (!dot) with_rows(rows, [&](auto r) { outer_rows<r.value>(job, a, b, c, first, col, stop); });
      else if (rows == 1) dot_rows<1>(job, a, b, c, first, col, stop);
      else if (rows == 2) dot_rows<2>(job, a, b, c, first, col, stop);
      else if (rows == 3) dot_rows<3>(job, a, b, c, first, col, stop);
      else dot_rows<kDotRows>(job, a, b, c, first, col, stop);
    }
  }
}

}  // namespace

bool small_gemm_serves(const Gemm& job) {
  if (job.dtype != DType::f32 || (job.transpose_a && job.transpose_b) || job.k == 0) return false;
  if (job.transpose_b) return job.m <= 48 || job.n <= 16;
  return job.k <= 64 || job.m <= 16;
}

void small_gemm(const Gemm& job, const float* a, const float* b, float* c, std::int64_t rows, std::int64_t cols) {
  block(job, a, b, c, 0, rows, 0, cols);
}

}  // namespace stet::cpu::STET_ISA
