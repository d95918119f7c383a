// Slots, and the merged weight with a guard against writes that it does not know of.
#include <stet/continual/adapters/adapter.h>

#include <stet/tensor/error.h>

namespace stet::continual {

Tensor for_each_entry(const Tensor& parameter, const Tensor& x) {
  if (x.rank() < 2) return flatten(parameter);
  Shape stack{x.shape()[0]}, vectors(x.rank(), 1);
  for (int i = 0; i < parameter.rank(); ++i) stack.push_back(1);
  vectors[0] = x.shape()[0];
  vectors[x.rank() - 1] = parameter.numel();
  return reshape(parameter + zeros(stack, parameter.options()), vectors);  // adding 0 keeps the numbers
}

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

void Piece::copy(nn::Parameter& original) {
  copies_.push_back({&original, std::make_unique<nn::Parameter>(this, original.name(), original.value().detach())});
}

void Piece::check_slot_free(bool free) const {
  check(free, "activate", "'", path(), "': the slot of '", parent()->path(), "' is taken by another adapter");
}

std::vector<Stamp> Piece::stamps(const std::vector<Tensor>& of_layer) const {
  std::vector<Stamp> all(of_layer.begin(), of_layer.end());
  for (const nn::Parameter* p : parameters()) all.emplace_back(p->value());
  return all;
}

void Piece::check_unwritten(const std::vector<Stamp>& before, const std::vector<Tensor>& of_layer) const {
  check(stamps(of_layer) == before, "merge", "'", path(), "': base or adapter was written while merged; unmerge first");
}

void refuse_untied(const Piece& piece, const nn::TiedLinear& head, std::string_view hint) {
  fail("merge", "'", piece.path(), "' unties '", head.table().path(), "' and '", head.path(),
       "', and the base has one weight for both: no state of it holds the merged model", hint);
}

void Piece::plug(bool on) {
  if (!parent()) return;  // the layer is gone
  for (const Copy& c : copies_) {
    const nn::Parameter* now = c.original->stand_in();
    if (on) check_slot_free(!now);
    if (on) c.original->set_stand_in(c.parameter.get());
    else if (now == c.parameter.get()) c.original->set_stand_in(nullptr);
  }
}

void Piece::fold(nn::State& state) const {
  for (const Copy& c : copies_)
    state.at(nn::join_path(place(), c.original->name())) = c.parameter->value().detach().clone();
}

Tensor LinearPiece::operator()(const nn::Linear&, const Tensor& x, Activation activation) {
  if (!merged_) return activate(adapted(x), activation);
  check_unwritten(merged_from_, tensors_of_layer());
  return linear(x, merged_->weight, merged_->bias, activation);
}

void LinearPiece::plug(bool on) {
  if (!parent()) return;  // the layer is gone
  if (on) check_slot_free(!base_.slot);
  Piece::plug(on);
  if (on) base_.slot = this;
  else if (base_.slot == this) base_.slot = nullptr;
}

void LinearPiece::merge(bool on) {
  merged_.reset();
  merged_from_.clear();
  if (!on) return;
  merged_ = merged();
  merged_from_ = stamps(tensors_of_layer());
}

void LinearPiece::fold(nn::State& state) const {
  const Merged folded = merged();
  state.at(nn::join_path(place(), "weight")) = folded.weight;
  if (folded.bias.defined()) state.at(nn::join_path(place(), "bias")) = folded.bias.clone();
}

std::vector<Tensor> LinearPiece::tensors_of_layer() const {
  std::vector<Tensor> all{base_.weight.value()};
  if (base_.bias) all.push_back(base_.bias->value());
  return all;
}

}  // namespace stet::continual
