// The simulated device: each of its checks shown firing on a small kernel that deserves it. Nothing here exists in a
// build without the simulated device.
#if defined(STET_CUDA_SIMULATED)
#include <cuda_runtime.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "cuda/bench.h"
#include "support/message.h"

namespace {

using namespace stet::test;

__global__ void add_one(P<float> out, P<const float> in, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i] + 1;
}
__global__ void block_sum(P<float> out, P<const float> in) {
  STET_SHARED(float, parts, 32);
  float v = in[std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x];
  for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(~0u, v, static_cast<unsigned>(d));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  v = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.0f;
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(~0u, v, d);
  if (threadIdx.x == 0) out[blockIdx.x] = v;
}
__global__ void no_barrier(P<float> out) {
  STET_SHARED(float, s, 64);
  s[threadIdx.x] = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = s[63 - threadIdx.x];  // __syncthreads() belongs before this line
}
__global__ void some_leave() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x >= 32) __syncthreads();
}
__global__ void missing_lane(P<float> out) {
  if (threadIdx.x != 5) out[threadIdx.x] = __shfl_down_sync(~0u, 1.0f, 1);
}
__global__ void foreign_lane(P<float> out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}
__global__ void write_at(P<float> p, std::int64_t i) {
  if (threadIdx.y == 1) p[i] = 1;
}
__global__ void read_at(P<float> p, std::int64_t i) { p[0] = p[i]; }
__global__ void range_at(P<float> p) { *p.at(2, 3) = 0; }
__global__ void float_atomic_kernel(P<float> p) { atomicAdd(&p[0], 1.0f); }
__global__ void count(P<int> p) { atomicAdd(&p[0], 1); }
__global__ void uninitialised(P<float> out) {
  STET_SHARED(float, s, 4);
  out[threadIdx.x] = s[threadIdx.x];
}
__global__ void shared_overrun(P<float> out) {
  STET_SHARED(float, s, 4);
  out[0] = s[threadIdx.x + 1];
}
__global__ void shared_raw_overrun() {
  STET_SHARED(float, s, 4);
  float* raw = s;
  raw[4] = 1;
}
__global__ void halve(P<float> p) {
  const float half = p[(threadIdx.x + 1) % blockDim.x] * 0.5f;
  __syncthreads();
  p[threadIdx.x] = half * 0.5f;
}
__global__ void throws() { throw std::runtime_error("broken"); }
__global__ void votes(P<unsigned> out) {
  const int odd = threadIdx.x % 2;
  out[0] = __ballot_sync(~0u, odd);
  out[1] = static_cast<unsigned>(__any_sync(~0u, odd) + 2 * __all_sync(~0u, odd) + 4 * __all_sync(~0u, 1));
}
template <class T> __global__ void shuffles(P<T> out) {
  const auto me = static_cast<T>(threadIdx.x);
  out[threadIdx.x] = __shfl_up_sync(~0u, me, 1, 8) * 100 + __shfl_sync(~0u, me, 3, 16);
}

TEST_CASE("a kernel computes, over blocks and warps, whatever the order") {
  Bench b;
  std::vector<float> in(4096);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 7);
  float *x = b.put(in), *y = b.room<float>(4096), *sums = b.room<float>(4);
  for (std::uint64_t seed = 1; seed < 20; ++seed) {
    set_seed(seed);
    CHECK(b.run(add_one, 17, 256, y, x, 4096) == cudaSuccess);
    CHECK(b.run(block_sum, 4, 1024, sums, y) == cudaSuccess);
    const auto got = b.get(sums, 4);
    for (std::size_t k = 0; k < 4; ++k) {
      float expected = 0;
      for (std::size_t i = 0; i < 1024; ++i) expected += in[k * 1024 + i] + 1;
      CHECK(got[k] == expected);
    }
  }
}

TEMPLATE_TEST_CASE("shuffles follow their width", "", int, unsigned, long long, float, double) {
  Bench b;
  auto* out = b.room<TestType>(32);
  b.run(shuffles<TestType>, 1, 32, out);
  const auto got = b.get(out, 32);
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(got[i] == static_cast<TestType>((i % 8 ? i - 1 : i) * 100 + i / 16 * 16 + 3));
}

