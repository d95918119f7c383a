// Elementwise operations: forward through the device table, derivatives from derivatives.h.
#include <cmath>

#include <stet/autograd/derivatives.h>
#include <stet/autograd/node.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

template <class Op> struct UnaryDerivative {
  static constexpr std::string_view name = Op::name;
  Saved x;
  void operator()(Backward& pass) const {
    using D = Derivative<Op>;
    if constexpr (std::is_base_of_v<FromNothing, D>) pass.give(0, D::of(pass.grad()));
    else if constexpr (std::is_base_of_v<FromInput, D>) pass.give(0, D::of(pass.grad(), pass.get(x)));
    else pass.give(0, D::of(pass.grad(), pass.output()));
  }
};

template <class Op> Tensor unary(const Tensor& x) {
  using D = Derivative<Op>;
  const Tensor in = is_floating(x.dtype()) || Op::integers ? x : cast(x, DType::f32);
  constexpr Keep keep = std::is_base_of_v<FromOutput, D> ? Keep::output : Keep::nothing;
  return record(
      compute::unary<Op>(in), {&in},
      [&] { return UnaryDerivative<Op>{std::is_base_of_v<FromInput, D> ? Saved(in, 0) : Saved()}; }, keep);
}

template <class Op> struct BinaryDerivative {
  using D = Derivative<Op>;
  static constexpr std::string_view name = Op::name;
  Saved a, b;

  /// The gradient of one side before broadcasting is undone.
  Tensor wide(int side, const Tensor& g, const Tensor& x, const Tensor& y) const {
    if constexpr (std::is_base_of_v<FromNothing, D>) return side == 0 ? D::a(g) : D::b(g);
    else if constexpr (std::is_base_of_v<FromOther, D>) return side == 0 ? D::a(g, y) : D::b(g, x);
    else return side == 0 ? D::a(g, x, y) : D::b(g, x, y);
  }
  void operator()(Backward& pass) const {
    const Tensor& x = a.defined() ? pass.get(a) : a.tensor;
    const Tensor& y = b.defined() ? pass.get(b) : b.tensor;
    if (pass.needs(0)) pass.give(0, sum_to(wide(0, pass.grad(), x, y), pass.shape(0)));
    if (pass.needs(1)) pass.give(1, sum_to(wide(1, pass.grad(), x, y), pass.shape(1)));
  }
  /// A parameter that broadcasts over the batch: everything but axis 0 is summed.
  Tensor per_sample(int side, const Shape& shape, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    const bool batched = shape.size() < g.rank() || (shape.size() == g.rank() && shape[0] == 1);
    if (!batched) return {};
    Tensor full = expand(wide(side, g, a.tensor, b.tensor), g.shape());
    Shape aligned(g.rank(), 1);
    for (int i = 0; i < shape.size(); ++i) aligned[g.rank() - shape.size() + i] = shape[i];
    aligned[0] = end - begin;
    full = sum_to(slice(full, 0, begin, end), aligned);
    Shape out{end - begin};
    for (std::int64_t size : shape) out.push_back(size);
    return reshape(full, out);
  }
};

template <class Op> Tensor binary(const Tensor& a, const Tensor& b) {
  using D = Derivative<Op>;
  const DType work = promote(a.dtype(), b.dtype());
  if (is_floating(work) && (a.dtype() != work || b.dtype() != work)) return binary<Op>(cast(a, work), cast(b, work));
  return record(compute::binary<Op>(a, b), {&a, &b}, [&] {
    BinaryDerivative<Op> derivative;
    // An operand is kept only for a side that needs it.
    constexpr bool both = std::is_base_of_v<FromBoth, D>, other = std::is_base_of_v<FromOther, D>;
    if (both || (other && b.requires_grad())) derivative.a = Saved(a, 0);
    if (both || (other && a.requires_grad())) derivative.b = Saved(b, 1);
    return derivative;
  });
}

struct WhereDerivative {
  static constexpr std::string_view name = "where";
  Saved which;
  void operator()(Backward& pass) const {
    const Tensor &g = pass.grad(), &condition = pass.get(which);
    const Tensor zero = scalar(0, {g.dtype(), Device::cpu()});
    if (pass.needs(1)) pass.give(1, sum_to(where(condition, g, zero), pass.shape(1)));
    if (pass.needs(2)) pass.give(2, sum_to(where(condition, zero, g), pass.shape(2)));
  }
};

