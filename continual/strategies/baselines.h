// The two ends that every strategy is measured against, and freezing.
#pragma once

#include <stet/continual/strategy.h>
#include <stet/tensor/error.h>

namespace stet::continual {

/// Plain fine-tuning on each task in turn: nothing is done about forgetting.
class Naive final : public Strategy {
 public:
  std::string name() const override { return "naive"; }
};

/// All tasks at once, in the last stage, with as many steps: what the model can reach when nothing has to be
/// remembered. Only the last row of its accuracy matrix is measured; forgetting is not defined for it.
class Joint final : public Strategy {
 public:
  std::string name() const override { return "joint"; }
  std::vector<std::string> claims() const override { return {"training tasks"}; }
  std::vector<int> training_tasks(int task, int tasks) const override {
    std::vector<int> all;
    for (int t = 0; task == tasks - 1 && t < tasks; ++t) all.push_back(t);
    return all;
  }
};

struct FreezeOptions {
  std::vector<std::string> globs;  ///< parameters to freeze, by path relative to the model: "fc1.*"
  int after_task = 0;              ///< from the end of this task on, if one was trained; -1: from the beginning
};

/// Freezes parts of the model after a task: head-only training of a model whose body is kept.
class Freeze final : public Strategy {
 public:
  explicit Freeze(FreezeOptions options) : options_(std::move(options)) {
    check(!options_.globs.empty(), "Freeze", "no globs: name the parameters to freeze");
  }
  std::string name() const override { return "freeze"; }
  void begin_task(Context& context) override {
    if (context.task <= options_.after_task || (options_.after_task >= 0 && !trained_)) return;
    for (const std::string& glob : options_.globs) context.model.freeze(glob);
    check(context.model.count_trainable() > 0, "Freeze", "nothing is left to train after task ", options_.after_task);
  }
  void end_task(Context&) override { trained_ = true; }

 private:
  FreezeOptions options_;
  bool trained_ = false;  // not saved: a resumed run loads what is frozen
};

}  // namespace stet::continual
