// What the parity tests share: the same values on both devices, and a comparison of sums.
#pragma once

#include <cmath>

#include <stet/autograd/ops.h>

#include "support/catch.h"

namespace stet::parity {

/// Of all files, so far.
inline int rows = 0;

/// Values of that dtype in [low, high), the same at every call.
inline Tensor values(const Shape& shape, DType dtype, double low, double high, std::uint64_t seed) {
  const DefaultDevice host(Device::cpu());
  Generator generator(seed);
  return cast(uniform(shape, low, high, generator, {f64, Device::cpu()}), dtype);
}

/// Once for a row: the first element that differs says enough.
inline void report(std::size_t i, double cpu, double cuda, double terms = 0) {
  FAIL_CHECK("element " << i << ": cpu " << cpu << ", cuda " << cuda << ", terms " << terms);
}

/// One row of sums: |cpu - cuda| <= 4 eps sum |terms|.
inline void check_sums(const Tensor& cpu, const Tensor& cuda, const Tensor& magnitudes) {
  ++rows;
  REQUIRE(cpu.shape() == cuda.shape());
  const double eps = cpu.dtype() == f64 ? 0x1p-52 : 0x1p-23;
  const auto x = cpu.to_vector<double>(), y = cuda.to_vector<double>(), m = magnitudes.to_vector<double>();
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(std::fabs(x[i] - y[i]) <= 4 * eps * m[i]) && !(x[i] != x[i] && y[i] != y[i]))
      return report(i, x[i], y[i], m[i]);
}

}  // namespace stet::parity
