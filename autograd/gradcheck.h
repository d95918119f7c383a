// A public check of derivatives against finite differences, in double precision and over the full Jacobian.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <stet/tensor/tensor.h>

namespace stet {

struct GradcheckOptions {
  double step = 1e-3;             ///< of the 4-point central difference; keep inputs 2 steps away from kinks
  double tolerance = 1e-8;        ///< largest error allowed, relative to the largest entry of the Jacobian (at least 1)
  bool second_order = false;      ///< also check the derivative of the gradient
  std::string name = "function";  ///< named in the message
};

struct GradcheckResult {
  bool ok = true;
  double worst = 0;     ///< relative error of the worst entry
  std::string message;  ///< operation, input, index, got and expected of the worst entry, when not ok
};

using TensorFunction = std::function<Tensor(const std::vector<Tensor>&)>;

/// Compares d f / d inputs with finite differences. `inputs` are f64 and of any layout; f must be
/// deterministic. The incoming gradient is not uniform, so that a permuted gradient does not pass. A NaN
/// fails.
GradcheckResult gradcheck(const TensorFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});

}  // namespace stet
