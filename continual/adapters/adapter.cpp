// Slots, and the merged weight with a guard against writes that it does not know of.
#include <stet/continual/adapters/adapter.h>

#include <stet/tensor/error.h>

namespace stet::continual {

Tensor activate(const Tensor& y, Activation activation) {
  switch (activation) {
    case Activation::none: return y;
    case Activation::relu: return relu(y);
    case Activation::gelu: return gelu(y);
    case Activation::tanh: return tanh(y);
    case Activation::sigmoid: return sigmoid(y);
  }
  fail("activate", "unknown activation ", static_cast<int>(activation));
}

Tensor LinearPiece::operator()(const nn::Linear&, const Tensor& x, Activation activation) {
  if (!merged_) return activate(adapted(x), activation);
  check(stamps() == merged_from_, "merge", "'", path(), "': base or adapter was written while merged; unmerge first");
  return linear(x, merged_->weight, merged_->bias, activation);
}

void LinearPiece::plug(bool on) {
  if (!parent()) return;  // the layer is gone
  check(!on || !base_.slot, "activate", "'", path(), "': the slot of '", base_.path(), "' is taken by another adapter");
  if (on) base_.slot = this;
  else if (base_.slot == this) base_.slot = nullptr;
}

void LinearPiece::merge(bool on) {
  merged_.reset();
  merged_from_.clear();
  if (!on) return;
  merged_ = merged();
  merged_from_ = stamps();
}

std::vector<Stamp> LinearPiece::stamps() const {
  std::vector<Stamp> all{Stamp(base_.weight)};
  if (base_.bias) all.emplace_back(*base_.bias);
  for (const nn::Parameter* p : parameters()) all.emplace_back(p->value());
  return all;
}

}  // namespace stet::continual
