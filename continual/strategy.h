// A strategy says what it adds to a training step, and may add in six places only: examples, a loss term, a
// quadratic penalty, a gradient transform, a mask, a parameterisation. It also sees the ends of tasks, and
// saves its state. Strategies compose by being listed; what may be there only once is claimed by name.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <stet/continual/scenario.h>
#include <stet/nn/module.h>
#include <stet/optim/optimizer.h>

namespace stet::continual {

using Forward = std::function<Tensor(const Tensor&)>;  ///< x (n, ...) -> logits (n, outputs)

/// What a strategy can reach.
struct Context {
  nn::Module& model;
  optim::Optimizer& optimizer;
  const Scenario& scenario;
  const Forward& forward;
  int task = 0;        ///< the task being learned
  Tensor output_mask;  ///< (tasks, outputs), only in task-incremental learning

  const Examples& train() const { return scenario.tasks[static_cast<std::size_t>(task)].train; }
  /// Adds the mask of each example's task to logits, where the setting lets the task be known.
  Tensor mask_logits(const Tensor& logits, const Tensor& tasks) const;
  /// Where the model is: what a strategy computes with the model's outputs belongs there, `batch.to(device())`.
  Device device() const { return model.device(); }
  /// The model's outputs for a batch (n, outputs), masked. An Error when the model gives another shape than the
  /// scenario's.
  Tensor logits(const Batch& batch) const;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual std::string name() const = 0;
  /// Things that only one strategy of a run may do, as they read in "both claim the ...".
  virtual std::vector<std::string> claims() const { return {}; }

  /// Before the first task.
  virtual void begin(Context&) {}
  /// Penalties, masks, freezing, adapters and gradient transforms are set up here, from the strategy's state:
  /// optimizer.set_penalty, set_mask, set_transform, model.freeze. Also called when a run is resumed inside this task;
  /// the values of model, optimizer and strategy are loaded again after that. Penalties and transforms leave the
  /// optimizer with the run; what is masked, frozen or added stays so.
  virtual void begin_task(Context&) {}
  /// Importance, anchors, memory: the strategy's state is brought up to date here.
  virtual void end_task(Context&) {}

  /// Tasks whose examples stage `task` of `tasks` trains on; none: the stage is left out, with a row of NaN
  /// in the accuracy matrix. A task outside 0 .. tasks - 1 is an Error. Claim "training tasks" to override.
  virtual std::vector<int> training_tasks(int task, int) const { return {task}; }
  /// May join stored examples to the batch.
  virtual void examples(Context&, Batch&) {}
  /// A further loss term for this batch and its logits; undefined for none.
  virtual Tensor loss(Context&, const Batch&, const Tensor& /*logits*/) { return {}; }

  /// Whatever a resumed run needs.
  virtual nn::State state() const { return {}; }
  virtual void load(const nn::State&) {}
};

}  // namespace stet::continual
