// The suite runs on every device: what a test needs to look at bits wherever they are.
#pragma once

#include <cstring>
#include <functional>

#include <stet/autograd/ops.h>
#include <stet/cuda/cuda.h>

#include "support/catch.h"

namespace stet::test {

/// In row-major order on the CPU, for data() and memcmp.
inline Tensor on_host(const Tensor& x) { return contiguous(to(x.detach(), Device::cpu())); }

inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return false;
  const Tensor x = on_host(a), y = on_host(b);
  return x.numel() == 0 || std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.bytes())) == 0;
}

/// Makes a tensor on the CPU, where its elements can be written one by one, and moves it to the device under test.
template <class T> Tensor written(const Tensor& x, const std::function<void(T*)>& write) {
  const Tensor host = on_host(x).clone();
  write(host.mutable_data<T>());
  return to(host, x.device());
}

/// For a test that needs a CUDA device: says that it is skipped where there is none.
inline bool has_cuda() {
  if (!cuda::available()) WARN("skipped: no CUDA device");
  return cuda::available();
}

/// A test of the CPU alone; `reason` says why no other device can run it.
class OnCpu {
 public:
  explicit OnCpu(const char* /*reason*/) : device_(Device::cpu()) {}

 private:
  DefaultDevice device_;
};

}  // namespace stet::test
