// Offsets of strided operands, and numbers beside tensors.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include <stet/cuda/launch.h>
#include <stet/tensor/dims.h>

namespace stet::cuda {

/// Row-major positions of an index space as offsets into N operands.
template <int N> struct Layout {
  int rank = 0;
  bool wide = false;  // positions need more than 32 bits
  std::int64_t size[kMaxRank];
  std::int64_t stride[N][kMaxRank];

  Layout() = default;
  Layout(int rank_, const std::int64_t* sizes, std::int64_t count, std::initializer_list<const std::int64_t*> strides)
      : rank(rank_), wide(count > std::int64_t{0xffffffff}) {
    std::copy(sizes, sizes + rank, size);
    int k = 0;
    for (const std::int64_t* from : strides) std::copy(from, from + rank, stride[k++]);
  }

  template <class Index> __device__ __forceinline__ void offsets_as(std::int64_t position, std::int64_t* out) const {
    for (int k = 0; k < N; ++k) out[k] = 0;
    Index rest = static_cast<Index>(position);
    for (int d = rank - 1; d >= 0; --d) {
      const Index n = static_cast<Index>(size[d]), above = rest / n;
      const auto at = static_cast<std::int64_t>(rest - above * n);
      for (int k = 0; k < N; ++k) out[k] += at * stride[k][d];
      rest = above;
    }
  }
  /// Divisions of 32-bit numbers are several times cheaper than those of 64-bit ones.
  __device__ __forceinline__ void offsets(std::int64_t position, std::int64_t* out) const {
    if (wide) offsets_as<std::uint64_t>(position, out);
    else offsets_as<std::uint32_t>(position, out);
  }
};

/// A tensor's memory, or one number that stands for all elements.
template <class T> struct Operand {
  Pointer<const T> at = nullptr;
  T number{};

  Operand() = default;
  Operand(const void* data, bool on_host) {
    if (on_host) std::memcpy(&number, data, sizeof(T));
    else at = static_cast<const T*>(data);
  }
  __device__ __forceinline__ T get(std::int64_t offset) const { return at ? at[offset] : number; }
};

}  // namespace stet::cuda
