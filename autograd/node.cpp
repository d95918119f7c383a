// Building the graph, and the part of Tensor that deals with history.
#include <stet/autograd/node.h>

#include <stet/autograd/engine.h>
#include <stet/tensor/error.h>

namespace stet {

Backward::Backward(const Node& node, const Tensor& grad, const Tensor& output, Tensor* results)
    : node_(node), grad_(grad), output_(output), results_(results) {}

bool Backward::needs(int i) const {
  const Ref<Node>& input = node_.inputs[i];
  return input && (input->is_leaf() ? leaf_is_wanted(*input) : input->useful);
}

const Tensor& Backward::output() const { return output_; }

void Backward::give(int i, Tensor gradient) {
  const Ref<Node>& input = node_.inputs[i];
  if (!input) return;
  if (!(gradient.shape() == input->shape) || gradient.dtype() != input->dtype || !(gradient.device() == input->device))
    fail<BugError>(node_.name(), "the derivative gave input ", i, " a gradient ", gradient.dtype(), " ",
                   gradient.shape(), " on ", gradient.device(), ", expected ", input->dtype, " ", input->shape, " on ",
                   input->device);
  results_[i] = std::move(gradient);
}

bool owned(const Tensor& t) {
  return t.defined() && t.impl().unique() && t.impl().storage->unique() && t.impl().contiguous;
}

const Tensor* Backward::sum_so_far(int i) const {
  const Ref<Node>& input = node_.inputs[i];
  if (!input || input->is_leaf() || grad_enabled() || !owned(input->incoming)) return nullptr;
  return &input->incoming;
}

bool Backward::add_to_leaf(int i, const std::function<void(const Tensor&)>& add) const {
  const Ref<Node>& input = node_.inputs[i];
  return input && input->is_leaf() && !grad_enabled() && add_to_gradient(static_cast<Leaf&>(*input), add);
}

void attach(Node& node, const Tensor& y, const Tensor* const* operands, int count, Keep keep) {
  for (int i = 0; i < count; ++i) {
    if (!operands[i]->defined()) continue;
    if (operands[i]->requires_grad()) node.inputs[i] = node_ref(*operands[i]);
    else if (operands[i]->rank() > 0) node.uses_constants = true;
  }
  if (keep == Keep::output) {
    node.output = y.detach();
    node.output_version = y.impl().storage->version();
  }
}

bool Tensor::is_leaf() const { return !requires_grad() || node_of(*this)->is_leaf(); }

const Tensor& Tensor::set_requires_grad(bool on) const {
  check(is_leaf(), "set_requires_grad", "tensor ", shape(), " was computed from others: use detach()");
  if (!on) {
    impl().history = nullptr;
  } else if (!requires_grad()) {
    check(is_floating(dtype()), "set_requires_grad", "tensor ", shape(), " holds ", dtype(),
          ": only floating tensors have gradients");
    impl().history = Ref<History>(new Leaf(*this));
  }
  return *this;
}

Tensor Tensor::grad() const {
  check(is_leaf(), "grad", "tensor ", shape(), " was computed from others: only leaves keep a gradient");
  return requires_grad() ? static_cast<Leaf*>(node_of(*this))->grad : Tensor();
}

void Tensor::set_grad(const Tensor& grad) const {
  check(is_leaf() && requires_grad(), "set_grad", "tensor ", shape(), " is not a leaf that asks for gradients");
  if (grad.defined())
    check(grad.shape() == shape() && grad.dtype() == dtype() && grad.device() == device(), "set_grad", "gradient ",
          grad.dtype(), " ", grad.shape(), " on ", grad.device(), " for tensor ", dtype(), " ", shape(), " on ",
          device());
  static_cast<Leaf*>(node_of(*this))->grad = grad;
}

void Tensor::backward(const Tensor& seed, bool retain_graph) const { stet::backward(*this, seed, retain_graph); }

}  // namespace stet
