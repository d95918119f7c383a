// A node that stands for a whole block: its inputs are the block's input and parameters.
#include <stet/nn/checkpoint.h>

#include <stet/autograd/engine.h>
#include <stet/autograd/node.h>
#include <stet/tensor/error.h>
#include <stet/tensor/random.h>

namespace stet::nn {
namespace {

/// What random draws depend on: the block's buffers and the default generator.
struct Draws {
  std::vector<Tensor> buffers;
  GeneratorState generator;

  static Draws of(const Module& block) {
    Draws now;
    for (Buffer* buffer : block.buffers()) now.buffers.push_back(buffer->value().clone());
    now.generator = default_generator().state();
    return now;
  }
  void put_back(const Module& block) const {
    const std::vector<Buffer*> all = block.buffers();
    for (std::size_t i = 0; i < all.size(); ++i) all[i]->set(buffers.at(i));
    default_generator().set_state(generator);
  }
};

struct CheckpointDerivative {
  static constexpr std::string_view name = "checkpoint";
  Module* block;
  std::function<Tensor(const Tensor&)> run;
  Saved x;
  Draws draws;
  std::vector<Saved> parameters;

  void operator()(Backward& pass) const {
    check(!grad_enabled(), name, "'", block->path(), "' is computed again in backward and has no second derivatives");
    std::vector<Tensor> wanted;
    std::vector<int> inputs;
    const Tensor in = pass.get(x).detach();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (pass.get(parameters[i]).requires_grad()) {
        wanted.push_back(parameters[i].tensor);
        inputs.push_back(static_cast<int>(i) + 1);
      }
    if (pass.needs(0)) {
      wanted.push_back(in.set_requires_grad());
      inputs.push_back(0);
    }
    if (wanted.empty()) return;
    const auto gradients = grad(again(in), wanted, {.seed = pass.grad(), .allow_unused = true});
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (gradients[i].defined()) pass.give(inputs[i], gradients[i]);
  }

  Tensor again(const Tensor& in) const {
    const struct Restore {
      const Module& block;
      Draws now = Draws::of(block);
      ~Restore() { now.put_back(block); }
    } restore{*block};
    draws.put_back(*block);
    const GradMode record(true);
    return run(in);
  }
};

}  // namespace

Tensor checkpoint(Module& block, const std::function<Tensor(const Tensor&)>& run, const Tensor& x) {
  if (!grad_enabled()) return run(x);
  const std::vector<Parameter*> trainable = block.trainable_parameters();
  if (!x.requires_grad() && trainable.empty()) return run(x);
  check(!recording(x.device()), "checkpoint", "'", block.path(), "' inside a recorded step: its draws are the host's");
  CheckpointDerivative derivative{&block, run, Saved(x, 0), Draws::of(block), {}};
  std::vector<const Tensor*> operands{&x};
  for (Parameter* p : trainable) {
    derivative.parameters.emplace_back(p->value(), static_cast<int>(operands.size()));
    operands.push_back(&p->value());
  }
  Tensor y;
  {
    const NoGrad plain;
    y = run(x.detach());
  }
  check(!y.requires_grad() && y.impl().storage.get() != x.impl().storage.get(), "checkpoint", "'", block.path(),
        "' returns its input");
  const int count = static_cast<int>(operands.size());
  Ref<Node> node(new OperationNode<CheckpointDerivative>(y, count, std::move(derivative)));
  attach(*node, y, operands.data(), count, Keep::nothing);
  y.impl().history = Ref<History>(std::move(node));
  return y;
}

}  // namespace stet::nn
