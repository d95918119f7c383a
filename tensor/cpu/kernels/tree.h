// Reductions in a fixed tree: 16 lanes over leaves of 1,024 elements, lanes joined in pairs, leaves joined in
// pairs. The order depends on the length alone, never on threads or instruction set, and the error of a sum
// grows with the logarithm of its length.
#pragma once

#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {

inline constexpr int kLanes = 16;
inline constexpr std::int64_t kLeaf = 1024;

template <class Op, class T> inline T start_of(T first) {
  if constexpr (requires { Op::template identity<T>(); }) return Op::template identity<T>();
  else return first;  // max and min: any element will do
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
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l] = Op::eval(lane[l], lane[l + width]);
  return lane[0];
}

template <class Op, class T, class Load> T reduce_tree(std::int64_t begin, std::int64_t n, const Load& load) {
  if (n <= kLeaf) return reduce_leaf<Op, T>(n, [&](std::int64_t i) { return load(begin + i); });
  const std::int64_t leaves = (n + kLeaf - 1) / kLeaf, left = (leaves + 1) / 2 * kLeaf;
  const T a = reduce_tree<Op, T>(begin, left, load);
  return Op::eval(a, reduce_tree<Op, T>(begin + left, n - left, load));
}

}  // namespace stet::cpu::STET_ISA
