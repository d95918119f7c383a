// A layer that is trained whole, as a new head is beside LoRA: PEFT's modules_to_save.
#pragma once

#include <stet/continual/adapters/adapter.h>

namespace stet::continual {

/// y = x W'^T + b', where W' and b' start as copies of the layer's own, which keep their bits.
class WholeLayer final : public LinearPiece {
 public:
  WholeLayer(nn::Linear& base, std::string name, std::string place);
  Merged merged() const override;

  nn::Parameter weight;               ///< (out, in)
  std::optional<nn::Parameter> bias;  ///< (out,)

 protected:
  Tensor adapted(const Tensor& x) override;
};

}  // namespace stet::continual
