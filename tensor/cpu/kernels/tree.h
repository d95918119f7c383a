// Reductions in a fixed tree: 16 lanes over leaves of 1,024 elements, lanes joined in pairs, leaves joined in
// pairs. The order depends on the length alone, never on threads or instruction set, and the error of a sum
// grows with the logarithm of its length.
#pragma once

#include <utility>

#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {

inline constexpr int kLanes = 16;
inline constexpr std::int64_t kLeaf = 1024;

template <class Op, class T> inline T start_of(T first) {
  if constexpr (requires { Op::template identity<T>(); }) return Op::template identity<T>();
  else return first;  // max and min: any element will do
}

/// Lanes joined in pairs: l with l + 8, then l + 4, l + 2, l + 1.
template <class Op, class T> inline T join_lanes(T* lane) {
  int width = kLanes / 2;
  if constexpr (std::is_same_v<Op, Sum> && std::is_same_v<T, float>) {  // in registers: rows may be short
    typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
    const Four* four = reinterpret_cast<const Four*>(lane);
    *reinterpret_cast<Four*>(lane) = (four[0] + four[2]) + (four[1] + four[3]);
    width = 2;
  }
  for (; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l] = Op::eval(lane[l], lane[l + width]);
  return lane[0];
}

/// Combines load(0), ..., load(n - 1), n >= 1.
template <class Op, class T, class Load> inline T reduce_leaf(std::int64_t n, const Load& load) {
  T lane[kLanes];
  const T start = start_of<Op, T>(load(0));
  for (int l = 0; l < kLanes; ++l) lane[l] = start;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] = Op::eval(lane[l], load(i + l));
  for (int l = 0; i + l < n; ++l) lane[l] = Op::eval(lane[l], load(i + l));
  return join_lanes<Op>(lane);
}

template <class Op, class T, class Load> T reduce_tree(std::int64_t begin, std::int64_t n, const Load& load) {
  if (n <= kLeaf) return reduce_leaf<Op, T>(n, [&](std::int64_t i) { return load(begin + i); });
  const std::int64_t leaves = (n + kLeaf - 1) / kLeaf, left = (leaves + 1) / 2 * kLeaf;
  const T a = reduce_tree<Op, T>(begin, left, load);
  return Op::eval(a, reduce_tree<Op, T>(begin + left, n - left, load));
}

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

/// Max::eval on vectors, which are spelt out: compilers leave a choice that keeps NaN in scalars.
template <class Vector> inline Vector larger(Vector a, Vector b) { return ((a > b) | (a != a)) ? a : b; }
/// The lanes of one vector joined in pairs: l with l + width, then by half of that.
template <int width, class Vector, class Op, int... lane>
inline auto join_vector(Vector v, const Op& op, std::integer_sequence<int, lane...> all) {
  constexpr int wide = sizeof...(lane);
  if constexpr (width == 0) return v[0];
  else return join_vector<width / 2>(op(v, __builtin_shufflevector(v, v, ((lane + width) % wide)...)), op, all);
}

/// reduce_tree<Max> of x[0], ..., x[n - 1], to the bit.
template <class T> T max_of(const T* x, std::int64_t n) {
  if (n > kLeaf) {
    const std::int64_t left = ((n + kLeaf - 1) / kLeaf + 1) / 2 * kLeaf;
    const T a = max_of(x, left);
    return Max::eval(a, max_of(x + left, n - left));
  }
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  constexpr int wide = kVectorBytes / sizeof(T), count = kLanes / wide;
  Vector top[count];
  for (Vector& v : top) v = x[0] - Vector{};  // x[0] in every lane
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int c = 0; c < count; ++c) top[c] = larger(top[c], *reinterpret_cast<const Vector*>(x + i + c * wide));
  if (i < n) {  // beside the rest, lanes meet themselves
    T lane[kLanes];
    for (int c = 0; c < count; ++c) *reinterpret_cast<Vector*>(lane + c * wide) = top[c];
    for (int l = 0; i + l < n; ++l) lane[l] = x[i + l];
    for (int c = 0; c < count; ++c) top[c] = larger(top[c], *reinterpret_cast<const Vector*>(lane + c * wide));
  }
  for (int half = count / 2; half > 0; half /= 2)
    for (int c = 0; c < half; ++c) top[c] = larger(top[c], top[c + half]);
  return join_vector<wide / 2>(
      top[0], [](Vector a, Vector b) { return larger(a, b); }, std::make_integer_sequence<int, wide>{});
}

}  // namespace stet::cpu::STET_ISA
