// Initialisers: closures over the scheme's constants; the random numbers are those of tensor/random.h.
#include <stet/nn/init.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <stet/tensor/error.h>

namespace stet::nn::init {
namespace {

double fan_of(const Shape& shape, Fan fan) {
  const Fans both = fans(shape);
  return static_cast<double>(fan == Fan::in ? both.in : both.out);
}

/// numerator / fan, and 0 for a weight without connections.
double share(double numerator, double fan) { return fan > 0 ? numerator / fan : 0; }

double normal_cdf(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

/// Inverse of the normal distribution function: Abramowitz & Stegun 26.2.23 (error 4.5e-4), then two steps of
/// Halley's method, which cubes the error each time.
double normal_quantile(double p) {
  const double tail = std::min(p, 1 - p);
  const double t = std::sqrt(-2 * std::log(tail));
  const double numerator = 2.515517 + t * (0.802853 + t * 0.010328);
  double z = t - numerator / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  for (int i = 0; i < 2; ++i) {  // on the upper tail, where erfc loses no digits
    const double excess = tail - std::erfc(z / std::numbers::sqrt2) / 2;
    const double step = excess * std::sqrt(2 * std::numbers::pi) * std::exp(z * z / 2);
    z -= step / (1 + z * step / 2);
  }
  return p < 0.5 ? -z : z;
}

/// Truncation far above the mean is done below it, mirrored: there the distribution function keeps its
/// digits.
double truncated_quantile(double low, double high, double u) {
  if (low > 0) return -truncated_quantile(-high, -low, 1 - u);
  const double bottom = normal_cdf(low), top = normal_cdf(high);
  const double p = bottom + u * (top - bottom);
  if (!(p > 0)) return low;
  return p < 1 ? std::clamp(normal_quantile(p), low, high) : high;
}

thread_local bool skipping = false;

}  // namespace

Skip::Skip() : before_(skipping) { skipping = true; }
Skip::~Skip() { skipping = before_; }

Generator generator(const Module& owner, std::string_view name) {
  const std::string path = owner.path();
  return default_generator().fork(path.empty() ? std::string(name) : path + "." + std::string(name));
}

Tensor draw(const Module& owner, std::string_view name, const Shape& shape, const Initializer& initializer,
            Options options) {
  if (skipping) return empty(shape, options);
  Generator own = generator(owner, name);
  return initializer(shape, own, options);
}

void apply(Parameter& parameter, const Initializer& initializer) {
  if (skipping) return;
  Generator own = default_generator().fork(parameter.path());
  parameter.set(initializer(parameter.shape(), own, parameter.value().options()));
}

Fans fans(const Shape& shape) {
  check(shape.size() >= 2, "init", "fan-in and fan-out need a weight (out, in, ...), got shape ", shape);
  std::int64_t field = 1;
  for (int i = 2; i < shape.size(); ++i) field *= shape[i];
  return {shape[1] * field, shape[0] * field};
}

double gain(Nonlinearity nonlinearity, double slope) {
  switch (nonlinearity) {
    case Nonlinearity::linear:
    case Nonlinearity::sigmoid: return 1;
    case Nonlinearity::tanh: return 5.0 / 3;
    case Nonlinearity::relu: return std::numbers::sqrt2;
    case Nonlinearity::leaky_relu: return std::sqrt(2 / (1 + slope * slope));
    case Nonlinearity::selu: return 0.75;
  }
  fail("init", "unknown nonlinearity ", static_cast<int>(nonlinearity));
}

Initializer constant(double value) {
  return [=](const Shape& shape, Generator&, Options options) { return full(shape, value, options); };
}
Initializer zeros() { return constant(0); }
Initializer ones() { return constant(1); }

Initializer uniform(double low, double high) {
  return [=](const Shape& shape, Generator& g, Options options) { return stet::uniform(shape, low, high, g, options); };
}

Initializer normal(double mean, double deviation) {
  return [=](const Shape& shape, Generator& g, Options options) {
    return stet::normal(shape, mean, deviation, g, options);
  };
}

Initializer truncated_normal(double mean, double deviation, double low, double high) {
  check(deviation > 0 && low < high, "truncated_normal", "deviation ", deviation, " in [", low, ", ", high,
        "]: expected a positive deviation and low < high");
  return [=](const Shape& shape, Generator& g, Options options) {
    const RandomKey key = g.next();
    const double from = (low - mean) / deviation, to = (high - mean) / deviation;
    std::vector<double> values(static_cast<std::size_t>(count_elements("truncated_normal", shape)));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double u = stet::uniform<double>(key, i) + 0x1p-54;  // never 0
      values[i] = std::clamp(mean + deviation * truncated_quantile(from, to, u), low, high);
    }
    const Tensor out = empty(shape, options);
    out.copy_(tensor(values, shape));
    return out;
  };
}

Initializer xavier_uniform(double factor) {
  return [=](const Shape& shape, Generator& g, Options options) {
    const Fans both = fans(shape);
    const double bound = factor * std::sqrt(share(6, static_cast<double>(both.in + both.out)));
    return stet::uniform(shape, -bound, bound, g, options);
  };
}

Initializer xavier_normal(double factor) {
  return [=](const Shape& shape, Generator& g, Options options) {
    const Fans both = fans(shape);
    const double deviation = factor * std::sqrt(share(2, static_cast<double>(both.in + both.out)));
    return stet::normal(shape, 0, deviation, g, options);
  };
}

Initializer kaiming_uniform(KaimingOptions o) {
  return [=](const Shape& shape, Generator& g, Options options) {
    const double bound = gain(o.nonlinearity, o.slope) * std::sqrt(share(3, fan_of(shape, o.fan)));
    return stet::uniform(shape, -bound, bound, g, options);
  };
}

Initializer kaiming_normal(KaimingOptions o) {
  return [=](const Shape& shape, Generator& g, Options options) {
    const double deviation = gain(o.nonlinearity, o.slope) * std::sqrt(share(1, fan_of(shape, o.fan)));
    return stet::normal(shape, 0, deviation, g, options);
  };
}

Initializer linear_default(std::int64_t fan_in) {
  const double bound = std::sqrt(share(1, static_cast<double>(fan_in)));
  return uniform(-bound, bound);
}

}  // namespace stet::nn::init
