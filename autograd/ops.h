// The differentiable operations. All are free functions; operators are sugar. Shapes follow NumPy:
// elementwise operations broadcast, axes may be negative, no axes means all. Derivatives: derivatives.h, and
// beside the operation for those with parameters.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include <stet/tensor/kernels.h>
#include <stet/tensor/random.h>
#include <stet/tensor/tensor.h>

namespace stet {

using Axes = std::vector<std::int64_t>;

// Elementwise, one operand. Integers are converted to f32 where the result is a fraction. Arithmetic of integers wraps
// around, sums, products and running sums of them too.

Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor gelu(const Tensor& x);       ///< exact: x Phi(x)
Tensor gelu_tanh(const Tensor& x);  ///< GPT-2's tanh form
Tensor silu(const Tensor& x);
Tensor softplus(const Tensor& x);
Tensor erf(const Tensor& x);
Tensor floor(const Tensor& x);

// Elementwise, two operands: shapes broadcast, dtypes are promoted (dtype.h).

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& a, const Tensor& b);
/// Of integers, to a whole exponent of 0 or more: exact, in their own dtype (of bool i64), where it wraps as products
/// do. Any other exponent, or one that is a tensor, makes the power of integers f32.
Tensor pow(const Tensor& a, double exponent);
Tensor maximum(const Tensor& a, const Tensor& b);  ///< NaN if either is; equal operands share the gradient
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor relu_grad(const Tensor& g, const Tensor& y);  ///< g where y > 0, else 0
Tensor gelu_grad(const Tensor& g, const Tensor& x);  ///< g times gelu's slope at x; so are the next two
Tensor gelu_tanh_grad(const Tensor& g, const Tensor& x);
Tensor silu_grad(const Tensor& g, const Tensor& x);
/// a where `condition` (bool) holds, else b.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// x held between low and high; the gradient passes where low <= x <= high.
Tensor clamp(const Tensor& x, double low, double high);
/// Conversion of dtype; differentiable between floating dtypes.
Tensor cast(const Tensor& x, DType dtype);
/// A copy on another device; x itself where it is there already. Differentiable.
Tensor to(const Tensor& x, Device device);

Tensor operator-(const Tensor& x);
Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);

// Comparisons give bool tensors and have no gradient.

Tensor equal(const Tensor& a, const Tensor& b);
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
Tensor operator<(const Tensor& a, const Tensor& b);
Tensor operator<=(const Tensor& a, const Tensor& b);
Tensor operator>(const Tensor& a, const Tensor& b);
Tensor operator>=(const Tensor& a, const Tensor& b);
Tensor operator<(const Tensor& a, double b);
Tensor operator>(const Tensor& a, double b);
/// Every element equal, shapes and dtypes too; NaN differs from NaN.
bool same(const Tensor& a, const Tensor& b);

// Views: no data moves, except that reshape copies a tensor that is not contiguous.

Tensor reshape(const Tensor& x, Shape shape);  ///< one size may be -1: whatever is left
Tensor flatten(const Tensor& x, std::int64_t from = 0, std::int64_t to = -1);
Tensor transpose(const Tensor& x, std::int64_t a = -2, std::int64_t b = -1);
Tensor permute(const Tensor& x, const Axes& axes);
Tensor expand(const Tensor& x, const Shape& shape);
/// Elements begin, begin + step, ... below end of one axis; negative positions count from the end.
Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t begin,
             std::int64_t end = std::numeric_limits<std::int64_t>::max(), std::int64_t step = 1);
Tensor select(const Tensor& x, std::int64_t axis, std::int64_t index);  ///< drops the axis
Tensor squeeze(const Tensor& x, std::int64_t axis);
Tensor unsqueeze(const Tensor& x, std::int64_t axis);
Tensor contiguous(const Tensor& x);

// Reductions.

