// Initial values of parameters: PyTorch's defaults and the classical schemes. Every parameter draws from a
// generator of its own, named after its dotted path, so that adding a layer does not reshuffle the others.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <stet/nn/module.h>
#include <stet/tensor/random.h>

namespace stet::nn::init {

/// Makes the initial tensor of a shape. What the functions below return; a lambda will do as well.
using Initializer = std::function<Tensor(const Shape& shape, Generator& generator, Options options)>;

/// The generator of the part `name` of `owner`: default_generator() forked by the dotted path. It depends on
/// the default seed (manual_seed) and the path alone.
Generator generator(const Module& owner, std::string_view name);

/// What a layer writes in its constructor: `weight(this, "weight", init::draw(*this, "weight", {out, in},
/// rule))`.
Tensor draw(const Module& owner, std::string_view name, const Shape& shape, const Initializer& initializer,
            Options options = {});

/// While one lives, this thread makes parameters without values: for a model that is loaded next, whole.
class Skip {
 public:
  Skip();
  ~Skip();
  Skip(const Skip&) = delete;
  Skip& operator=(const Skip&) = delete;

 private:
  bool before_;
};

/// Initialises a parameter again, from the generator of its path: repeated calls give the same values.
void apply(Parameter& parameter, const Initializer& initializer);

/// Which number of connections sets the scale: those into a unit or those out of it.
enum class Fan { in, out };
enum class Nonlinearity { linear, sigmoid, tanh, relu, leaky_relu, selu };

struct Fans {
  std::int64_t in, out;
};
/// Fan-in and fan-out of a weight (out, in, *kernel). An Error for fewer than two axes.
Fans fans(const Shape& shape);

/// The factor that keeps a signal's variance through a nonlinearity: 1, 5/3 for tanh, sqrt 2 for ReLU,
/// sqrt(2 / (1 + slope^2)) for leaky ReLU, 3/4 for SELU (torch.nn.init.calculate_gain).
double gain(Nonlinearity nonlinearity, double slope = 0.01);

Initializer constant(double value);
Initializer zeros();
Initializer ones();
/// U(low, high).
Initializer uniform(double low, double high);
/// N(mean, deviation^2).
Initializer normal(double mean = 0, double deviation = 1);
/// N(mean, deviation^2) conditioned on low <= x <= high, by inversion. The bounds are absolute, as in
/// PyTorch.
Initializer truncated_normal(double mean = 0, double deviation = 1, double low = -2, double high = 2);

/// U(-b, b) with b = gain sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).
Initializer xavier_uniform(double gain = 1);
/// N(0, s^2) with s = gain sqrt(2 / (fan_in + fan_out)).
Initializer xavier_normal(double gain = 1);

struct KaimingOptions {
  Fan fan = Fan::in;
  Nonlinearity nonlinearity = Nonlinearity::relu;
  double slope = 0;  ///< of leaky_relu
};
/// U(-b, b) with b = gain sqrt(3 / fan) (He et al. 2015).
Initializer kaiming_uniform(KaimingOptions options = {});
/// N(0, s^2) with s = gain / sqrt(fan).
Initializer kaiming_normal(KaimingOptions options = {});

/// PyTorch's default for the weight and bias of a linear layer: U(-b, b) with b = 1 / sqrt(fan_in), which is
/// kaiming_uniform with a leaky ReLU of slope sqrt 5.
Initializer linear_default(std::int64_t fan_in);

}  // namespace stet::nn::init
