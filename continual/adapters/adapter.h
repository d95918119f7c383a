// What an adapter consists of: one piece for each place in the model, a module that is a child of the layer it adapts.
// While the adapter is active, the piece is plugged into the layer's slot or its parameters stand in for the layer's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stet/continual/stamp.h>
#include <stet/nn/layers.h>

namespace stet::continual {

class Piece : public nn::Module {
 public:
  using Settings = std::vector<std::pair<std::string_view, double>>;

  /// `name`: of the adapter; `place`: path under which the piece stands in adapter files.
  Piece(nn::Module& parent, std::string name, std::string place)
      : nn::Module(&parent, std::move(name)), place_(std::move(place)) {}

  /// Empty where the model itself is the layer.
  const std::string& place() const { return place_; }
  bool is_added() const final { return true; }
  /// What the piece's formula reads besides its parameters, by name. Of two pieces where it differs, equal parameters
  /// mean something else.
  virtual Settings settings() const { return {}; }
  /// Puts the piece into its layer, or takes it out. An Error when another adapter's is there.
  virtual void plug(bool on);
  /// Prepares a forward pass without the adapter's cost, or returns to the one that is trained.
  virtual void merge(bool) {}
  /// Writes the values of an adapted model without adapters over a state of the model. An Error when there are none.
  virtual void fold(nn::State& state) const;

 protected:
  /// Makes a copy of a parameter of the layer. The copy has its name and is read in its place while plugged in.
  void copy(nn::Parameter& original);
  void check_slot_free(bool free) const;
  /// Of what a merged weight is made of: tensors of the layer, and the piece's parameters.
  std::vector<Stamp> stamps(const std::vector<Tensor>& of_layer) const;
  /// An Error where those have been written since `before`.
  void check_unwritten(const std::vector<Stamp>& before, const std::vector<Tensor>& of_layer) const;

 private:
  struct Copy {
    nn::Parameter* original;
    std::unique_ptr<nn::Parameter> parameter;
  };
  std::string place_;
  std::vector<Copy> copies_;
};

/// The linear layer that an adapted one amounts to.
struct Merged {
  Tensor weight, bias;  ///< bias undefined where there is none
};

/// A piece in a linear layer. While merged, the layer's own weight stays as it is and the merged one is used instead.
class LinearPiece : public Piece, public nn::LinearSlot {
 public:
  LinearPiece(nn::Linear& base, std::string name, std::string place)
      : Piece(base, std::move(name), std::move(place)), base_(base) {}

  Tensor operator()(const nn::Linear& base, const Tensor& x, Activation activation) final;
  void plug(bool on) final;
  void merge(bool on) final;
  void fold(nn::State& state) const final;
  bool is_merged() const { return merged_.has_value(); }
  std::vector<const void*> plugged() const final { return {merged_ ? &*merged_ : nullptr}; }
  /// Weight (out, in) and bias (out,) of the merged layer, without history.
  virtual Merged merged() const = 0;

 protected:
  /// The adapted layer before its activation: x (..., in) -> (..., out).
  virtual Tensor adapted(const Tensor& x) = 0;
  const nn::Linear& base() const { return base_; }
  /// The copy's, where there is one; without history.
  Tensor base_bias() const { return base_.bias ? static_cast<const Tensor&>(*base_.bias).detach() : Tensor(); }

 private:
  std::vector<Tensor> tensors_of_layer() const;

  nn::Linear& base_;
  std::optional<Merged> merged_;
  std::vector<Stamp> merged_from_;
};

/// Says that no state of a model with tied embeddings holds the merged one; `hint` goes behind it.
[[noreturn]] void refuse_untied(const Piece& piece, const nn::TiedLinear& head, std::string_view hint = "");

/// A parameter of n numbers, in any shape, as a vector that broadcasts to (..., n): once for each entry of axis 0 of x,
/// (batch, 1, ..., n), since per-sample gradients, EWC's above all, need it to enter a result that has the batch.
Tensor for_each_entry(const Tensor& parameter, const Tensor& x);

/// act(y).
Tensor activate(const Tensor& y, Activation activation);

}  // namespace stet::continual
