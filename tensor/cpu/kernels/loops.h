// Elementwise loops over strided operands: contiguous runs go to a loop that vectorises.
#pragma once

#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {

/// Calls body(out index, run length, offset of each of N operands) for every run along the last axis inside
/// [begin, end) of the flat index space.
template <int N, class Body>
inline void for_runs(const Elementwise& e, std::int64_t begin, std::int64_t end, const Body& body) {
  const int last = e.rank - 1;
  std::int64_t at[kMaxRank] = {}, offset[N] = {};
  std::int64_t rest = begin;
  for (int d = last; d >= 0; --d) {
    at[d] = rest % e.size[d];
    rest /= e.size[d];
    for (int k = 0; k < N; ++k) offset[k] += at[d] * e.stride[k][d];
  }
  while (begin < end) {
    const std::int64_t left = e.size[last] - at[last];
    const std::int64_t run = left < end - begin ? left : end - begin;
    body(begin, run, offset);
    begin += run;
    for (int k = 0; k < N; ++k) offset[k] -= at[last] * e.stride[k][last];
    at[last] = 0;
    for (int d = last - 1; d >= 0; --d) {  // odometer
      for (int k = 0; k < N; ++k) offset[k] += e.stride[k][d];
      if (++at[d] < e.size[d]) break;
      for (int k = 0; k < N; ++k) offset[k] -= e.size[d] * e.stride[k][d];
      at[d] = 0;
    }
  }
}

// Out of line on purpose: one copy of each vectorised loop, however many places call it.
template <class Op, class T, class R>
__attribute__((noinline)) void unary_run(R* __restrict out, const T* __restrict x, std::int64_t step, std::int64_t n) {
  if (step == 1) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(x[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(x[i * step]);
  }
}

template <class Op, class T, class R>
__attribute__((noinline)) void binary_run(R* __restrict out, const T* __restrict a, std::int64_t sa,
                                          const T* __restrict b, std::int64_t sb, std::int64_t n) {
  if (sa == 1 && sb == 1) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(a[i], b[i]);
  } else if (sa == 1 && sb == 0) {
    const T value = *b;
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(a[i], value);
  } else if (sa == 0 && sb == 1) {
    const T value = *a;
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(value, b[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::eval(a[i * sa], b[i * sb]);
  }
}

template <class Op, class T> void unary_kernel(const Elementwise& e) {
  const T* x = static_cast<const T*>(e.in[0]);
  T* out = static_cast<T*>(e.out);
  if (e.rank == 0) {
    *out = Op::eval(*x);
    return;
  }
  in_chunks(e.count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    if (e.rank == 1) return unary_run<Op>(out + begin, x + begin * e.stride[0][0], e.stride[0][0], end - begin);
    for_runs<1>(e, begin, end, [&](std::int64_t at, std::int64_t n, const std::int64_t* offset) {
      unary_run<Op>(out + at, x + offset[0], e.stride[0][e.rank - 1], n);
    });
  });
}

template <class Op, class T, class R> void binary_kernel(const Elementwise& e) {
  const T* a = static_cast<const T*>(e.in[0]);
  const T* b = static_cast<const T*>(e.in[1]);
  R* out = static_cast<R*>(e.out);
  if (e.rank == 0) {
    *out = Op::eval(*a, *b);
    return;
  }
  in_chunks(e.count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    const int last = e.rank - 1;
    const std::int64_t sa = e.stride[0][last], sb = e.stride[1][last];
    if (e.rank == 1) return binary_run<Op>(out + begin, a + begin * sa, sa, b + begin * sb, sb, end - begin);
    for_runs<2>(e, begin, end, [&](std::int64_t at, std::int64_t n, const std::int64_t* offset) {
      binary_run<Op>(out + at, a + offset[0], sa, b + offset[1], sb, n);
    });
  });
}

}  // namespace stet::cpu::STET_ISA
