// Test inputs: values that repeat with their seed, in every layout that a view can have.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>

#include "support/device.h"

namespace stet::test {

enum class Layout { contiguous, transposed, strided, offset };
inline const std::vector<Layout> kLayouts{Layout::contiguous, Layout::transposed, Layout::strided, Layout::offset};
inline const char* name_of(Layout layout) {
  constexpr const char* names[] = {"contiguous", "transposed", "strided", "offset"};
  return names[static_cast<int>(layout)];
}

/// The same elements in another memory layout.
inline Tensor in_layout(const Tensor& x, Layout layout) {
  if (x.rank() == 0 || layout == Layout::contiguous) return x;
  if (layout == Layout::transposed) {  // memory in the reverse order of axes
    Axes reversed;
    for (int i = x.rank() - 1; i >= 0; --i) reversed.push_back(i);
    return permute(permute(x, reversed).clone(), reversed);
  }
  Shape shape = x.shape();
  const int last = x.rank() - 1;
  const std::int64_t n = shape[last];
  shape[last] = layout == Layout::strided ? 2 * n + 1 : n + 3;
  const Tensor memory = full(shape, -7, x.options());
  const Tensor view = layout == Layout::strided ? slice(memory, last, 1, 2 * n + 1, 2) : slice(memory, last, 2, n + 2);
  return view.copy_(x);
}

/// Evenly spread in [low, high], no two alike, different for every seed.
inline Tensor spread(const Shape& shape, double low, double high, int seed, Options options = {DType::f64}) {
  const std::int64_t n = count_elements("spread", shape);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const double u = std::fmod(0.6180339887498949 * static_cast<double>(i + 1) + 0.7548776662466927 * (seed + 1), 1.0);
    values[static_cast<std::size_t>(i)] = low + (high - low) * u;
  }
  return cast(tensor(values, shape), options.dtype);
}

/// As spread(), but at least `gap` away from every multiple of `step`: clear of kinks.
inline Tensor spread_off(const Shape& shape, double low, double high, int seed, double step, double gap) {
  const Tensor x = spread(shape, low, high, seed);
  return written<double>(x, [&](double* at) {
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double cell = std::floor(at[i] / step), inside = at[i] / step - cell;
      at[i] = step * (cell + gap / step + inside * (1 - 2 * gap / step));
    }
  });
}

}  // namespace stet::test
