// Bottleneck adapters: a small MLP beside or behind the sublayers of a Transformer block.
#pragma once

#include <stet/continual/adapters/adapter.h>
#include <stet/nn/transformer.h>

namespace stet::continual {

enum class Bottleneck {
  houlsby,   ///< behind attention and behind the MLP (Houlsby et al. 2019)
  pfeiffer,  ///< behind the MLP alone (Pfeiffer et al. 2021)
  parallel,  ///< beside the MLP: of its input, added to its output (He et al. 2022)
};

struct BottleneckOptions {
  Bottleneck placement = Bottleneck::pfeiffer;
  std::vector<std::string> targets = {"*"};  ///< globs over paths of Transformer blocks
  std::int64_t width = 16;                   ///< of the bottleneck
  Activation activation = Activation::relu;
  double scale = 1;  ///< of what is added; He et al. use 4 for parallel
};

/// y + s (act(z D^T + d) U^T + u), z the sublayer's output, or its input if parallel. U and u start as 0, so that the
/// model is unchanged at first (He et al. 2022).
class BottleneckPiece final : public Piece, public nn::SublayerSlot {
 public:
  BottleneckPiece(nn::TransformerBlock& block, std::string name, std::string place, bool behind_attention,
                  const BottleneckOptions& options);
  Tensor operator()(const Tensor& x, const Tensor& y) override;
  void plug(bool on) override;
  /// An Error, as fold(): no block without the adapter computes the same.
  void merge(bool on) override;
  void fold(nn::State& state) const override;
  Settings settings() const override;

 private:
  [[noreturn]] void refuse() const;

  nn::TransformerBlock& block_;
  nn::SublayerSlot*& slot_;
  BottleneckOptions options_;
  nn::Linear down_, up_;
};

}  // namespace stet::continual
