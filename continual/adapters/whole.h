// Modules that are trained whole, as a new head is beside LoRA (PEFT's modules_to_save), and biases that are trained
// beside it (PEFT's bias). Copies are trained; the originals keep their bits.
#pragma once

#include <stet/continual/adapters/adapter.h>

namespace stet::continual {

/// Every parameter of a module, in a copy; those of its children are not the module's.
class WholeModule : public Piece {
 public:
  WholeModule(nn::Module& base, std::string name, std::string place);
};

/// An embedding's table that is the output layer's as well. With `tied_place`, the head's path in adapter files, the
/// copy is read at both ends, otherwise the output goes on with the original, as in PEFT without ensure_weight_tying.
class WholeTable final : public WholeModule {
 public:
  WholeTable(nn::Embedding& base, std::string name, std::string place, nn::TiedLinear& head,
             std::optional<std::string> tied_place);
  void plug(bool on) override;
  /// An Error unless tied.
  void fold(nn::State& state) const override;
  /// Path of the output layer in adapter files; none unless tied.
  const std::optional<std::string>& tied_place() const { return tied_place_; }
  Settings settings() const override { return {{"ensure_weight_tying", tied_place_.has_value()}}; }

 private:
  nn::TiedLinear& head_;
  std::optional<std::string> tied_place_;
};

/// The output layer of tied embeddings with a weight of its own; the embedding goes on with the original.
class WholeHead final : public Piece {
 public:
  WholeHead(nn::TiedLinear& base, std::string name, std::string place);
  void plug(bool on) override;
  /// An Error: the base has one weight for both.
  void fold(nn::State& state) const override;

  nn::Parameter weight;  ///< (count, width)

 private:
  nn::TiedLinear& base_;
};

/// A module's bias, in a copy.
class BiasPiece final : public Piece {
 public:
  BiasPiece(nn::Parameter& bias, nn::Module& base, std::string name, std::string place);
};

/// The parameters of a module itself, without its children's.
std::vector<nn::Parameter*> own_parameters(const nn::Module& module);

}  // namespace stet::continual
