// Reductions, running sums, sorting, and the fused row operations.
#include <algorithm>

#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::compute {
namespace {

/// x with the reduced axes joined into one: (outer, n, inner).
struct Lines {
  Tensor x;
  std::int64_t outer = 1, n = 1, inner = 1;
};

/// Contiguous x around one axis.
Lines around(const Tensor& x, int axis) {
  Lines lines{contiguous(x), 1, 1, 1};
  for (int i = 0; i < x.rank(); ++i)
    grow_count(i < axis ? lines.outer : i == axis ? lines.n : lines.inner, x.shape()[i]);
  return lines;
}

bool neighbours(const std::vector<int>& axes) {
  for (std::size_t i = 1; i < axes.size(); ++i)
    if (axes[i] != axes[i - 1] + 1) return false;
  return true;
}

/// Moves the reduced axes to the end where they are not neighbours already.
Lines lines_over(const Tensor& x, const std::vector<int>& axes) {
  if (axes.empty()) return {contiguous(x), x.numel(), 1, 1};
  Lines lines;
  if (neighbours(axes)) {
    lines.x = contiguous(x);
    for (int i = 0; i < x.rank(); ++i)
      grow_count(i < axes.front() ? lines.outer : i <= axes.back() ? lines.n : lines.inner, x.shape()[i]);
    return lines;
  }
  Shape shape(x.rank());
  Strides strides(x.rank());
  int at = 0;
  for (int pass = 0; pass < 2; ++pass)
    for (int i = 0; i < x.rank(); ++i)
      if (std::binary_search(axes.begin(), axes.end(), i) == (pass == 1)) {
        shape[at] = x.shape()[i];
        strides[at++] = x.strides()[i];
        grow_count(pass ? lines.n : lines.outer, x.shape()[i]);
      }
  lines.x = contiguous(make_view(x, shape, strides, x.impl().offset));
  return lines;
}

Shape reduced_shape(const Shape& shape, const std::vector<int>& axes, bool keepdim) {
  Shape out;
  for (int i = 0; i < shape.size(); ++i) {
    if (!std::binary_search(axes.begin(), axes.end(), i)) out.push_back(shape[i]);
    else if (keepdim) out.push_back(1);
  }
  return out;
}

Rows rows_of(const Tensor& x, std::string_view op) {
  check(x.rank() >= 1, op, "needs at least one axis, got shape ", x.shape());
  check(x.dtype() == DType::f32 || x.dtype() == DType::f64, op, "needs f32 or f64, got ", x.dtype());
  Rows job{};
  job.dtype = x.dtype();
  job.n = x.shape().back();
  job.rows = job.n ? x.numel() / job.n : 0;
  job.in[0] = x.raw();
  return job;
}

/// bf16 as f32, every integer as i64.
Tensor widened(const Tensor& x) {
  if (is_floating(x.dtype())) return x.dtype() == DType::bf16 ? cast(x, DType::f32) : x;
  return cast(x, DType::i64);
}

const void* raw_or_null(const Tensor& x) { return x.defined() ? x.raw() : nullptr; }

}  // namespace

Tensor reduce(std::size_t index, std::string_view op, const Tensor& x, const std::vector<int>& axes, bool keepdim) {
  if (x.dtype() == DType::bf16) return cast(reduce(index, op, cast(x, DType::f32), axes, keepdim), DType::bf16);
  const bool extreme = op == Max::name || op == Min::name;
  if (!is_floating(x.dtype()) && x.dtype() != DType::i64) {  // a sum of bools or bytes must not wrap at 255
    const Tensor y = reduce(index, op, cast(x, DType::i64), axes, keepdim);
    return extreme ? cast(y, x.dtype()) : y;
  }
  const auto kernel = kernels(x.device()).reduce[index][static_cast<std::size_t>(x.dtype())];
  if (!kernel) fail(op, "is not defined on ", x.dtype());
  Tensor out = empty(reduced_shape(x.shape(), axes, keepdim), x.options());
  const Lines lines = lines_over(x, axes);
  check(!extreme || lines.n > 0 || out.numel() == 0, op, "of no elements: shape ", x.shape());
  if (out.numel()) kernel({lines.outer, lines.n, lines.inner, lines.x.raw(), out.raw_mutable()});
  return out;
}

Tensor arg_reduce(bool smallest, const Tensor& x, int axis, bool keepdim) {
  const std::string_view op = smallest ? "argmin" : "argmax";
  const Tensor wide = widened(x);
  const Lines lines = around(wide, axis);
  check(lines.n > 0, op, "of no elements: shape ", x.shape());
  Tensor out = empty(reduced_shape(x.shape(), {axis}, keepdim), {DType::i64, x.device()});
  const auto kernel = kernels(x.device()).arg_reduce[smallest ? 1 : 0][static_cast<std::size_t>(wide.dtype())];
  if (out.numel()) kernel({lines.outer, lines.n, lines.inner, lines.x.raw(), out.raw_mutable()});
  return out;
}

Tensor cumsum(const Tensor& x, int axis) {
  const Tensor wide = widened(x);
  const Lines lines = around(wide, axis);
  Tensor out = empty(x.shape(), wide.options());
  const auto kernel = kernels(x.device()).cumsum[static_cast<std::size_t>(wide.dtype())];
  if (out.numel()) kernel({lines.outer, lines.n, lines.inner, lines.x.raw(), out.raw_mutable()});
  return x.dtype() == DType::bf16 ? cast(out, DType::bf16) : out;
}