struct CastDerivative {
  static constexpr std::string_view name = "cast";
  DType dtype;
  void operator()(Backward& pass) const { pass.give(0, cast(pass.grad(), dtype)); }
};

struct ToDerivative {
  static constexpr std::string_view name = "to";
  Device device;
  void operator()(Backward& pass) const { pass.give(0, to(pass.grad(), device)); }
};

/// The dtype of a number beside a tensor: the tensor's, except that a fraction beside integers is f32, and a whole
/// number beside bool i64.
DType dtype_beside(const Tensor& x, double value) {
  if (is_floating(x.dtype())) return x.dtype();
  if (!(std::trunc(value) == value)) return DType::f32;
  return x.dtype() == DType::boolean ? DType::i64 : x.dtype();
}
/// It stays on the CPU, from where every device's kernels take it as an argument.
Tensor beside(const Tensor& x, double value) {
  const DType dtype = dtype_beside(x, value);
  check(holds(dtype, value), "number", value, " beside a tensor of ", x.dtype(),
        ", which does not hold it: cast the tensor");
  return scalar(value, {dtype, Device::cpu()});
}
/// To compare with: every number counts as what it is.
Tensor compared(const Tensor& x, double value) {
  const DType dtype = dtype_beside(x, value);
  return scalar(value, {holds(dtype, value)        ? dtype
                        : holds(DType::i64, value) ? DType::i64
                                                   : DType::f64,
                        Device::cpu()});
}

/// By squaring, in as many products as the exponent has digits and ones.
Tensor integer_power(const Tensor& a, std::int64_t exponent) {
  Tensor square = a.dtype() == DType::boolean ? cast(a, DType::i64) : a, out;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1) out = out.defined() ? out * square : square.clone();
    if (exponent > 1) square = square * square;
  }
  return out.defined() ? out : ones(square.shape(), square.options());
}

}  // namespace

Tensor record_activation(const Tensor& pre, Tensor y, Activation activation) {
  const auto as = [&]<class Op>() {
    static_assert(std::is_base_of_v<FromOutput, Derivative<Op>>, "a fused activation's derivative reads y alone");
    return record(
        y, {&pre}, [] { return UnaryDerivative<Op>{}; }, Keep::output);
  };
  switch (activation) {
    case Activation::relu: return as.template operator()<Relu>();
    case Activation::tanh: return as.template operator()<Tanh>();
    case Activation::sigmoid: return as.template operator()<Sigmoid>();
    default: fail<BugError>("linear", "this activation is not fused where gradients are recorded");
  }
}

Tensor neg(const Tensor& x) { return unary<Neg>(x); }
Tensor abs(const Tensor& x) { return unary<Abs>(x); }
Tensor sign(const Tensor& x) { return unary<Sign>(x); }
Tensor exp(const Tensor& x) { return unary<Exp>(x); }
Tensor expm1(const Tensor& x) { return unary<Expm1>(x); }
Tensor log(const Tensor& x) { return unary<Log>(x); }
Tensor log1p(const Tensor& x) { return unary<Log1p>(x); }
Tensor sqrt(const Tensor& x) { return unary<Sqrt>(x); }
Tensor rsqrt(const Tensor& x) { return unary<Rsqrt>(x); }
Tensor square(const Tensor& x) { return unary<Square>(x); }
Tensor reciprocal(const Tensor& x) { return unary<Reciprocal>(x); }
Tensor sin(const Tensor& x) { return unary<Sin>(x); }
Tensor cos(const Tensor& x) { return unary<Cos>(x); }
Tensor tanh(const Tensor& x) { return unary<Tanh>(x); }
Tensor sigmoid(const Tensor& x) { return unary<Sigmoid>(x); }
Tensor relu(const Tensor& x) { return unary<Relu>(x); }
Tensor gelu(const Tensor& x) { return unary<Gelu>(x); }
Tensor gelu_tanh(const Tensor& x) { return unary<GeluTanh>(x); }
Tensor silu(const Tensor& x) { return unary<Silu>(x); }
Tensor softplus(const Tensor& x) { return unary<Softplus>(x); }
Tensor erf(const Tensor& x) { return unary<Erf>(x); }
Tensor floor(const Tensor& x) { return unary<Floor>(x); }

