// Registers: vectors of the instruction set, and the tile of C that both matrix kernels accumulate in them. The files
// that include this one are compiled with multiply-add contraction.
#pragma once

#include <stet/tensor/cpu/kernels/isa.h>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace stet::cpu::STET_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kMaxRows = 12;
#elif defined(__AVX__)
constexpr int kLanes = 8, kMaxRows = 6;
#else
constexpr int kLanes = 4, kMaxRows = 6;
#endif
constexpr std::int64_t kPanel = 2 * kLanes;  ///< columns of a tile

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float Vec4 __attribute__((vector_size(16)));
typedef float Loose __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));  // unaligned memory

inline Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }

// The first n lanes of memory; what lies behind them is not touched.
#if defined(__AVX512F__)
inline __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec load_part(const float* p, std::int64_t n) { return (Vec)_mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_part(float* p, Vec v, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }
#elif defined(__AVX__)
inline __m256i first_lanes(std::int64_t n) {
  alignas(32) static constexpr int mask[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask + kLanes - n));
}
inline Vec load_part(const float* p, std::int64_t n) { return (Vec)_mm256_maskload_ps(p, first_lanes(n)); }
inline void store_part(float* p, Vec v, std::int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), (__m256)v); }
#else
inline Vec load_part(const float* p, std::int64_t n) {
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store_part(float* p, Vec v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) p[i] = v[i];
}
#endif

template <int I> struct Index { static constexpr int value = I; };
/// f(Index<0>), ..., f(Index<N - 1>): unrolled before registers are assigned, so that accumulators never
/// touch memory.
template <int N, class F> STET_HD void repeat(const F& f) {
  if constexpr (N > 0) {
    repeat<N - 1>(f);
    f(Index<N - 1>{});
  }
}

/// C (R, V vectors, the last one `part` wide unless whole) = A B: element (r, p) of A at a[r * ra + p * pa]. Padded:
/// the rows of B can be read in whole vectors. A small tile has several accumulators for each element, since one would
/// wait for itself: element p of the sum goes to number p % chains. `bias`, of V vectors as B's rows, is added last.
template <int R, int V, bool whole, bool padded = whole>
inline void outer_tile(const float* a, std::int64_t ra, std::int64_t pa, const float* b, std::int64_t ldb, float* c,
                       std::int64_t ldc, std::int64_t k, bool accumulate, std::int64_t part,
                       const float* bias = nullptr) {
  constexpr int chains = R * V <= 2 ? 4 : R * V <= 4 ? 2 : 1;
  Vec acc[chains][R][V];
  repeat<chains * R * V>([&](auto i) { acc[i.value / (R * V)][i.value / V % R][i.value % V] = Vec{}; });
  const auto add = [&](std::int64_t p, auto chain) __attribute__((always_inline)) {
    const float* row = b + p * ldb;
    Vec bv[V];
    repeat<V>([&](auto v) {
      const float* from = row + v.value * kLanes;
      bv[v.value] = padded || v.value < V - 1 ? load(from) : load_part(from, part);
    });
    repeat<R>([&](auto r) {
      const float s = a[r.value * ra + p * pa];
      repeat<V>([&](auto v) { acc[chain.value][r.value][v.value] += s * bv[v.value]; });
    });
  };
  std::int64_t p = 0;
  for (; p + chains <= k; p += chains) repeat<chains>([&](auto i) { add(p + i.value, i); });
  for (; chains > 1 && p < k; ++p) add(p, Index<0>{});
  repeat<R * V>([&](auto i) {
    constexpr int r = i.value / V, v = i.value % V;
    if constexpr (chains == 4) acc[0][r][v] = (acc[0][r][v] + acc[1][r][v]) + (acc[2][r][v] + acc[3][r][v]);
    if constexpr (chains == 2) acc[0][r][v] += acc[1][r][v];
  });
  repeat<R>([&](auto r) {
    repeat<V>([&](auto v) {
      constexpr bool all = whole || v.value < V - 1;
      const auto at = [part](const float* x) { return all ? load(x) : load_part(x, part); };
      float* to = c + r.value * ldc + v.value * kLanes;
      Vec sum = acc[0][r.value][v.value];
      if (accumulate) sum = at(to) + sum;
      if (bias) sum += at(bias + v.value * kLanes);
      if (all) store(to, sum);
      else store_part(to, sum, part);
    });
  });
}

/// f(Index<rows>), rows from 1 to kMaxRows: most often it is kMaxRows.
template <int R = kMaxRows, class F> inline void with_rows(std::int64_t rows, const F& f) {
  if (rows == R) f(Index<R>{});
  else if constexpr (R > 1) with_rows<R - 1>(rows, f);
}

}  // namespace
}  // namespace stet::cpu::STET_ISA
