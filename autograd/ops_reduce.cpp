// Reductions, softmax, running sums and sorting, with their derivatives.
#include <algorithm>
#include <numeric>

#include <stet/autograd/node.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

Shape with_ones(const Shape& shape, const std::vector<int>& axes) {
  Shape out = shape;
  for (int axis : axes) out[axis] = 1;
  return out;
}

std::int64_t reduced_count(const Shape& shape, const std::vector<int>& axes) {
  std::int64_t n = 1;
  for (int axis : axes) grow_count(n, shape[axis]);
  return n;
}

Axes as_axes(const std::vector<int>& axes) { return Axes(axes.begin(), axes.end()); }

/// x with `axis` moved to the end, and back: the fused row operations work on the last axis.
template <class Rows> Tensor on_last_axis(const Tensor& x, int axis, const Rows& rows) {
  if (axis == x.rank() - 1) return rows(x);
  return transpose(rows(contiguous(transpose(x, axis, -1))), axis, -1);
}

struct SumDerivative {
  static constexpr std::string_view name = "sum";
  Shape kept;  // of the result, with the reduced axes as 1
  void operator()(Backward& pass) const { pass.give(0, expand(reshape(pass.grad(), kept), pass.shape(0))); }
};

struct ProdDerivative {
  static constexpr std::string_view name = "prod";
  Saved x;
  std::vector<int> axes;
  Shape kept;
  /// With one zero in a line only that element has a gradient; with two or more none has.
  void operator()(Backward& pass) const {
    const Tensor& in = pass.get(x);
    const Options number{in.dtype(), Device::cpu()};
    const Tensor zero = scalar(0, number), one = scalar(1, number);
    const Tensor is_zero = equal(in, zero);
    if (grad_enabled() && in.numel() > 0 && max(is_zero).item() != 0)
      return pass.give(0, reshape(pass.grad(), kept) * of_others(in));
    const Tensor safe = where(is_zero, one, in);
    const Tensor zeros = cast(sum(cast(is_zero, DType::i64), as_axes(axes), true), in.dtype());
    const Tensor scaled = reshape(pass.grad(), kept) * prod(safe, as_axes(axes), true);
    const Tensor others = where(equal(zeros, zero), scaled / safe, zero);
    pass.give(0, where(is_zero, where(equal(zeros, one), expand(scaled, in.shape()), zero), others));
  }
  /// The product of the others for each element, in operations that can be differentiated at zeros too: what stands
  /// before it times what stands behind it.
  Tensor of_others(const Tensor& in) const {
    Axes order, back(static_cast<std::size_t>(in.rank()));
    for (int i = 0; i < in.rank(); ++i)
      if (std::find(axes.begin(), axes.end(), i) == axes.end()) order.push_back(i);
    order.insert(order.end(), axes.begin(), axes.end());
    for (std::size_t i = 0; i < order.size(); ++i)
      back[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    const Tensor turned = permute(in, order);
    const std::int64_t n = reduced_count(in.shape(), axes);
    const Tensor lines = reshape(turned, {in.numel() / n, n});
    std::vector<Tensor> before(static_cast<std::size_t>(n), ones({in.numel() / n, 1}, in.options())), behind = before;
    for (std::int64_t i = 1; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i), mirror = static_cast<std::size_t>(n - 1 - i);
      before[at] = before[at - 1] * slice(lines, 1, i - 1, i);
      behind[mirror] = behind[mirror + 1] * slice(lines, 1, n - i, n - i + 1);
    }
    return permute(reshape(cat(before, 1) * cat(behind, 1), turned.shape()), back);
  }
};

template <bool largest> struct ExtremeDerivative {
  static constexpr std::string_view name = largest ? "max" : "min";
  Saved x;
  std::vector<int> axes;
  Shape kept;
  void operator()(Backward& pass) const {
    const Tensor& in = pass.get(x);
    const Tensor hit = cast(equal(in, reshape(pass.output(), kept)), in.dtype()).detach();
    const Tensor share = hit / sum(hit, as_axes(axes), true);
    pass.give(0, share * reshape(pass.grad(), kept));
  }
};

template <bool largest> Tensor extreme(const Tensor& x, const Axes& axes, bool keepdim) {
  using Op = std::conditional_t<largest, Max, Min>;
  const auto at = normalize_axes(Op::name, axes, x.rank());
  return record(
      compute::reduce<Op>(x, at, keepdim), {&x},
      [&] {
        return ExtremeDerivative<largest>{Saved(x, 0), at, with_ones(x.shape(), at)};
      },
      Keep::output);
}

struct SoftmaxDerivative {
  static constexpr std::string_view name = "softmax";
  void operator()(Backward& pass) const {
    const Tensor &g = pass.grad(), &y = pass.output();
    pass.give(0, y * (g - sum(g * y, {-1}, true)));
  }
};

struct LogSoftmaxDerivative {
  static constexpr std::string_view name = "log_softmax";
  void operator()(Backward& pass) const {
    const Tensor& g = pass.grad();
    pass.give(0, g - exp(pass.output()) * sum(g, {-1}, true));
  }
};

struct LogsumexpDerivative {
  static constexpr std::string_view name = "logsumexp";
  Saved x;
  void operator()(Backward& pass) const { pass.give(0, softmax(pass.get(x)) * unsqueeze(pass.grad(), -1)); }
};

Tensor reversed(const Tensor& x, int axis) {
  const std::int64_t n = x.shape()[axis];
  return index_select(x, axis, arange(static_cast<double>(n - 1), -1, -1, {DType::i64, x.device()}));
}

struct CumsumDerivative {
  static constexpr std::string_view name = "cumsum";
  int axis;
  /// The sum of g from each position on.
  void operator()(Backward& pass) const { pass.give(0, reversed(cumsum(reversed(pass.grad(), axis), axis), axis)); }
};

