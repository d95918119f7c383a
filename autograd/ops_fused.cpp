// Fused operations: one pass over memory forward and backward. Where second derivatives are asked for, their
// derivatives switch to the composition of plain operations that they equal.
#include <algorithm>
#include <cmath>

#include <stet/autograd/node.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

/// The gradients of a norm. In a residual stream its input has one already, from the way around: this one is added to
/// it.
void give_norm(Backward& pass, const Tensor& g, const Tensor& x, const Tensor& weight, const Tensor& mean,
               const Tensor& rstd, bool bias) {
  const Tensor* sum = pass.needs(0) ? pass.sum_so_far(0) : nullptr;
  auto [dx, dw, db] = compute::norm_grad(g, x, weight, mean, rstd, {pass.needs(0), pass.needs(1), bias}, sum);
  if (dx.defined()) pass.give(0, std::move(dx));
  if (dw.defined()) pass.give(1, std::move(dw));
  if (db.defined()) pass.give(2, std::move(db));
}

struct LayerNormDerivative {
  static constexpr std::string_view name = "layer_norm";
  Saved x, weight;
  Tensor mean, rstd;  // (rows,)
  double eps;

  Tensor normalized(const Tensor& in) const {
    Shape shape = in.shape();
    shape[shape.size() - 1] = 1;
    return (in - reshape(mean, shape)) * reshape(rstd, shape);
  }
  void operator()(Backward& pass) const {
    const Tensor &g = pass.grad(), &in = pass.get(x);
    const Tensor w = weight.defined() ? pass.get(weight) : Tensor();
    if (grad_enabled()) return composed(pass, g, in, w);
    give_norm(pass, g, in, w, mean, rstd, pass.needs(2));
  }
  /// dx = rstd (gw - mean(gw) - xhat mean(gw xhat)) as a function of x, so that it can be differentiated
  /// again.
  void composed(Backward& pass, const Tensor& g, const Tensor& in, const Tensor& w) const {
    const Tensor centred = in - stet::mean(in, {-1}, true);
    const Tensor scale = rsqrt(stet::mean(square(centred), {-1}, true) + eps), xhat = centred * scale;
    if (pass.needs(0)) {
      const Tensor gw = w.defined() ? g * w : g;
      pass.give(0, scale * (gw - stet::mean(gw, {-1}, true) - xhat * stet::mean(gw * xhat, {-1}, true)));
    }
    if (pass.needs(1)) pass.give(1, sum_to(g * xhat, {in.shape().back()}));
    if (pass.needs(2)) pass.give(2, sum_to(g, {in.shape().back()}));
  }
  Tensor per_sample(int input, const Shape&, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    if (input == 0) return {};
    const Tensor mine = slice(input == 1 ? g * normalized(x.get(name)) : g, 0, begin, end);
    return sum(reshape(mine, {end - begin, positions(g), g.shape().back()}), {1});
  }
};

struct RmsNormDerivative {
  static constexpr std::string_view name = "rms_norm";
  Saved x, weight;
  Tensor rstd;  // (rows,)
  double eps;

  Tensor normalized(const Tensor& in) const {
    Shape shape = in.shape();
    shape[shape.size() - 1] = 1;
    return in * reshape(rstd, shape);
  }
  void operator()(Backward& pass) const {
    const Tensor &g = pass.grad(), &in = pass.get(x);
    const Tensor w = weight.defined() ? pass.get(weight) : Tensor();
    if (grad_enabled()) return composed(pass, g, in, w);
    give_norm(pass, g, in, w, {}, rstd, false);
  }
  /// dx = rstd (gw - xhat mean(gw xhat)) as a function of x, so that it can be differentiated again.
  void composed(Backward& pass, const Tensor& g, const Tensor& in, const Tensor& w) const {
    const Tensor scale = rsqrt(mean(square(in), {-1}, true) + eps), xhat = in * scale;
    if (pass.needs(0)) {
      const Tensor gw = w.defined() ? g * w : g;
      pass.give(0, scale * (gw - xhat * mean(gw * xhat, {-1}, true)));
    }
    if (pass.needs(1)) pass.give(1, sum_to(g * xhat, {in.shape().back()}));
  }
  Tensor per_sample(int input, const Shape&, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    if (input == 0) return {};
    const Tensor mine = slice(g * normalized(x.get(name)), 0, begin, end);
    return sum(reshape(mine, {end - begin, positions(g), g.shape().back()}), {1});
  }
};

struct CrossEntropyDerivative {
  static constexpr std::string_view name = "cross_entropy";
  Saved logits, labels, weight;
  Tensor row_sums;              // (2, rows): lse - max x, max x
  CrossEntropyOptions options;  // its weight is `weight`