Sorted sort(const Tensor& x, int axis, bool descending, std::int64_t keep) {
  check(x.dtype() != DType::bf16 && x.dtype() != DType::boolean, "sort", "is not defined on ", x.dtype());
  const Lines lines = around(x, axis);
  check(keep >= 0 && keep <= lines.n, "topk", "k = ", keep, " of an axis of ", lines.n, " elements");
  Shape shape = x.shape();
  shape[axis] = keep;
  Sorted out{empty(shape, x.options()), empty(shape, {DType::i64, x.device()})};
  Sort job;
  job.dtype = x.dtype();
  job.outer = lines.outer;
  job.n = lines.n;
  job.inner = lines.inner;
  job.k = keep;
  job.descending = descending;
  job.in = lines.x.raw();
  job.values = out.values.raw_mutable();
  job.indices = static_cast<std::int64_t*>(out.indices.raw_mutable());
  if (out.values.numel()) kernels(x.device()).sort(job);
  return out;
}

Tensor softmax(const Tensor& x, bool log) {
  const Tensor in = contiguous(x);
  Rows job = rows_of(in, log ? "log_softmax" : "softmax");
  Tensor out = empty(x.shape(), x.options());
  job.out[0] = out.raw_mutable();
  if (job.rows) (log ? kernels(x.device()).log_softmax : kernels(x.device()).softmax)(job);
  return out;
}

Tensor logsumexp(const Tensor& x) {
  const Tensor in = contiguous(x);
  Rows job = rows_of(in, "logsumexp");
  Shape shape(x.rank() - 1);
  std::copy(x.shape().begin(), x.shape().end() - 1, shape.begin());
  Tensor out = empty(shape, x.options());
  job.rows = out.numel();
  job.out[0] = out.raw_mutable();
  if (job.rows) kernels(x.device()).logsumexp(job);
  return out;
}

LayerNorm layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, bool keep_statistics) {
  const Tensor in = contiguous(x);
  Rows job = rows_of(in, "layer_norm");
  LayerNorm out{empty(x.shape(), x.options()), {}, {}};
  if (keep_statistics) {
    out.mean = empty({job.rows}, x.options());
    out.rstd = empty({job.rows}, x.options());
    job.out[1] = out.mean.raw_mutable();
    job.out[2] = out.rstd.raw_mutable();
  }
  job.in[1] = raw_or_null(weight);
  job.in[2] = raw_or_null(bias);
  job.out[0] = out.y.raw_mutable();
  job.scalar[0] = eps;
  if (job.rows) kernels(x.device()).layer_norm(job);
  return out;
}

RmsNorm rms_norm(const Tensor& x, const Tensor& weight, double eps, bool keep_statistics) {
  const Tensor in = contiguous(x), w = weight.defined() ? contiguous(weight) : weight;
  Rows job = rows_of(in, "rms_norm");
  RmsNorm out{empty(x.shape(), x.options()), {}};
  if (keep_statistics) {
    out.rstd = empty({job.rows}, x.options());
    job.out[1] = out.rstd.raw_mutable();
  }
  job.in[1] = raw_or_null(w);
  job.out[0] = out.y.raw_mutable();
  job.scalar[0] = eps;
  if (job.rows) kernels(x.device()).rms_norm(job);
  return out;
}

NormGradients norm_grad(const Tensor& g, const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& rstd,
                        NormWants wants, const Tensor* sum) {
  const Tensor grad = contiguous(g), in = contiguous(x), w = weight.defined() ? contiguous(weight) : weight;
  Rows job = rows_of(in, mean.defined() ? "layer_norm" : "rms_norm");
  NormGradients out;
  const auto make = [&](bool wanted, const Shape& shape) {
    if (!wanted) return Tensor();
    return job.rows ? empty(shape, x.options()) : zeros(shape, x.options());
  };
  out.x = make(wants.x && !sum, x.shape());
  out.weight = make(wants.weight, {job.n});
  out.bias = make(wants.bias, {job.n});
  job.in[0] = grad.raw();
  job.in[1] = in.raw();
  job.in[2] = raw_or_null(w);
  job.in[3] = raw_or_null(mean);
  job.in[4] = rstd.raw();
  int place = 0;
  for (const Tensor* t : {&out.x, &out.weight, &out.bias}) job.out[place++] = t->defined() ? t->raw_mutable() : nullptr;
  if (sum) job.out[0] = sum->raw_mutable();
  job.scalar[0] = sum ? 1 : 0;
  if (job.rows) kernels(x.device()).norm_grad(job);
  return out;
}

Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved, bool inverse) {
  check_same_device("rotary", x, cos);
  check_same_device("rotary", x, sin);
  const int last = x.rank() - 1;
  const Tensor in = x.strides()[last] == 1 ? x : contiguous(x);
  const int extra = x.rank() - cos.rank();
  Rotary job{};
  job.dtype = x.dtype();
  job.interleaved = interleaved;
  job.inverse = inverse;
  job.width = x.shape()[last];
  job.half = cos.shape().back();
  job.rank = last;
  for (int d = 0; d < last; ++d) {
    job.rows *= x.shape()[d];
    job.size[d] = x.shape()[d];
    job.stride[d] = in.strides()[d];
    job.angle_stride[d] = d < extra || cos.shape()[d - extra] == 1 ? 0 : cos.strides()[d - extra];
  }
  Tensor out = empty(x.shape(), x.options());
  job.x = in.raw();
  job.cos = cos.raw();
  job.sin = sin.raw();
  job.out = out.raw_mutable();
  if (out.numel()) kernels(x.device()).rotary(job);
  return out;
}

}  // namespace stet::compute
