// Reductions among the threads of a block, in a fixed order: results do not depend on who came first.
#pragma once

#include <stet/cuda/launch.h>

namespace stet::cuda {

/// What an empty share of a line starts from: the identity where there is one; for max and min, which have none,
/// any element of the line will do.
template <class Op, class T> __device__ __forceinline__ T start_of(T any) {
  if constexpr (requires { Op::template identity<T>(); }) return Op::template identity<T>();
  else return any;
}

template <class Op, class T> __device__ __forceinline__ T reduce_warp(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = Op::eval(value, static_cast<T>(__shfl_xor_sync(0xffffffffu, value, distance)));
  return value;
}

/// Joins one value of each thread of a line; every thread gets the result. A line has blockDim.x threads: a warp, or a
/// multiple of it that is the whole block, at most 1,024; `scratch` has 32 elements.
template <class Op, class T, class Shared> __device__ __forceinline__ T reduce_block(T value, Shared scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = reduce_warp<Op>(value);
  if (warps == 1) return value;
  __syncthreads();  // the scratch may still be read from the last time
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  T total = scratch[0];
  for (int w = 1; w < warps; ++w) total = Op::eval(total, scratch[w]);
  return total;
}

/// Threads for a line of n elements: four elements each, between a warp and 256.
inline unsigned threads_for(std::int64_t n) {
  unsigned threads = kWarp;
  while (threads < kBlock && threads * 4 < n) threads *= 2;
  return threads;
}

/// A warp for each short line, so that a block is not launched for a few elements: block (32, lines of a block); for a
/// longer line a block of its own, up to 256 threads. The last block may have warps without a line.
struct LineGrid {
  std::int64_t blocks;
  dim3 block;

  LineGrid(std::int64_t lines, std::int64_t n) : blocks(lines), block(threads_for(n)) {
    if (block.x > kWarp) return;
    const std::int64_t together = std::clamp<std::int64_t>(lines, 1, kBlock / kWarp);
    blocks = ceil_div(lines, together);
    block = dim3(kWarp, static_cast<unsigned>(together));
  }
};
/// The line of this thread.
__device__ __forceinline__ std::int64_t own_line() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

}  // namespace stet::cuda