TEST_CASE("denormal numbers are kept while kernels run, and the thread's own mode after them") {
  Bench b;
  float* p = b.put(std::vector<float>(64, 0x1p-126f));
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);
  b.run(halve, 1, 64, p);
  const std::vector<float> got = b.get(p, 64);
  CHECK((_mm_getcsr() & 0x8040u) == 0x8040u);
  _mm_setcsr(before);
  for (const float v : got) CHECK(std::bit_cast<std::uint32_t>(v) == 1u << 21);
}

TEST_CASE("votes and integer atomics") {
  Bench b;
  auto* out = b.room<unsigned>(2);
  b.run(votes, 1, 32, out);
  CHECK(b.get(out, 2) == std::vector<unsigned>{0xaaaaaaaa, 5});
  int* n = b.put(std::vector<int>{0});
  b.run(count, dim3(3, 2, 2), dim3(5, 3, 2), n);
  CHECK(b.get(n, 1)[0] == 360);
}

TEST_CASE("a missing barrier gives a wrong answer") {
  Bench b;
  float* out = b.room<float>(64);
  b.run(no_barrier, 1, 64, out);
  const auto got = b.get(out, 64);
  CHECK(std::any_of(got.begin(), got.end(), [](float v) { return std::isnan(v); }));
}

TEST_CASE("a barrier that not all threads reach") {
  Bench b;
  const std::string left = b.failure(some_leave, 1, 64);
  CHECK(has(left, "[kernel] block (0, 0, 0), thread ("));
  CHECK(has(left, "waits in __syncthreads at simulated_test.cpp:"));
  CHECK(has(left, "only 63 of 64 threads reach (1 have ended)"));
  CHECK(has(b.failure(two_barriers, 1, 64), "while others of the block wait in __syncthreads"));
}

TEST_CASE("a shuffle with a missing lane") {
  Bench b;
  float* out = b.room<float>(32);
  CHECK(has(b.failure(missing_lane, 1, 32, out), "waits for lane 5 in __shfl_down_sync"));
  CHECK(has(b.failure(foreign_lane, 1, 32, out), "reads lane 20 in __shfl_sync"));
  CHECK(has(b.failure(missing_lane, 1, 16, out), "more lanes than the 16"));
}

TEST_CASE("accesses outside an allocation") {
  Bench b;
  float* p = b.room<float>(4);
  CHECK(has(b.failure(write_at, 1, dim3(1, 2), p, 4),
            "[kernel] block (0, 0, 0), thread (0, 1, 0): access outside the allocation: 1 element of 4 bytes at index "
            "4, that is bytes 16 to 20 of 16"));
  CHECK(has(b.failure(read_at, dim3(1, 1), 1, p + 1, -2), "at index -2, that is bytes -4 to 0 of 16"));
  CHECK(has(b.failure(range_at, 1, 1, p), "3 elements of 4 bytes at index 2"));
  CHECK(has(b.failure(read_at, 1, 1, nullptr, 0), "null pointer used"));
  CHECK(has(b.failure(read_at, 1, 1, nullptr, -1), "null pointer used"));
  mark(p, 8);
  CHECK(has(b.failure(read_at, 1, 1, p, 2), "at index 2, that is bytes 8 to 12 of 8"));
  mark(p, 16);
}

