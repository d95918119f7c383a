// The basic layers: what they hold and how they start. The arithmetic is autograd's.
#include <stet/nn/layers.h>

#include <bit>

#include <stet/nn/init.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

Tensor value_or_nothing(const std::optional<Parameter>& parameter) { return parameter ? *parameter : Tensor(); }

Tensor linear_weight(const Module& owner, std::int64_t in, std::int64_t out) {
  check(in >= 0 && out >= 0, "Linear", "'", owner.path(), "' from ", in, " to ", out, " features");
  return init::draw(owner, "weight", {out, in}, init::linear_default(in));
}

Tensor linear_bias(const Module& owner, std::int64_t in, std::int64_t out) {
  return init::draw(owner, "bias", {out}, init::linear_default(in));
}

Tensor embedding_weight(const Module& owner, std::int64_t count, std::int64_t width) {
  check(count >= 0 && width >= 0, "Embedding", "'", owner.path(), "' of ", count, " vectors of ", width);
  return init::draw(owner, "weight", {count, width}, init::normal());
}

Tensor as_tensor(GeneratorState state) {
  const DefaultDevice host(Device::cpu());
  return tensor<std::int64_t>({std::bit_cast<std::int64_t>(state.seed), std::bit_cast<std::int64_t>(state.draw)});
}

double checked_probability(const Module& owner, double p) {
  check(p >= 0 && p <= 1, "Dropout", "'", owner.path(), "' with p ", p, ": expected 0 to 1");
  return p;
}

}  // namespace

Linear::Linear(Module* parent, std::string name, std::int64_t in, std::int64_t out, LinearOptions options)
    : Module(parent, std::move(name)), weight(this, "weight", linear_weight(*this, in, out)) {
  if (options.bias) bias.emplace(this, "bias", linear_bias(*this, in, out));
}

Linear::Linear(std::int64_t in, std::int64_t out, LinearOptions options)
    : weight(this, "weight", linear_weight(*this, in, out)) {
  if (options.bias) bias.emplace(this, "bias", linear_bias(*this, in, out));
}

Tensor Linear::plain(const Tensor& x, Activation activation) const {
  return linear(x, weight, value_or_nothing(bias), activation);
}

Embedding::Embedding(Module* parent, std::string name, std::int64_t count, std::int64_t width)
    : Module(parent, std::move(name)), weight(this, "weight", embedding_weight(*this, count, width)) {}

Embedding::Embedding(std::int64_t count, std::int64_t width)
    : weight(this, "weight", embedding_weight(*this, count, width)) {}

LayerNorm::LayerNorm(Module* parent, std::string name, std::int64_t width, LayerNormOptions options)
    : Module(parent, std::move(name)), width_(width), options_(options) {
  make_affine();
}

LayerNorm::LayerNorm(std::int64_t width, LayerNormOptions options) : width_(width), options_(options) { make_affine(); }

void LayerNorm::make_affine() {
  check(width_ >= 1, "LayerNorm", "'", path(), "' over ", width_, " features");
  check(options_.eps >= 0, "LayerNorm", "eps ", options_.eps, ": expected 0 or more");
  if (!options_.affine) return;
  weight.emplace(this, "weight", ones({width_}));
  bias.emplace(this, "bias", zeros({width_}));
}

Tensor LayerNorm::operator()(const Tensor& x) const {
  check(x.rank() >= 1 && x.shape().back() == width_, "LayerNorm", "'", path(), "' got ", x.shape(),
        ": the last axis must be ", width_);
  return layer_norm(x, value_or_nothing(weight), value_or_nothing(bias), options_.eps);
}

RMSNorm::RMSNorm(Module* parent, std::string name, std::int64_t width, RMSNormOptions options)
    : Module(parent, std::move(name)), width_(width), options_(options) {
  make_affine();
}

RMSNorm::RMSNorm(std::int64_t width, RMSNormOptions options) : width_(width), options_(options) { make_affine(); }

void RMSNorm::make_affine() {
  check(width_ >= 1, "RMSNorm", "'", path(), "' over ", width_, " features");
  check(options_.eps >= 0, "RMSNorm", "eps ", options_.eps, ": expected 0 or more");
  if (options_.affine) weight.emplace(this, "weight", ones({width_}));
}

Tensor RMSNorm::operator()(const Tensor& x) const {
  check(x.rank() >= 1 && x.shape().back() == width_, "RMSNorm", "'", path(), "' got ", x.shape(),
        ": the last axis must be ", width_);
  return rms_norm(x, value_or_nothing(weight), options_.eps);
}

Dropout::Dropout(Module* parent, std::string name, double p)
    : Module(parent, std::move(name)),
      generator(this, "generator", as_tensor(init::generator(*this, "generator").state())),
      p_(checked_probability(*this, p)) {}

Dropout::Dropout(double p)
    : generator(this, "generator", as_tensor(init::generator(*this, "generator").state())),
      p_(checked_probability(*this, p)) {}

Tensor Dropout::operator()(const Tensor& x) {
  if (!is_training() || p_ == 0) return x;
  const auto state = [this] { return generator.value().mutable_data<std::int64_t>(); };
  each_replay(x.device(), [=, this] {
    draws_.set_state({std::bit_cast<std::uint64_t>(state()[0]), std::bit_cast<std::uint64_t>(state()[1])});
  });
  const Tensor kept = bernoulli(x.shape(), 1 - p_, draws_, x.options());
  each_replay(x.device(), [=, this] { state()[1] = std::bit_cast<std::int64_t>(draws_.state().draw); });
  return p_ == 1 ? x * kept : x * (kept * (1 / (1 - p_)));
}

Mlp::Mlp(const std::vector<std::int64_t>& sizes, MlpOptions options) : options_(options) { make_layers(sizes); }

Mlp::Mlp(Module* parent, std::string name, const std::vector<std::int64_t>& sizes, MlpOptions options)
    : Module(parent, std::move(name)), options_(options) {
  make_layers(sizes);
}

void Mlp::make_layers(const std::vector<std::int64_t>& sizes) {
  check(sizes.size() >= 2, "Mlp", sizes.size(), " sizes: expected at least inputs and outputs");
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i)
    layers_.push_back(std::make_unique<Linear>(this, "fc" + std::to_string(i + 1), sizes[i], sizes[i + 1],
                                               LinearOptions{.bias = options_.bias}));
}

Tensor Mlp::operator()(const Tensor& x) const {
  Tensor h = x;
  for (std::size_t i = 0; i < layers_.size(); ++i)
    h = (*layers_[i])(h, i + 1 < layers_.size() ? options_.activation : Activation::none);
  return h;
}

Tensor Sequential::operator()(const Tensor& x) const {
  Tensor h = x;
  for (const Function& call : calls_) h = call(h);
  return h;
}

}  // namespace stet::nn