  void operator()(Backward& pass) const {
    const Tensor &g = pass.grad(), &x = pass.get(logits), &target = pass.get(labels);
    if (weight.defined()) pass.get(weight);
    if (grad_enabled()) return pass.give(0, composed(g, x, target));
    const Tensor in = compute::contiguous(x), seed = compute::contiguous(g);
    Tensor out = empty(x.shape(), x.options());
    Rows job = rows(in, target, options);
    job.in[3] = row_sums.raw();
    job.in[4] = seed.raw();
    job.out[0] = out.raw_mutable();
    if (job.rows) kernels(x.device()).cross_entropy_grad(job);
    pass.give(0, out);
  }

  /// g [(1 - s) w_t (p - e_t) + s / n (W p - w)] with 0 for ignored rows.
  Tensor composed(const Tensor& g, const Tensor& x, const Tensor& target) const {
    const std::int64_t n = x.shape().back();
    const Tensor kept = cast(not_equal(target, whole_number(options.ignore_index)), x.dtype());
    const Tensor hit = one_hot(where(kept > 0.0, target, whole_number(0)), n, x.dtype());
    const Tensor w = options.weight.defined() ? options.weight : ones({n}, x.options());
    const Tensor w_target = sum(hit * w, {-1}, true), p = softmax(x);
    const double s = options.label_smoothing;
    const Tensor d = w_target * (p - hit) * (1 - s) + (sum(w) * p - w) * (s / static_cast<double>(n));
    return d * unsqueeze(g * kept, -1);
  }

  static Rows rows(const Tensor& x, const Tensor& target, const CrossEntropyOptions& options) {
    Rows job{};
    job.dtype = x.dtype();
    job.n = x.shape().back();
    job.rows = target.numel();
    job.in[0] = x.raw();
    job.in[1] = target.raw();
    job.in[2] = options.weight.defined() ? options.weight.raw() : nullptr;
    job.scalar[0] = options.label_smoothing;
    job.ignore = options.ignore_index;
    return job;
  }
};

void check_targets(const Tensor& target, std::int64_t classes, std::int64_t ignore) {
  if (target.device() != Device::cpu()) return;  // a device checks on its own side
  const auto* at = static_cast<const std::int64_t*>(target.raw());
  for (std::int64_t i = 0; i < target.numel(); ++i)
    check((at[i] >= 0 && at[i] < classes) || at[i] == ignore, "cross_entropy", "target ", at[i], " at position ", i,
          " is out of range for ", classes, " classes");
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check(x.rank() >= 1, "layer_norm", "needs at least one axis, got shape ", x.shape());
  const Shape row{x.shape().back()};
  for (const Tensor* t : {&weight, &bias})
    check(!t->defined() || (t->shape() == row && t->dtype() == x.dtype()), "layer_norm", "weight or bias ",
          t->defined() ? t->dtype() : x.dtype(), " ", t->defined() ? t->shape() : row, " for x ", x.dtype(), " ",
          x.shape());
  for (const Tensor* t : {&weight, &bias})
    if (t->defined()) compute::check_same_device("layer_norm", x, *t);
  check(eps >= 0, "layer_norm", "eps ", eps, ": expected 0 or more");
  const bool keep = records({&x, &weight, &bias});
  const Tensor w = weight.defined() ? compute::contiguous(weight) : weight;
  const Tensor b = bias.defined() ? compute::contiguous(bias) : bias;
  auto [y, mean, rstd] = compute::layer_norm(x, w, b, eps, keep);
  return record(std::move(y), {&x, &weight, &bias}, [&, m = mean, r = rstd] {
    return LayerNormDerivative{Saved(x, 0), Saved(weight, 1), m, r, eps};
  });
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check(x.rank() >= 1, "rms_norm", "needs at least one axis, got shape ", x.shape());
  if (weight.defined()) {
    check(weight.shape() == Shape{x.shape().back()} && weight.dtype() == x.dtype(), "rms_norm", "weight ",
          weight.dtype(), " ", weight.shape(), " for x ", x.dtype(), " ", x.shape());
    compute::check_same_device("rms_norm", x, weight);
  }
  check(eps >= 0, "rms_norm", "eps ", eps, ": expected 0 or more");
  auto [y, rstd] = compute::rms_norm(x, weight, eps, records({&x, &weight}));
  return record(std::move(y), {&x, &weight}, [&, r = rstd] {
    return RmsNormDerivative{Saved(x, 0), Saved(weight, 1), r, eps};
  });
}

