// A node that stands for a whole block: its inputs are the block's input and parameters.
#include <stet/nn/checkpoint.h>

#include <stet/autograd/engine.h>
#include <stet/autograd/node.h>
#include <stet/tensor/error.h>
#include <stet/tensor/random.h>

namespace stet::nn {
namespace {

/// What the block computes with, apart from numbers: its modules, and what stands in for them or their parameters.
std::vector<const void*> parts_of(Module& block) {
  std::vector<const void*> all;
  for (const Module* module : block.modules()) {
    all.push_back(module);
    for (const void* plugged : module->plugged()) all.push_back(plugged);
  }
  for (const Parameter* p : block.parameters()) all.push_back(p->stand_in());
  return all;
}

/// What random draws depend on: the modes of the block's modules, its buffers and the default generator.
struct Draws {
  std::vector<bool> training;
  std::vector<Tensor> buffers;
  GeneratorState generator;

  static Draws of(Module& block) {
    Draws now;
    for (const Module* module : block.modules()) now.training.push_back(module->is_training());
    for (Buffer* buffer : block.buffers()) now.buffers.push_back(buffer->value().clone());
    now.generator = default_generator().state();
    return now;
  }
  /// Of a block with the parts that it had.
  void put_back(Module& block) const {
    const std::vector<Module*> modules = block.modules();
    for (std::size_t i = 0; i < modules.size(); ++i)
      modules[i]->train(training[i]);  // outer ones first: it reaches down
    const std::vector<Buffer*> all = block.buffers();
    for (std::size_t i = 0; i < all.size(); ++i) all[i]->set(buffers[i]);
    default_generator().set_state(generator);
  }
};

struct CheckpointDerivative {
  static constexpr std::string_view name = "checkpoint";
  Module* block;
  std::weak_ptr<const void> alive;
  std::function<Tensor(const Tensor&)> run;
  Saved x;
  Draws draws;
  std::vector<const void*> parts;
  std::vector<Saved> parameters, frozen;

  void operator()(Backward& pass) const {
    check_block(pass);
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

  /// That running the block again computes what the forward pass did.
  void check_block(const Backward& pass) const {
    check(!alive.expired(), name, "the block ended before backward, which computes it again");
    check(!grad_enabled(), name, "'", block->path(), "' is computed again in backward and has no second derivatives");
    check(parts_of(*block) == parts, name, "'", block->path(),
          "' has other parts than in the forward pass, which backward computes again: expected adapters as they were");
    for (const Saved& p : frozen) pass.get(p);
  }

  Tensor again(const Tensor& in) const {
    const struct Restore {
      Module& block;
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
  if (!x.requires_grad() && block.trainable_parameters().empty()) return run(x);
  check(!recording(x.device()), "checkpoint", "'", block.path(), "' inside a recorded step: its draws are the host's");
  CheckpointDerivative derivative{&block, block.alive(), run, Saved(x, 0), Draws::of(block), parts_of(block), {}, {}};
  std::vector<const Tensor*> operands{&x};
  std::vector<Parameter*> frozen;
  for (Parameter* p : block.parameters()) {
    if (!p->trainable()) {
      frozen.push_back(p);
      continue;
    }
    derivative.parameters.emplace_back(p->value(), static_cast<int>(operands.size()));
    operands.push_back(&p->value());
  }
  for (const Parameter* p : frozen)
    derivative.frozen.emplace_back(p->value(), static_cast<int>(operands.size() + derivative.frozen.size()));
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
