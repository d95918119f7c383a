// One way to launch a kernel, for nvcc and for the simulated device: all but the launch and the access to packs is the
// same text. Kernels take Pointer<T>, which is T* for nvcc and checks every access on the simulated device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <stet/cuda/device.h>
#include <stet/tensor/error.h>
#include <stet/tensor/macros.h>

#if defined(STET_CUDA_SIMULATED)
#include <stet/cuda/simulated/device.h>
namespace stet::cuda {
template <class T> using Pointer = simulated::Pointer<T>;
}
#else
/// Shared memory of a block: `type* name` with `count` elements.
#define STET_SHARED(type, name, count) __shared__ type name[count]
namespace stet::cuda {
template <class T> using Pointer = T*;
}
#endif

namespace stet::cuda {

inline constexpr int kWarp = 32, kBlock = 256;
inline constexpr std::int64_t kMaxGrid = 0x7fffffff;

/// kernel<<<grid, block>>>(arguments...) on the backend's stream; `op` is named in errors.
template <class... Parameters> void launch(std::string_view op, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                           std::type_identity_t<Parameters>... arguments) {
#if defined(STET_CUDA_SIMULATED)
  const auto body = [=] { kernel(arguments...); };
  if (launching() == Launching::replacing) return replace_launch(op, grid, block, body);
  simulated::launch(op.data(), grid, block, stream(), body);
#else
  if (launching() == Launching::replacing) {
    void* places[] = {&arguments...};
    return replace_launch(op, {reinterpret_cast<void*>(kernel), grid, block, 0, places, nullptr});
  }
  // clang-format off
  kernel<<<grid, block, 0, stream()>>>(arguments...);
  // clang-format on
#endif
  ++count().launches;
  check_cuda(op, cudaGetLastError());
  if (launching() == Launching::noting) note_launch();
}

/// At most as many blocks as a grid takes: for kernels that stride over the rest.
inline dim3 grid_of(std::int64_t blocks) {
  return dim3(static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kMaxGrid)));
}
/// Exactly so many blocks.
inline dim3 exact_grid(std::string_view op, std::int64_t blocks) {
  check(blocks <= kMaxGrid, op, "needs ", blocks, " blocks of threads: a grid takes ", kMaxGrid);
  return grid_of(blocks);
}
inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Split {
  std::int64_t quotient, rest;
};
/// a / b for a >= 0 and b > 0. Divisions of 32-bit numbers are several times cheaper than those of 64-bit ones.
__device__ __forceinline__ Split split(std::int64_t a, std::int64_t b) {
  if ((a | b) >> 32) return {a / b, a % b};
  const auto x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b), quotient = x / y;
  return {quotient, x - quotient * y};
}

__device__ __forceinline__ std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t all_threads() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

template <class Body> __global__ void __launch_bounds__(kBlock) for_each_kernel(Body body, std::int64_t count) {
  for (std::int64_t i = global_thread(); i < count; i += all_threads()) body(i);
}

/// body(i) for i in [0, count), a thread each. `Body` is a struct that holds its operands.
template <class Body> void for_each(std::string_view op, const Body& body, std::int64_t count) {
  const int block =
      count >= kBlock ? kBlock : static_cast<int>(ceil_div(std::max<std::int64_t>(count, 1), kWarp)) * kWarp;
  launch(op, for_each_kernel<Body>, grid_of(ceil_div(count, block)), dim3(static_cast<unsigned>(block)), body, count);
}

/// Adjacent elements that one instruction moves.
template <class T> struct alignas(16) Pack {
  static constexpr int width = 16 / sizeof(T) ? 16 / sizeof(T) : 1;
  T at[width];
};
template <class T> __device__ __forceinline__ Pack<T> load_pack(Pointer<const T> from, std::int64_t i) {
#if defined(STET_CUDA_SIMULATED)
  return *reinterpret_cast<const Pack<T>*>(from.at(i, Pack<T>::width));
#else
  return *reinterpret_cast<const Pack<T>*>(from + i);
#endif
}
template <class T> __device__ __forceinline__ void store_pack(Pointer<T> to, std::int64_t i, const Pack<T>& pack) {
#if defined(STET_CUDA_SIMULATED)
  *reinterpret_cast<Pack<T>*>(to.at(i, Pack<T>::width)) = pack;
#else
  *reinterpret_cast<Pack<T>*>(to + i) = pack;
#endif
}
inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

/// Leaves a complaint unless 0 <= value < size (or value == spared), and gives an index that is safe to use.
__device__ __forceinline__ std::int64_t checked(std::int64_t value, std::int64_t size, std::int64_t position,
                                                Checked what, Pointer<Complaint> complaint) {
  if (value >= 0 && value < size) return value;
  Complaint& left = *complaint;
  if (atomicCAS(&left.what, 0u, static_cast<unsigned>(what)) == 0u) {
    left.value = value;
    left.position = position;
    left.size = size;
  }
  return 0;
}

/// The table holds one entry for both element types.
template <auto F32, auto F64, class Job> void either(const Job& job) { (job.dtype == DType::f32 ? F32 : F64)(job); }

}  // namespace stet::cuda
