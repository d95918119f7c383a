// Finite differences: 4-point, f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, error O(h^4).
#include <stet/autograd/gradcheck.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include <stet/autograd/engine.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

/// Positions of `flat` in an array of that shape, for messages.
std::string position(const Shape& shape, std::int64_t flat) {
  Shape at(shape.size());
  for (int i = shape.size() - 1; i >= 0; --i) {
    at[i] = flat % shape[i];
    flat /= shape[i];
  }
  std::ostringstream out;
  out << at;
  return out.str();
}

/// A leaf with the same values and strides as `x`, so that the layout is part of the test.
Tensor leaf_like(const Tensor& x) {
  std::int64_t last = 0;
  for (int i = 0; i < x.rank(); ++i) last += (x.shape()[i] - 1) * x.strides()[i];
  Tensor memory = zeros({x.numel() ? last + 1 : 0}, x.options());
  Tensor out = make_view(memory, x.shape(), x.strides(), 0);
  const NoGrad no_grad;
  if (x.numel()) out.copy_(x.detach());
  return out.set_requires_grad();
}

/// The element at row-major position `flat` of a possibly strided tensor, as a 0-d view without history.
Tensor element(const Tensor& x, std::int64_t flat) {
  std::int64_t at = x.impl().offset;
  for (int i = x.rank() - 1; i >= 0; --i) {
    at += flat % x.shape()[i] * x.strides()[i];
    flat /= x.shape()[i];
  }
  return make_view(x, {}, {}, at);
}

std::vector<double> values_at(const TensorFunction& f, const std::vector<Tensor>& inputs, const Tensor& x,
                              double value) {
  const double before = x.item();
  x.fill_(value);
  const NoGrad no_grad;
  std::vector<double> y = f(inputs).to_vector<double>();
  x.fill_(before);
  return y;
}

/// Column of the Jacobian: d y / d x.
std::vector<double> difference(const TensorFunction& f, const std::vector<Tensor>& inputs, const Tensor& x, double h) {
  const double at = x.item();
  const auto p1 = values_at(f, inputs, x, at + h), m1 = values_at(f, inputs, x, at - h);
  const auto p2 = values_at(f, inputs, x, at + 2 * h), m2 = values_at(f, inputs, x, at - 2 * h);
  std::vector<double> out(p1.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (8 * (p1[i] - m1[i]) - (p2[i] - m2[i])) / (12 * h);
  return out;
}

struct Worst {
  double error = -1, got = 0, expected = 0;
  std::size_t input = 0;
  std::int64_t x = 0, y = 0;
};

/// Rows of the analytic Jacobian: one backward pass for each element of y.
std::vector<std::vector<std::vector<double>>> analytic(const Tensor& y, const std::vector<Tensor>& inputs) {
  std::vector<std::vector<std::vector<double>>> rows;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    Tensor seed = zeros(y.shape(), y.options());
    element(seed, i).fill_(1);
    rows.emplace_back();
    if (!y.requires_grad()) {
      for (const Tensor& x : inputs) rows.back().emplace_back(static_cast<std::size_t>(x.numel()), 0.0);
      continue;
    }
    const auto gradients = grad(y, inputs, {.seed = seed, .retain_graph = true, .allow_unused = true});
    for (std::size_t k = 0; k < inputs.size(); ++k)
      rows.back().push_back(gradients[k].defined()
                                ? gradients[k].to_vector<double>()
                                : std::vector<double>(static_cast<std::size_t>(inputs[k].numel()), 0.0));
  }
  return rows;
}

GradcheckResult check_once(const TensorFunction& f, const std::vector<Tensor>& inputs, const GradcheckOptions& options,
                           const std::string& what) {
  const Tensor y = f(inputs);
  check(y.dtype() == DType::f64, "gradcheck", "'", options.name, "' returned ", y.dtype(), ", expected f64");
  const auto rows = analytic(y, inputs);
  double scale = 1;
  Worst worst;
  std::vector<Worst> entries;
  for (std::size_t k = 0; k < inputs.size(); ++k)
    for (std::int64_t j = 0; j < inputs[k].numel(); ++j) {
      const auto column = difference(f, inputs, element(inputs[k], j), options.step);
      for (std::int64_t i = 0; i < y.numel(); ++i) {
        const double expected = column[static_cast<std::size_t>(i)];
        const double got = rows[static_cast<std::size_t>(i)][k][static_cast<std::size_t>(j)];
        scale = std::max(scale, std::abs(expected));
        const double error = std::abs(got - expected);
        if (!(error <= worst.error)) worst = {error, got, expected, k, j, i};  // a NaN is the worst
        if (std::isnan(error)) {
          scale = 1;
          k = inputs.size() - 1;
          j = inputs[k].numel();
          break;
        }
      }
    }
  GradcheckResult result;
  if (worst.error == -1) return result;  // nothing to differentiate
  result.worst = worst.error / scale;
  result.ok = result.worst <= options.tolerance;
  if (result.ok) return result;
  std::ostringstream out;
  out.precision(17);
  out << "[gradcheck] " << what << ": input " << worst.input << ' ' << inputs[worst.input].shape() << " at "
      << position(inputs[worst.input].shape(), worst.x) << ", output " << y.shape() << " at "
      << position(y.shape(), worst.y) << ": got " << worst.got << ", expected " << worst.expected << " (relative error "
      << result.worst << ", allowed " << options.tolerance << ")";
  result.message = out.str();
  return result;
}

/// Fixed, uneven weights for the second-order check.
Tensor uneven(const Shape& shape) {
  const std::int64_t n = count_elements("gradcheck", shape);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i)
    values[static_cast<std::size_t>(i)] = 0.5 + std::fmod(0.618034 * static_cast<double>(i + 1), 1.0);
  return tensor(values, shape);
}

}  // namespace

GradcheckResult gradcheck(const TensorFunction& f, const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  std::vector<Tensor> leaves;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    check(inputs[i].dtype() == DType::f64, "gradcheck", "input ", i, " holds ", inputs[i].dtype(), ", expected f64");
    bool broadcast_view = false;
    for (int d = 0; d < inputs[i].rank(); ++d)
      broadcast_view = broadcast_view || (inputs[i].strides()[d] == 0 && inputs[i].shape()[d] > 1);
    check(!broadcast_view, "gradcheck", "input ", i, " ", inputs[i].shape(),
          " is an expanded view: expand inside the function instead");
    leaves.push_back(leaf_like(inputs[i]));
  }
  GradcheckResult first = check_once(f, leaves, options, options.name);
  if (!first.ok || !options.second_order) return first;
  const TensorFunction gradient = [&f](const std::vector<Tensor>& xs) {
    const GradMode recording(true);
    std::vector<Tensor> fresh;
    for (const Tensor& x : xs) fresh.push_back(x.requires_grad() ? x : x.detach().set_requires_grad());
    const Tensor y = f(fresh);
    Tensor total = scalar(0, DType::f64);
    if (!y.requires_grad()) return total;
    const auto gradients = grad(y, fresh, {.seed = uneven(y.shape()), .create_graph = true, .allow_unused = true});
    for (const Tensor& g : gradients)
      if (g.defined()) total = total + sum(g * uneven(g.shape()));
    return total;
  };
  GradcheckResult second = check_once(gradient, leaves, options, options.name + ", second order");
  second.worst = std::max(second.worst, first.worst);
  return second;
}

}  // namespace stet