Tensor cross_entropy_rows(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options) {
  constexpr std::string_view op = "cross_entropy";
  check(logits.rank() >= 1 && (logits.dtype() == DType::f32 || logits.dtype() == DType::f64), op, "logits ",
        logits.dtype(), " ", logits.shape(), ": expected f32 or f64 (..., classes)");
  Shape expected(logits.rank() - 1);
  std::copy(logits.shape().begin(), logits.shape().end() - 1, expected.begin());
  check(target.shape() == expected, op, "target ", target.shape(), " for logits ", logits.shape(), ": expected ",
        expected);
  check(target.dtype() == DType::i64, op, "target holds ", target.dtype(), ", expected i64");
  compute::check_same_device(op, logits, target);
  const std::int64_t classes = logits.shape().back();
  check(!options.weight.defined() ||
            (options.weight.shape() == Shape{classes} && options.weight.dtype() == logits.dtype()),
        op, "weight ", options.weight.defined() ? options.weight.shape() : Shape{}, " for ", classes, " classes");
  check(options.label_smoothing >= 0 && options.label_smoothing <= 1, op, "label smoothing ", options.label_smoothing,
        ": expected 0 to 1");
  const Tensor x = compute::contiguous(logits), at = compute::contiguous(target);
  CrossEntropyOptions kept = options;
  if (kept.weight.defined()) {
    compute::check_same_device(op, logits, kept.weight);
    kept.weight = compute::contiguous(kept.weight);
  }
  check_targets(at, classes, options.ignore_index);
  Tensor loss = empty(expected, logits.options()), row_sums = empty({2, target.numel()}, logits.options());
  Rows job = CrossEntropyDerivative::rows(x, at, kept);
  job.out[0] = loss.raw_mutable();
  job.out[1] = row_sums.raw_mutable();
  if (job.rows) kernels(logits.device()).cross_entropy(job);
  return record(std::move(loss), {&logits, &at}, [&] {
    return CrossEntropyDerivative{Saved(logits, 0), Saved(at, 1), Saved(kept.weight, 2), row_sums, kept};
  });
}

Tensor rand(const Shape& shape, Generator& generator, Options options) {
  return uniform(shape, 0, 1, generator, options);
}
Tensor randn(const Shape& shape, Generator& generator, Options options) {
  return normal(shape, 0, 1, generator, options);
}

namespace {

/// The largest number of that dtype below `high`; `low` in that dtype where nothing lies between.
double largest_below(DType dtype, double low, double high) {
  if (dtype == DType::f64) return std::nextafter(high, low);
  if (dtype == DType::f32) return std::nextafter(static_cast<float>(high), static_cast<float>(low));
  BFloat16 at(static_cast<float>(high));
  const auto value = [](BFloat16 x) { return static_cast<double>(static_cast<float>(x)); };
  if (value(at) >= high) {  // one step down; below either zero comes the first that is not flushed to it
    const bool zero = (at.bits & 0x7fffu) == 0, negative = (at.bits & 0x8000u) != 0;
    at.bits = static_cast<std::uint16_t>(zero ? 0x8080u : negative ? at.bits + 1u : at.bits - 1u);
  }
  return std::max(value(at), value(BFloat16(static_cast<float>(low))));
}

Tensor draw_floating(std::string_view op, Draw draw, const Shape& shape, double a, double b, Generator& generator,
                     Options options) {
  check(is_floating(options.dtype) || draw == Draw::bernoulli, op, "needs a floating dtype, got ", options.dtype);
  const double below = draw == Draw::uniform ? largest_below(options.dtype, a, b) : HUGE_VAL;
  if (options.dtype != DType::bf16) return compute::random(draw, shape, generator, options, a, b, 0, 0, below);
  const Options wide{DType::f32, options.device};
  return cast(compute::random(draw, shape, generator, wide, a, b, 0, 0, below), DType::bf16);
}

}  // namespace

Tensor uniform(const Shape& shape, double low, double high, Generator& generator, Options options) {
  check(low <= high, "uniform", "low ", low, " is above high ", high);
  return draw_floating("uniform", Draw::uniform, shape, low, high, generator, options);
}
Tensor normal(const Shape& shape, double mean, double deviation, Generator& generator, Options options) {
  check(deviation >= 0, "normal", "deviation ", deviation, ": expected 0 or more");
  return draw_floating("normal", Draw::normal, shape, mean, deviation, generator, options);
}
Tensor bernoulli(const Shape& shape, double p, Generator& generator, Options options) {
  check(p >= 0 && p <= 1, "bernoulli", "p ", p, ": expected 0 to 1");
  return draw_floating("bernoulli", Draw::bernoulli, shape, p, 0, generator, options);
}
Tensor randint(const Shape& shape, std::int64_t low, std::int64_t high, Generator& generator, Options options) {
  check(low < high, "randint", "low ", low, " is not below high ", high);
  check(!is_floating(options.dtype), "randint", "needs an integer dtype, got ", options.dtype);
  check(holds_whole(options.dtype, low) && holds_whole(options.dtype, high - 1), "randint", low, " to ", high - 1, ": ",
        options.dtype, " does not hold these");
  return compute::random(Draw::randint, shape, generator, options, 0, 0, low, high);
}

Tensor randperm(std::int64_t n, Generator& generator) {
  check(n >= 0, "randperm", "of ", n, " elements");
  const auto order = permutation(generator, n);
  return tensor(order);
}

}  // namespace stet