TEST_CASE("pointers that are no device pointers, and freed ones") {
  Bench b;
  float host = 0;
  float* p = nullptr;
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&p), 16) == cudaSuccess);
  CHECK(has(message_of([&] { P<float> q(&host); }), "is a host pointer where a device pointer belongs"));
  mark(p, 0);
  CHECK(has(message_of([&] { P<float> q(p); }), "its block is back in the cache"));
  CHECK(cudaFree(p + 1) == cudaErrorInvalidValue);
  CHECK(has(last_message(), "lies inside an allocation"));
  CHECK(cudaFree(p) == cudaSuccess);
  CHECK(has(message_of([&] { P<float> q(p); }), "points to freed memory"));
  CHECK(cudaFree(p) == cudaErrorInvalidValue);
  CHECK(has(last_message(), "was freed before"));
  CHECK(cudaFree(&host) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(&host, p, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("memory is poisoned when fresh, and when its block goes back to the cache") {
  Bench b;
  float* p = b.room<float>(2);
  CHECK(std::isnan(b.get(p, 2)[1]));
  b.run(add_one, 1, 2, p, b.put(std::vector<float>{1, 2}), 2);
  mark(p, 0);  // while the kernel is still queued
  mark(p, 8);
  CHECK(std::isnan(b.get(p, 2)[1]));
}

TEST_CASE("float atomics, exceptions, shared memory") {
  Bench b;
  float* p = b.room<float>(4);
  CHECK(has(b.failure(float_atomic_kernel, 1, 1, p), "float atomics make results depend on the order of threads"));
  CHECK(has(b.failure(throws, 1, 1), "[kernel] block (0, 0, 0), thread (0, 0, 0): broken"));
  CHECK(has(b.failure(shared_overrun, 1, 4, p), "access outside the shared array: 1 element of 4 bytes at index 4"));
  CHECK(has(b.failure(shared_raw_overrun, 1, 1), "wrote outside the shared array s at simulated_test.cpp:"));
  b.run(uninitialised, 1, 4, p);
  for (float v : b.get(p, 4)) CHECK(std::isnan(v));
}

TEST_CASE("launches outside the limits") {
  Bench b;
  const auto none = [] {};
  CHECK(launch("kernel", 1, 1025, b.stream, none) == cudaErrorInvalidConfiguration);
  CHECK(has(last_message(), "[kernel] block (1025, 1, 1)"));
  CHECK(launch("kernel", 0, 1, b.stream, none) == cudaErrorInvalidConfiguration);
  CHECK(launch("kernel", dim3(1, 65536), 1, b.stream, none) == cudaErrorInvalidConfiguration);
}

TEST_CASE("the host that reads too early sees poison") {
  Bench b;
  float* p = b.put(std::vector<float>{1, 2});
  std::vector<float> out(2, 5);
  REQUIRE(cudaMemcpyAsync(out.data(), p, 8, cudaMemcpyDeviceToHost, b.stream) == cudaSuccess);
  CHECK(std::isnan(out[0]));
  CHECK(cudaStreamSynchronize(b.stream) == cudaSuccess);
  CHECK(out[1] == 2);
  CHECK(cudaMemcpyAsync(p, out.data(), 8, cudaMemcpyDeviceToHost, b.stream) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(p, out.data(), 12, cudaMemcpyHostToDevice, b.stream) == cudaErrorInvalidValue);
  CHECK(has(last_message(), "12 bytes from byte 0 on, outside the 8 bytes"));
}

TEST_CASE("streams do not wait for each other, and memory from the host is read at the call") {
  Bench b;
  cudaStream_t other = nullptr;
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  float *p = b.room<float>(1), in = 3, out = 0;
  cudaMemcpyAsync(p, &in, 4, cudaMemcpyHostToDevice, b.stream);
  in = 4;
  cudaMemcpyAsync(&out, p, 4, cudaMemcpyDeviceToHost, other);
  cudaStreamSynchronize(other);
  CHECK(std::isnan(out));  // nobody waited for the first copy
  CHECK(cudaStreamSynchronize(b.stream) == cudaSuccess);
  CHECK(cudaMemcpy(&out, p, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(out == 3);
  CHECK(cudaStreamDestroy(other) == cudaSuccess);
  CHECK(cudaStreamSynchronize(other) == cudaErrorInvalidResourceHandle);
  CHECK(cudaMemsetAsync(p, 0, 4, nullptr) == cudaErrorInvalidResourceHandle);
  CHECK(has(last_message(), "the default stream is not simulated"));
}

TEST_CASE("host threads share the device") {
  Bench b;
  std::vector<float> in(1024, 1);
  float *x = b.put(in), *sums = b.room<float>(8);
  CHECK(cudaStreamSynchronize(b.stream) == cudaSuccess);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([=] {
      cudaStream_t own = nullptr;
      cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking);
      const P<float> out = sums + t;
      const P<const float> from = x;
      for (int i = 0; i < 20; ++i) {
        launch("sum", 1, 1024, own, [=] { block_sum(out, from); });
        cudaStreamSynchronize(own);
      }
      cudaStreamDestroy(own);
    });
  for (auto& thread : threads) thread.join();
  CHECK(b.get(sums, 4) == std::vector<float>(4, 1024));
}

/// What `step` does, as a graph.
template <class Step> cudaGraphExec_t record(Bench& b, const Step& step) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  REQUIRE(cudaStreamBeginCapture(b.stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
  step();
  REQUIRE(cudaStreamEndCapture(b.stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  return exec;
}

TEST_CASE("capture and replay") {
  Bench b;
  float* x = b.put(std::vector<float>{1, 2});
  std::size_t node = 0;
  const cudaGraphExec_t exec = record(b, [&] {
    b.run(add_one, 1, 2, x, x, 2);
    b.run(add_one, 1, 2, x, x, 2);
    node = last_node(b.stream);
  });
  CHECK(node == 1);
  CHECK(b.get(x, 2) == std::vector<float>{1, 2});  // captured, not run
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, b.stream) == cudaSuccess);
  const P<float> p = x;
  replace_node(exec, node, "one", 1, 1, [=] { add_one(p, p, 1); });
  CHECK(cudaGraphLaunch(exec, b.stream) == cudaSuccess);
  CHECK(b.get(x, 2) == std::vector<float>{9, 9});
  cudaGraphExecDestroy(exec);
}

TEST_CASE("what a capture does not permit spoils it") {
  Bench b;
  float *x = b.put(std::vector<float>{1, 2}), out[2] = {};
  cudaGraph_t graph = nullptr;
  for (int way = 0; way < 3; ++way) {
    REQUIRE(cudaStreamBeginCapture(b.stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
    if (way == 0) CHECK(cudaStreamSynchronize(b.stream) == cudaErrorStreamCaptureUnsupported);
    if (way == 1) CHECK(cudaDeviceSynchronize() == cudaErrorStreamCaptureUnsupported);
    if (way == 2)
      CHECK(cudaMemcpyAsync(out, x, 8, cudaMemcpyDeviceToHost, b.stream) == cudaErrorStreamCaptureUnsupported);
    CHECK(b.run(add_one, 1, 2, x, x, 2) == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaStreamEndCapture(b.stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
  }
  CHECK(b.get(x, 1)[0] == 1);
}

TEST_CASE("a graph that runs over freed memory") {
  Bench b;
  void* gone = nullptr;
  float* kept = b.put(std::vector<float>{1, 2});
  for (const bool by_kernel : {true, false}) {
    REQUIRE(cudaMalloc(&gone, 8) == cudaSuccess);
    const cudaGraphExec_t exec = record(b, [&] {
      if (by_kernel) b.run(add_one, 1, 2, kept, static_cast<float*>(gone), 2);
      else cudaMemcpyAsync(kept, gone, 8, cudaMemcpyDeviceToDevice, b.stream);
    });
    CHECK(cudaFree(gone) == cudaSuccess);
    CHECK(cudaGraphLaunch(exec, b.stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(b.stream) != cudaSuccess);
    CHECK(has(last_message(), "memory that was freed since the capture"));
    reset_error();
    cudaGraphExecDestroy(exec);
  }
}

TEST_CASE("out of memory is no lasting error, a broken kernel is") {
  Bench b;
  std::size_t free = 0, total = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  set_memory(total - free + (1 << 20));  // others may hold some
  float* p = b.room<float>(4);
  void* q = p;
  CHECK(cudaMalloc(&q, 1 << 20) == cudaErrorMemoryAllocation);
  CHECK(q == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free == (1 << 20) - 16);
  b.run(read_at, 1, 1, p, 100);
  CHECK(cudaStreamSynchronize(b.stream) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaMalloc(&q, 16) == cudaErrorIllegalAddress);
  CHECK(b.run(add_one, 1, 1, p, p, 1) == cudaErrorIllegalAddress);
  reset_error();
  CHECK(cudaStreamSynchronize(b.stream) == cudaSuccess);
  CHECK(b.run(add_one, 1, 1, p, p, 1) == cudaSuccess);
}

TEST_CASE("the device describes itself") {
  Bench b;
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties(&p, 0) == cudaSuccess);
  CHECK(std::string(p.name) == "simulated device");
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(std::string(cudaGetErrorName(cudaErrorMemoryAllocation)) == "cudaErrorMemoryAllocation");
  cudaGetLastError();
}

}  // namespace
#endif