Tensor sum(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Sums x down to `shape`, which broadcasts to x's: undoes broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);
Tensor prod(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
Tensor max(const Tensor& x, const Axes& axes = {},
           bool keepdim = false);  ///< equal maxima share the gradient
Tensor min(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Mean squared deviation; divides by n - correction, or by 0 where the correction is larger: infinite, as in torch.
Tensor var(const Tensor& x, const Axes& axes = {}, bool keepdim = false, double correction = 1);
Tensor logsumexp(const Tensor& x, std::int64_t axis = -1, bool keepdim = false);
Tensor argmax(const Tensor& x, std::int64_t axis = -1, bool keepdim = false);  ///< i64; first of equals
Tensor argmin(const Tensor& x, std::int64_t axis = -1, bool keepdim = false);
Tensor cumsum(const Tensor& x, std::int64_t axis);
Tensor softmax(const Tensor& x, std::int64_t axis = -1);
Tensor log_softmax(const Tensor& x, std::int64_t axis = -1);
struct ValuesIndices {
  Tensor values, indices;
};
/// Stable; NaN counts as the largest.
ValuesIndices sort(const Tensor& x, std::int64_t axis = -1, bool descending = false);
/// The k largest (smallest), sorted.
ValuesIndices topk(const Tensor& x, std::int64_t k, std::int64_t axis = -1, bool largest = true);

// Products.

/// (..., m, k) x (..., k, n) -> (..., m, n); batch dimensions broadcast, vectors as in NumPy.
Tensor matmul(const Tensor& a, const Tensor& b);
/// act(x w^T + bias): x (..., in), w (out, in), bias (out,) or undefined -> (..., out). Bias and activation
/// are applied to each tile of the product while it is in cache.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {}, Activation activation = Activation::none);

// By index (i64).

Tensor cat(const std::vector<Tensor>& parts, std::int64_t axis = 0);
Tensor stack(const std::vector<Tensor>& parts, std::int64_t axis = 0);
/// Pieces of these sizes along an axis, which they fill. Their gradients are written side by side, where those of as
/// many slices would be added up.
std::vector<Tensor> split(const Tensor& x, const std::vector<std::int64_t>& sizes, std::int64_t axis = 0);
/// Pieces of `size`; the last may be shorter.
std::vector<Tensor> split(const Tensor& x, std::int64_t size, std::int64_t axis = 0);
Tensor gather(const Tensor& x, std::int64_t axis, const Tensor& index);
/// A copy of x with source added at index; repeated indices add up in order.
Tensor scatter_add(const Tensor& x, std::int64_t axis, const Tensor& index, const Tensor& source);
Tensor index_select(const Tensor& x, std::int64_t axis, const Tensor& index);
/// zeros with n entries along the axis and source's entries added at index: the derivative of index_select.
Tensor index_add(const Tensor& source, std::int64_t axis, const Tensor& index, std::int64_t n);
/// On the device of `index`.
Tensor one_hot(const Tensor& index, std::int64_t classes, DType dtype = DType::f32);
/// Rows of w (n, c) at index (...) -> (..., c).
Tensor embedding(const Tensor& w, const Tensor& index);

// Fused.

/// (x - mean) / sqrt(var + eps) * weight + bias over the last axis; weight and bias (n,) may be undefined.
Tensor layer_norm(const Tensor& x, const Tensor& weight = {}, const Tensor& bias = {}, double eps = 1e-5);
/// x / sqrt(mean(x^2) + eps) * weight over the last axis; weight (n,) may be undefined (Zhang & Sennrich 2019).
Tensor rms_norm(const Tensor& x, const Tensor& weight = {}, double eps = 1e-6);

struct CrossEntropyOptions {
  Tensor weight = {};  ///< (classes,)
  double label_smoothing = 0;
  std::int64_t ignore_index = -100;
};
/// -log softmax(logits)[target] for each row: logits (..., classes), target (...) i64 -> (...). Ignored rows
/// give 0. The mean over a batch is nn::cross_entropy.
Tensor cross_entropy_rows(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});

// Random tensors: element i depends on the generator's state and i alone.

Tensor rand(const Shape& shape, Generator& generator = default_generator(), Options options = {});
Tensor randn(const Shape& shape, Generator& generator = default_generator(), Options options = {});
Tensor uniform(const Shape& shape, double low, double high, Generator& generator = default_generator(),
               Options options = {});
Tensor normal(const Shape& shape, double mean, double deviation, Generator& generator = default_generator(),
              Options options = {});
/// 1 with probability p, else 0.
Tensor bernoulli(const Shape& shape, double p, Generator& generator = default_generator(), Options options = {});
Tensor randint(const Shape& shape, std::int64_t low, std::int64_t high, Generator& generator = default_generator(),
               Options options = {DType::i64});
Tensor randperm(std::int64_t n, Generator& generator = default_generator());

}  // namespace stet
