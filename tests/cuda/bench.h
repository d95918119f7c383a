// What the tests of the simulated device share.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "support/catch.h"

namespace stet::test {

using namespace stet::simulated;
template <class T> using P = Pointer<T>;

inline bool has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  WARN("'" << part << "' is missing in: " << text);
  return false;
}

/// A fresh device for each case: no error, an empty stream.
struct Bench {
  cudaStream_t stream = nullptr;
  std::vector<void*> owned;

  Bench() {
    reset_error();
    set_seed(1);
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  }
  ~Bench() {
    reset_error();
    for (void* p : owned) cudaFree(p);
    cudaStreamDestroy(stream);
    set_memory(std::size_t{8} << 30);
    reset_error();
  }
  template <class T> T* room(std::size_t n) {
    void* p = nullptr;
    REQUIRE(cudaMalloc(&p, n * sizeof(T)) == cudaSuccess);
    owned.push_back(p);
    return static_cast<T*>(p);
  }
  template <class T> T* put(const std::vector<T>& values) {
    T* p = room<T>(values.size());
    REQUIRE(cudaMemcpyAsync(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream) == 0);
    return p;
  }
  template <class T> std::vector<T> get(const T* p, std::size_t n) {
    std::vector<T> values(n);
    CHECK(cudaMemcpyAsync(values.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    return values;
  }
  template <class... A> cudaError_t run(void (*kernel)(A...), dim3 grid, dim3 block, std::type_identity_t<A>... args) {
    return launch("kernel", grid, block, stream, [=] { kernel(args...); });
  }
  /// What a kernel says that fails.
  template <class... A>
  std::string failure(void (*kernel)(A...), dim3 grid, dim3 block, std::type_identity_t<A>... args) {
    CHECK(run(kernel, grid, block, args...) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) != cudaSuccess);
    const std::string text = last_message();
    reset_error();
    return text;
  }
};

}  // namespace stet::test
