// Features of a frozen part of a model, computed once for each example.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include <stet/continual/stamp.h>
#include <stet/nn/module.h>

namespace stet::continual {

/// A frozen prefix gives the same features in every epoch. They are kept by example until something that they depend on
/// changes: a write into a parameter or buffer (set, load, in-place operation, optimizer step), a move to another
/// device, an adapter plugged into one of the layers, taken out, or merged. A pointer from mutable_data() counts as a
/// write when it is asked for, not when it is written through.
class FeatureCache {
 public:
  using Indices = std::vector<std::int64_t>;
  /// x (n, ...) of the examples at these indices.
  using Inputs = std::function<Tensor(const Indices&)>;

  /// `forward`: x (n, ...) -> features (n, ...), each row a function of its example alone.
  FeatureCache(nn::Module& prefix, std::function<Tensor(const Tensor&)> forward)
      : FeatureCache(std::vector<nn::Module*>{&prefix}, std::move(forward)) {}
  /// The same for a prefix of several modules, such as a Transformer's embeddings and lower blocks (nn::Bert::prefix).
  FeatureCache(std::vector<nn::Module*> prefix, std::function<Tensor(const Tensor&)> forward)
      : prefix_(std::move(prefix)), forward_(std::move(forward)) {}

  /// Features (indices, ...) in the order of `indices`, which may repeat; computes those that are missing, in one pass.
  /// An Error when a parameter of the prefix is trainable, or a layer of it draws random numbers (active dropout).
  Tensor operator()(const Indices& indices, const Inputs& inputs);

  std::int64_t size() const { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t computed() const { return computed_; }  ///< examples that went through the prefix so far
  void clear() { rows_.clear(); }

 private:
  void check_frozen() const;
  void compute(const Indices& missing, const Inputs& inputs);

  /// What features depend on.
  struct Key {
    std::vector<Stamp> values;
    std::vector<const void*> plugged;
    friend bool operator==(const Key&, const Key&) = default;
  };
  Key key() const;

  std::vector<nn::Module*> prefix_;
  std::function<Tensor(const Tensor&)> forward_;
  Key key_;
  std::map<std::int64_t, Tensor> rows_;
  std::int64_t computed_ = 0;
};

}  // namespace stet::continual
