// Arithmetic on buffers: checks shapes and dtypes, then calls the device's kernels. Nothing here records
// history; autograd/ builds the differentiable operations on top and is what users call.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <stet/tensor/kernels.h>
#include <stet/tensor/tensor.h>

namespace stet::compute {

// Layout.
Tensor contiguous(const Tensor& x);
/// A broadcast view; `op` is named in errors.
Tensor expand(std::string_view op, const Tensor& x, const Shape& shape);
Tensor cast(const Tensor& x, DType dtype);
Tensor to_device(const Tensor& x, Device device);
/// Strided copy with conversion; same shape.
void copy_into(const Tensor& target, const Tensor& source);
/// Row-major copy from and to host memory.
void copy_from(const Tensor& target, const void* values, DType dtype);
void copy_to(void* values, DType dtype, const Tensor& source);

// Elementwise. The `index` is the operation's place in its list.
Tensor unary(std::size_t index, std::string_view op, bool integers, const Tensor& x);
Tensor binary(std::size_t index, std::string_view op, bool integers, const Tensor& a, const Tensor& b);
Tensor compare(std::size_t index, std::string_view op, const Tensor& a, const Tensor& b);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

template <class Op> Tensor unary(const Tensor& x) { return unary(UnaryOps::index<Op>, Op::name, Op::integers, x); }
template <class Op> Tensor binary(const Tensor& a, const Tensor& b) {
  return binary(BinaryOps::index<Op>, Op::name, Op::integers, a, b);
}
template <class Op> Tensor compare(const Tensor& a, const Tensor& b) {
  return compare(CompareOps::index<Op>, Op::name, a, b);
}

// Reductions.
Tensor reduce(std::size_t index, std::string_view op, const Tensor& x, const std::vector<int>& axes, bool keepdim);
template <class Op> Tensor reduce(const Tensor& x, const std::vector<int>& axes, bool keepdim) {
  return reduce(ReduceOps::index<Op>, Op::name, x, axes, keepdim);
}
/// Position of the largest (smallest) element along one axis; the first of equals, NaN before all.
Tensor arg_reduce(bool smallest, const Tensor& x, int axis, bool keepdim);
Tensor cumsum(const Tensor& x, int axis);
struct Sorted {
  Tensor values, indices;
};
Sorted sort(const Tensor& x, int axis, bool descending, std::int64_t keep);

// Products.
/// (..., m, k) x (..., k, n) -> (..., m, n), batch dimensions broadcast; at least two dimensions each.
Tensor matmul(const Tensor& a, const Tensor& b);
/// act(x w^T + bias): x (..., in), w (out, in), bias (out,) or undefined -> (..., out).
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, Activation activation);
struct LinearGradients {
  Tensor weight, bias;
};
/// g^T x (out, in) and the sums of g's columns (out,), g (n, out) read once for both where a device can: x (n, in).
LinearGradients linear_gradients(const Tensor& g, const Tensor& x);
/// target (m, n) (+)= op(a) op(b) for 2-d operands of one dtype.
void gemm_into(const Tensor& target, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
               bool accumulate);

// By index.
/// `op` is named in errors, here and below.
Tensor index_select(const Tensor& x, int axis, const Tensor& index, Checked op = Checked::index_select);
/// zeros(n along axis) with rows of `source` added at `index`, in order.
Tensor index_add(const Tensor& source, int axis, const Tensor& index, std::int64_t n);
/// Adds to `out`, contiguous, instead of to zeros.
void index_add_into(const Tensor& out, const Tensor& source, int axis, const Tensor& index);
Tensor gather(const Tensor& x, int axis, const Tensor& index);
/// A copy of x with `source` added at `index`.
Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& source,
                   Checked op = Checked::scatter_add);
Tensor cat(const std::vector<Tensor>& parts, int axis);

// Fused rows; the last axis is reduced.
Tensor softmax(const Tensor& x, bool log);
Tensor logsumexp(const Tensor& x);
struct LayerNorm {
  Tensor y, mean, rstd;
};
LayerNorm layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, bool keep_statistics);
struct RmsNorm {
  Tensor y, rstd;
};
RmsNorm rms_norm(const Tensor& x, const Tensor& weight, double eps, bool keep_statistics);
struct NormGradients {
  Tensor x, weight, bias;
};
struct NormWants {
  bool x, weight, bias;
};
/// Of layer norm or, without means, of RMS norm; what is not wanted stays undefined. With `sum`, contiguous, that of x
/// is added to it and not given.
NormGradients norm_grad(const Tensor& g, const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& rstd,
                        NormWants wants, const Tensor* sum = nullptr);
/// x with pairs of features turned by angles; `inverse` turns back. cos and sin are contiguous, of one shape that
/// broadcasts to x's but for the last axis, which says how many pairs there are.
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved, bool inverse);

// Random numbers.
/// Takes one draw from the generator, which must outlive a recording that this becomes part of. `below`: the largest
/// value of a uniform draw.
Tensor random(Draw draw, const Shape& shape, Generator& generator, Options options, double a, double b,
              std::int64_t low = 0, std::int64_t high = 0, double below = HUGE_VAL);

/// An Error unless both are on one device.
void check_same_device(std::string_view op, const Tensor& a, const Tensor& b);

}  // namespace stet::compute
