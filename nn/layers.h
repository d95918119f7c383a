// The basic layers. A layer is a Module that is called like a function; as a child it takes its parent and
// its name first, as a root it takes neither: `nn::Linear fc1{this, "fc1", 784, 256}`, `nn::Linear alone{784,
// 256}`.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <stet/nn/module.h>

namespace stet::nn {

struct LinearOptions {
  bool bias = true;
};

class Linear;

/// What stands in for a linear layer while it is plugged in: adapters (continual/adapters/) implement it.
struct LinearSlot {
  virtual ~LinearSlot() = default;
  /// x (..., in) -> (..., out); `base.plain` is the layer without its slot.
  virtual Tensor operator()(const Linear& base, const Tensor& x, Activation activation) = 0;
};

/// y = act(x W^T + b). Weight and bias start as U(-1/sqrt(in), 1/sqrt(in)), PyTorch's default.
class Linear : public Module {
 public:
  Linear(Module* parent, std::string name, std::int64_t in, std::int64_t out, LinearOptions options = {});
  Linear(std::int64_t in, std::int64_t out, LinearOptions options = {});

  /// x (..., in) -> (..., out). The activation is applied while the product's tile is in cache.
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const {
    return slot ? (*slot)(*this, x, activation) : plain(x, activation);
  }
  Tensor plain(const Tensor& x, Activation activation = Activation::none) const;
  std::int64_t in() const { return weight.shape()[1]; }
  std::int64_t out() const { return weight.shape()[0]; }
  std::vector<const void*> plugged() const override { return {slot}; }

  Parameter weight;               ///< (out, in)
  std::optional<Parameter> bias;  ///< (out,)
  LinearSlot* slot = nullptr;     ///< not owned
};

class Embedding;

/// The same for an embedding.
struct EmbeddingSlot {
  virtual ~EmbeddingSlot() = default;
  /// index (...) -> (..., width).
  virtual Tensor operator()(const Embedding& base, const Tensor& index) = 0;
};

/// A table of vectors, looked up by index. Starts as N(0, 1), PyTorch's default.
class Embedding : public Module {
 public:
  Embedding(Module* parent, std::string name, std::int64_t count, std::int64_t width);
  Embedding(std::int64_t count, std::int64_t width);

  /// index (...) i64 -> (..., width).
  Tensor operator()(const Tensor& index) const { return slot ? (*slot)(*this, index) : plain(index); }
  Tensor plain(const Tensor& index) const { return embedding(weight, index); }
  std::int64_t count() const { return weight.shape()[0]; }
  std::int64_t width() const { return weight.shape()[1]; }
  std::vector<const void*> plugged() const override { return {slot}; }

  Parameter weight;               ///< (count, width)
  EmbeddingSlot* slot = nullptr;  ///< not owned
};

/// y = x W^T, W an embedding's table: the output layer of a language model with tied embeddings. Has no parameters.
class TiedLinear : public Module {
 public:
  TiedLinear(Module* parent, std::string name, Embedding& table) : Module(parent, std::move(name)), table_(table) {}

  /// x (..., width) -> (..., count).
  Tensor operator()(const Tensor& x) const { return linear(x, stand_in ? stand_in->value() : table_.weight.value()); }
  Embedding& table() const { return table_; }
  std::vector<const void*> plugged() const override { return {stand_in}; }

  const Parameter* stand_in = nullptr;  ///< (count, width), read in place of the table; not owned

 private:
  Embedding& table_;
};

struct LayerNormOptions {
  double eps = 1e-5;
  bool affine = true;  ///< learn a weight (starts at 1) and a bias (starts at 0)
};

/// (x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba, Kiros & Hinton 2016).
class LayerNorm : public Module {
 public:
  LayerNorm(Module* parent, std::string name, std::int64_t width, LayerNormOptions options = {});
  explicit LayerNorm(std::int64_t width, LayerNormOptions options = {});

  /// x (..., width) -> the same shape.
  Tensor operator()(const Tensor& x) const;

  std::optional<Parameter> weight, bias;  ///< (width,)

 private:
  void make_affine();
  std::int64_t width_;
  LayerNormOptions options_;
};

struct RMSNormOptions {
  double eps = 1e-6;
  bool affine = true;  ///< learn a weight (starts at 1)
};

/// x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019).
class RMSNorm : public Module {
 public:
  RMSNorm(Module* parent, std::string name, std::int64_t width, RMSNormOptions options = {});
  explicit RMSNorm(std::int64_t width, RMSNormOptions options = {});

  /// x (..., width) -> the same shape.
  Tensor operator()(const Tensor& x) const;

  std::optional<Parameter> weight;  ///< (width,)

 private:
  void make_affine();
  std::int64_t width_;
  RMSNormOptions options_;
};

/// Sets elements to zero with probability p (0 to 1, else an Error) and scales the others by 1 / (1 - p) (Srivastava et
/// al. 2014). Passes its input on in evaluation mode. The random stream is the layer's own and is saved with the model.
class Dropout : public Module {
 public:
  Dropout(Module* parent, std::string name, double p = 0.5);
  explicit Dropout(double p = 0.5);

  Tensor operator()(const Tensor& x);
  double p() const { return p_; }

  Buffer generator;  ///< (2,) i64: seed and number of draws made so far

 private:
  Generator draws_;
  double p_;
};

struct MlpOptions {
  Activation activation = Activation::relu;  ///< after every layer but the last
  bool bias = true;
};

/// Linear layers "fc1", "fc2", ... with an activation between them.
class Mlp : public Module {
 public:
  /// sizes {784, 256, 10}: 784 inputs, 256 hidden units, 10 outputs.
  explicit Mlp(const std::vector<std::int64_t>& sizes, MlpOptions options = {});
  Mlp(Module* parent, std::string name, const std::vector<std::int64_t>& sizes, MlpOptions options = {});

  /// x (..., sizes.front()) -> (..., sizes.back()).
  Tensor operator()(const Tensor& x) const;
  std::size_t size() const { return layers_.size(); }
  Linear& layer(std::size_t i) const { return *layers_.at(i); }

 private:
  void make_layers(const std::vector<std::int64_t>& sizes);
  MlpOptions options_;
  std::vector<std::unique_ptr<Linear>> layers_;
};

/// Owns layers and calls them one after another:
/// `model.add<nn::Linear>("fc1", 784, 256); model.add(relu); model.add<nn::Linear>("fc2", 256, 10);`
class Sequential : public Module {
 public:
  using Function = std::function<Tensor(const Tensor&)>;

  Sequential() = default;
  Sequential(Module* parent, std::string name) : Module(parent, std::move(name)) {}

  /// Constructs Layer(this, name, arguments...) and returns it.
  template <class Layer, class... Arguments> Layer& add(std::string name, Arguments&&... arguments) {
    auto layer = std::make_unique<Layer>(this, std::move(name), std::forward<Arguments>(arguments)...);
    Layer& added = *layer;
    owned_.push_back(std::move(layer));
    calls_.emplace_back([&added](const Tensor& x) { return added(x); });
    return added;
  }
  /// A step without parameters.
  void add(Function function) { calls_.push_back(std::move(function)); }

  Tensor operator()(const Tensor& x) const;
  std::size_t size() const { return calls_.size(); }

 private:
  std::vector<std::unique_ptr<Module>> owned_;
  std::vector<Function> calls_;
};

}  // namespace stet::nn
