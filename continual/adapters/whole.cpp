// A copy in the layer's place.
#include <stet/continual/adapters/whole.h>

namespace stet::continual {

WholeLayer::WholeLayer(nn::Linear& base, std::string name, std::string place)
    : LinearPiece(base, std::move(name), std::move(place)),
      weight(this, "weight", base.weight.value().detach().clone()) {
  if (base.bias) bias.emplace(this, "bias", base.bias->value().detach().clone());
}

Tensor WholeLayer::adapted(const Tensor& x) { return linear(x, weight, bias ? bias->value() : Tensor()); }

Merged WholeLayer::merged() const {
  return {weight.value().detach().clone(), bias ? bias->value().detach() : Tensor()};
}

}  // namespace stet::continual
