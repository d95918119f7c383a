// Products of small matrices without packing. OpenBLAS clears C and copies both operands into panels before
// it multiplies: at the sizes of a small network that costs as much as the product. Here C is written once,
// straight from registers. This file alone is compiled with multiply-add contraction.
#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kMaxRows = 12, kDotRows = 4, kDotCols = 4;
#elif defined(__AVX__)
constexpr int kLanes = 8, kMaxRows = 6, kDotRows = 3, kDotCols = 4;
#else
constexpr int kLanes = 4, kMaxRows = 6, kDotRows = 3, kDotCols = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float Loose __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));  // unaligned memory

inline Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
inline Vec load_part(const float* p, std::int64_t n) {
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store_part(float* p, Vec v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) p[i] = v[i];
}

template <int I> struct Index { static constexpr int value = I; };
/// f(Index<0>), ..., f(Index<N - 1>): unrolled before registers are assigned, so that accumulators never
/// touch memory.
template <int N, class F> STET_HD void repeat(const F& f) {
  if constexpr (N > 0) {
    repeat<N - 1>(f);
    f(Index<N - 1>{});
  }
}

/// C (R, V vectors, the last one `part` wide) = A B: element (r, p) of A at a[r * ra + p * pa].
template <int R, int V, bool whole> inline void outer_tile(const float* a, std::int64_t ra, std::int64_t pa,
                                                           const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                                                           std::int64_t k, bool accumulate, std::int64_t part) {
  Vec acc[R][V];
  repeat<R>([&](auto r) { repeat<V>([&](auto v) { acc[r.value][v.value] = Vec{}; }); });
  for (std::int64_t p = 0; p < k; ++p) {
    const float* row = b + p * ldb;
    Vec bv[V];
    repeat<V>([&](auto v) {
      const float* from = row + v.value * kLanes;
      bv[v.value] = whole || v.value < V - 1 ? load(from) : load_part(from, part);
    });
    repeat<R>([&](auto r) {
      const float s = a[r.value * ra + p * pa];
      repeat<V>([&](auto v) { acc[r.value][v.value] += s * bv[v.value]; });
    });
  }
  repeat<R>([&](auto r) {
    repeat<V>([&](auto v) {
      float* to = c + r.value * ldc + v.value * kLanes;
      const Vec sum = acc[r.value][v.value];
      if (whole || v.value < V - 1) store(to, accumulate ? load(to) + sum : sum);
      else store_part(to, accumulate ? load_part(to, part) + sum : sum, part);
    });
  });
}

template <int R> void outer_rows(const Gemm& job, const float* a, const float* b, float* c, std::int64_t row,
                                 std::int64_t from, std::int64_t to) {
  const std::int64_t ra = job.transpose_a ? 1 : job.lda, pa = job.transpose_a ? job.lda : 1;
  a += row * ra;
  c += row * job.ldc;
  std::int64_t col = from;
  for (; col + 2 * kLanes <= to; col += 2 * kLanes)
    outer_tile<R, 2, true>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, kLanes);
  if (col + kLanes <= to) {
    outer_tile<R, 1, true>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, kLanes);
    col += kLanes;
  }
  if (col < to) outer_tile<R, 1, false>(a, ra, pa, b + col, job.ldb, c + col, job.ldc, job.k, job.accumulate, to - col);
}

using OuterRows = void (*)(const Gemm&, const float*, const float*, float*, std::int64_t, std::int64_t, std::int64_t);

template <int... R> OuterRows outer_for(std::int64_t rows, TypeList<std::integral_constant<int, R>...>) {
  constexpr OuterRows table[] = {outer_rows<R>...};
  return table[rows - 1];
}
using RowCounts =
    TypeList<std::integral_constant<int, 1>, std::integral_constant<int, 2>, std::integral_constant<int, 3>,
             std::integral_constant<int, 4>, std::integral_constant<int, 5>, std::integral_constant<int, 6>
#if defined(__AVX512F__)
             ,
             std::integral_constant<int, 7>, std::integral_constant<int, 8>, std::integral_constant<int, 9>,
             std::integral_constant<int, 10>, std::integral_constant<int, 11>, std::integral_constant<int, 12>
#endif
             >;

typedef float Vec4 __attribute__((vector_size(16)));

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

template <int R> void dot_rows(const Gemm& job, const float* a, const float* b, float* c, std::int64_t row,
                               std::int64_t from, std::int64_t to) {
  a += row * job.lda;
  c += row * job.ldc;
  std::int64_t col = from;
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
      if (!dot) outer_for(rows, RowCounts{})(job, a, b, c, first, col, stop);
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