struct SortDerivative {
  static constexpr std::string_view name = "sort";
  int axis;
  Saved indices;
  void operator()(Backward& pass) const {
    pass.give(0, scatter_add(zeros(pass.shape(0), pass.grad().options()), axis, pass.get(indices), pass.grad()));
  }
};

ValuesIndices sorted(const Tensor& x, int axis, bool descending, std::int64_t keep) {
  compute::Sorted parts = compute::sort(x, axis, descending, keep);
  const Tensor indices = parts.indices;  // clang 14 does not capture structured bindings
  return {record(std::move(parts.values), {&x}, [&] { return SortDerivative{axis, Saved(indices, 1)}; }), indices};
}

void check_rows_dtype(std::string_view op, const Tensor& x) {
  check(x.dtype() == DType::f32 || x.dtype() == DType::f64, op, "needs f32 or f64, got ", x.dtype());
}

}  // namespace

Tensor sum(const Tensor& x, const Axes& axes, bool keepdim) {
  const auto at = normalize_axes("sum", axes, x.rank());
  return record(compute::reduce<Sum>(x, at, keepdim), {&x}, [&] { return SumDerivative{with_ones(x.shape(), at)}; });
}

Tensor mean(const Tensor& x, const Axes& axes, bool keepdim) {
  if (x.dtype() == DType::bf16) return cast(mean(cast(x, DType::f32), axes, keepdim), DType::bf16);  // rounded once
  const Tensor in = is_floating(x.dtype()) ? x : cast(x, DType::f32);
  const auto n = static_cast<double>(reduced_count(x.shape(), normalize_axes("mean", axes, x.rank())));
  return sum(in, axes, keepdim) / n;  // not times 1 / n, which rounds: a constant's mean is the constant
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  Axes axes;
  const int pad = x.rank() - shape.size();
  for (int i = 0; i < x.rank(); ++i)
    if (i < pad || (shape[i - pad] == 1 && x.shape()[i] != 1)) axes.push_back(i);
  return reshape(axes.empty() ? x : sum(x, axes, true), shape);
}

Tensor prod(const Tensor& x, const Axes& axes, bool keepdim) {
  const auto at = normalize_axes("prod", axes, x.rank());
  return record(compute::reduce<Prod>(x, at, keepdim), {&x}, [&] {
    return ProdDerivative{Saved(x, 0), at, with_ones(x.shape(), at)};
  });
}

Tensor max(const Tensor& x, const Axes& axes, bool keepdim) { return extreme<true>(x, axes, keepdim); }
Tensor min(const Tensor& x, const Axes& axes, bool keepdim) { return extreme<false>(x, axes, keepdim); }

Tensor var(const Tensor& x, const Axes& axes, bool keepdim, double correction) {
  if (x.dtype() == DType::bf16) return cast(var(cast(x, DType::f32), axes, keepdim, correction), DType::bf16);
  const Tensor in = is_floating(x.dtype()) ? x : cast(x, DType::f32);
  const auto at = normalize_axes("var", axes, x.rank());
  const auto n = static_cast<double>(reduced_count(x.shape(), at));
  return sum(square(in - mean(in, as_axes(at), true)), axes, keepdim) / std::max(n - correction, 0.0);
}

Tensor logsumexp(const Tensor& x, std::int64_t axis, bool keepdim) {
  check_rows_dtype("logsumexp", x);
  const int at = normalize_axis("logsumexp", axis, x.rank());
  const Tensor in = at == x.rank() - 1 ? x : contiguous(transpose(x, at, -1));
  Tensor y = record(compute::logsumexp(in), {&in}, [&] { return LogsumexpDerivative{Saved(in, 0)}; });
  y = unsqueeze(y, -1);
  if (at != x.rank() - 1) y = transpose(y, at, -1);
  return keepdim ? y : squeeze(y, at);
}

Tensor argmax(const Tensor& x, std::int64_t axis, bool keepdim) {
  return compute::arg_reduce(false, x, normalize_axis("argmax", axis, x.rank()), keepdim);
}
Tensor argmin(const Tensor& x, std::int64_t axis, bool keepdim) {
  return compute::arg_reduce(true, x, normalize_axis("argmin", axis, x.rank()), keepdim);
}

Tensor cumsum(const Tensor& x, std::int64_t axis) {
  const int at = normalize_axis("cumsum", axis, x.rank());
  return record(compute::cumsum(x, at), {&x}, [&] { return CumsumDerivative{at}; });
}

Tensor softmax(const Tensor& x, std::int64_t axis) {
  check_rows_dtype("softmax", x);
  return on_last_axis(x, normalize_axis("softmax", axis, x.rank()), [](const Tensor& in) {
    return record(
        compute::softmax(in, false), {&in}, [] { return SoftmaxDerivative{}; }, Keep::output);
  });
}

Tensor log_softmax(const Tensor& x, std::int64_t axis) {
  check_rows_dtype("log_softmax", x);
  return on_last_axis(x, normalize_axis("log_softmax", axis, x.rank()), [](const Tensor& in) {
    return record(
        compute::softmax(in, true), {&in}, [] { return LogSoftmaxDerivative{}; }, Keep::output);
  });
}

ValuesIndices sort(const Tensor& x, std::int64_t axis, bool descending) {
  const int at = normalize_axis("sort", axis, x.rank());
  return sorted(x, at, descending, x.shape()[at]);
}

ValuesIndices topk(const Tensor& x, std::int64_t k, std::int64_t axis, bool largest) {
  return sorted(x, normalize_axis("topk", axis, x.rank()), largest, k);
}

}  // namespace stet