Tensor add(const Tensor& a, const Tensor& b) { return binary<Add>(a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary<Sub>(a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary<Mul>(a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary<Div>(a, b); }
Tensor pow(const Tensor& a, const Tensor& b) { return binary<Pow>(a, b); }
Tensor pow(const Tensor& a, double exponent) {
  if (exponent == 2 && is_floating(a.dtype())) return square(a);
  if (!is_floating(a.dtype()) && exponent >= 0 && std::trunc(exponent) == exponent && holds(DType::i64, exponent))
    return integer_power(a, static_cast<std::int64_t>(exponent));
  return binary<Pow>(a, beside(a, exponent));
}
Tensor maximum(const Tensor& a, const Tensor& b) { return binary<Maximum>(a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary<Minimum>(a, b); }
Tensor relu_grad(const Tensor& g, const Tensor& y) { return binary<ReluGrad>(g, y); }
Tensor gelu_grad(const Tensor& g, const Tensor& x) { return binary<GeluGrad>(g, x); }
Tensor gelu_tanh_grad(const Tensor& g, const Tensor& x) { return binary<GeluTanhGrad>(g, x); }
Tensor silu_grad(const Tensor& g, const Tensor& x) { return binary<SiluGrad>(g, x); }

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const DType work = promote(a.dtype(), b.dtype());
  if (a.dtype() != work || b.dtype() != work) return where(condition, cast(a, work), cast(b, work));
  return record(compute::where(condition, a, b), {&condition, &a, &b},
                [&] { return WhereDerivative{Saved(condition, 0)}; });
}

Tensor clamp(const Tensor& x, double low, double high) {
  check(low <= high, "clamp", "low ", low, " is above high ", high);
  const Tensor a = beside(x, low), b = beside(x, high);
  return where(x < a, a, where(x > b, b, x));
}

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = compute::cast(x, dtype);
  if (!is_floating(dtype)) return y;
  return record(std::move(y), {&x}, [&] { return CastDerivative{x.dtype()}; });
}

Tensor to(const Tensor& x, Device device) {
  if (x.device() == device) return x;
  return record(compute::to_device(x, device), {&x}, [&] { return ToDerivative{x.device()}; });
}

Tensor operator-(const Tensor& x) { return neg(x); }
Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b) { return add(a, beside(a, b)); }
Tensor operator-(const Tensor& a, double b) { return sub(a, beside(a, b)); }
Tensor operator*(const Tensor& a, double b) { return mul(a, beside(a, b)); }
Tensor operator/(const Tensor& a, double b) { return div(a, beside(a, b)); }
Tensor operator+(double a, const Tensor& b) { return add(beside(b, a), b); }
Tensor operator-(double a, const Tensor& b) { return sub(beside(b, a), b); }
Tensor operator*(double a, const Tensor& b) { return mul(beside(b, a), b); }
Tensor operator/(double a, const Tensor& b) { return div(beside(b, a), b); }

Tensor equal(const Tensor& a, const Tensor& b) { return compute::compare<Equal>(a, b); }
Tensor not_equal(const Tensor& a, const Tensor& b) { return compute::compare<NotEqual>(a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return compute::compare<Less>(a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) { return compute::compare<LessEqual>(a, b); }
Tensor greater(const Tensor& a, const Tensor& b) { return compute::compare<Greater>(a, b); }
Tensor greater_equal(const Tensor& a, const Tensor& b) { return compute::compare<GreaterEqual>(a, b); }
Tensor operator<(const Tensor& a, const Tensor& b) { return less(a, b); }
Tensor operator<=(const Tensor& a, const Tensor& b) { return less_equal(a, b); }
Tensor operator>(const Tensor& a, const Tensor& b) { return greater(a, b); }
Tensor operator>=(const Tensor& a, const Tensor& b) { return greater_equal(a, b); }
Tensor operator<(const Tensor& a, double b) { return less(a, compared(a, b)); }
Tensor operator>(const Tensor& a, double b) { return greater(a, compared(a, b)); }

bool same(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype() || !(a.device() == b.device())) return false;
  if (a.numel() == 0) return true;
  return min(equal(a, b)).item() != 0;
}

}  // namespace stet
