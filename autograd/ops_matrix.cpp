// Matrix products and the fused linear layer, with their derivatives and per-sample rules.
#include <algorithm>

#include <stet/autograd/node.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

Tensor as_rows(const Tensor& x) {
  std::int64_t rows = 1;  // no -1: a row may have no elements
  for (int i = 0; i + 1 < x.rank(); ++i) grow_count(rows, x.shape()[i]);
  return reshape(x, {rows, x.shape().back()});
}

/// C (n, out, in) = for each sample, g^T x over its positions: g (n, t, out), x (n, t, in).
Tensor outer_per_sample(const Tensor& g, const Tensor& x, std::int64_t begin, std::int64_t end) {
  const Tensor a = slice(g, 0, begin, end), b = slice(x, 0, begin, end);
  const std::int64_t n = end - begin, t = positions(g);
  return matmul(transpose(reshape(a, {n, t, g.shape().back()})), reshape(b, {n, t, x.shape().back()}));
}

struct MatmulDerivative {
  static constexpr std::string_view name = "matmul";
  Saved a, b;
  void operator()(Backward& pass) const {
    const Tensor& g = pass.grad();
    if (pass.needs(0)) pass.give(0, sum_to(matmul(g, transpose(pass.get(b))), pass.shape(0)));
    if (!pass.needs(1)) return;
    const Tensor& x = pass.get(a);
    if (pass.shape(1).size() == 2 && x.rank() > 2) pass.give(1, matmul(transpose(as_rows(x)), as_rows(g)));
    else pass.give(1, sum_to(matmul(transpose(x), g), pass.shape(1)));
  }
  /// Only a matrix on the right: x (batch, ..., k) times w (k, n).
  Tensor per_sample(int side, const Shape& w, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    if (side != 1 || w.size() != 2) return {};
    return outer_per_sample(a.get(name), g, begin, end);
  }
  Tensor squared_carry(int side, const Tensor& g, const Tensor& carry) const {
    if (side != 1 || g.rank() != 2 || a.tensor.rank() != 2) return {};
    return carry.defined() ? carry + square(g) : square(g);
  }
  Tensor squared_finish(int, const Tensor& carry) const { return matmul(transpose(square(a.get(name))), carry); }
};

Tensor matmul_matrices(const Tensor& a, const Tensor& b) {
  return record(compute::matmul(a, b), {&a, &b}, [&] {
    return MatmulDerivative{b.requires_grad() ? Saved(a, 0) : Saved(), a.requires_grad() ? Saved(b, 1) : Saved()};
  });
}

/// y = x w^T + bias. The activation is a node of its own: its derivative needs only y.
struct LinearDerivative {
  static constexpr std::string_view name = "linear";
  Saved x, w;

  void operator()(Backward& pass) const {
    const Tensor& g = pass.grad();
    if (pass.needs(0)) pass.give(0, matmul(g, pass.get(w)));
    if (pass.needs(1) && pass.needs(2) && !grad_enabled()) {
      auto [weight, bias] = compute::linear_gradients(as_rows(g), as_rows(pass.get(x)));
      pass.give(1, std::move(weight));
      return pass.give(2, std::move(bias));
    }
    if (pass.needs(1)) pass.give(1, matmul(transpose(as_rows(g)), as_rows(pass.get(x))));
    if (pass.needs(2)) pass.give(2, sum(as_rows(g), {0}));
  }
  Tensor per_sample(int input, const Shape&, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    if (input == 1) return outer_per_sample(g, x.get(name), begin, end);
    if (input != 2) return {};
    const Tensor mine = slice(g, 0, begin, end);
    return sum(reshape(mine, {end - begin, positions(g), g.shape().back()}), {1});
  }
  /// One position per sample: the squares of an outer product are the outer product of squares, so whatever
  /// arrives is added up as squares of g, and one product serves any number of passes.
  Tensor squared_carry(int input, const Tensor& g, const Tensor& carry) const {
    if (input == 0 || g.rank() != 2) return {};
    return carry.defined() ? carry + square(g) : square(g);
  }
  Tensor squared_finish(int input, const Tensor& carry) const {
    return input == 1 ? matmul(transpose(carry), square(x.get(name))) : sum(carry, {0});
  }
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check(a.rank() >= 1 && b.rank() >= 1, "matmul", "shapes ", a.shape(), " and ", b.shape(),
        ": both need at least one dimension");
  const DType work = promote(a.dtype(), b.dtype());
  if (a.dtype() != work || b.dtype() != work) return matmul(cast(a, work), cast(b, work));
  if (a.rank() > 1 && b.rank() > 1) return matmul_matrices(a, b);
  Tensor y = matmul_matrices(a.rank() == 1 ? unsqueeze(a, 0) : a, b.rank() == 1 ? unsqueeze(b, 1) : b);
  if (b.rank() == 1) y = squeeze(y, -1);
  if (a.rank() == 1) y = squeeze(y, b.rank() == 1 ? -1 : -2);
  return y;
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, Activation activation) {
  if (activation == Activation::gelu && records({&x, &w, &bias})) return gelu(linear(x, w, bias));
  Tensor y = record(compute::linear(x, w, bias, activation), {&x, &w, &bias}, [&] {
    return LinearDerivative{tracked(w) || tracked(bias) ? Saved(x, 0) : Saved(), tracked(x) ? Saved(w, 1) : Saved()};
  });
  if (activation == Activation::none || !y.requires_grad()) return y;
  return record_activation(y, y.detach(), activation);
}

}  // namespace stet
