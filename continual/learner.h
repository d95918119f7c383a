// The learner: trains a model on a scenario, task after task, and measures it after each. A training step has
// one order: batch, forward, sum of losses, backward, gradient transforms, masked update.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>

#include <stet/continual/diverged.h>
#include <stet/continual/metrics.h>
#include <stet/continual/strategy.h>

namespace stet::continual {

struct Progress {
  int task, tasks;
  std::int64_t step, steps;  ///< of this task
  double loss;
};

struct LearnerOptions {
  std::int64_t batch_size = 64;
  int epochs = 1;
  std::uint64_t seed = 0;      ///< order of the examples
  bool keep_optimizer = true;  ///< false: optimizer state and schedule start fresh with every task
  std::function<void(const Progress&)> on_progress = {};  ///< after every step; Learner::state() may be asked here
  bool stop_when_diverged = true;  ///< false: what is not finite is no error, and losses go into the result as they are
};

struct Result {
  std::string strategies;  ///< their names, joined by " + "
  Setting setting = Setting::class_incremental;
  std::vector<std::string> tasks;  ///< their names
  AccuracyMatrix accuracy;
  std::vector<double> losses;   ///< mean training loss of each task; NaN where nothing was trained
  std::vector<double> seconds;  ///< of each task, ends of tasks included, evaluation not
  std::int64_t steps = 0;
  int test_reads = 0;  ///< how often the test splits were read
};

class Learner {
 public:
  /// `model` is any module that can be called with x; strategies are listed in the order in which they act.
  template <class Model, class... Strategies>
  Learner(Model& model, optim::Optimizer& optimizer, Strategies... strategies)
      : model_(model), optimizer_(optimizer), forward_([&model](const Tensor& x) { return model(x); }) {
    (strategies_.push_back(std::make_unique<Strategies>(std::move(strategies))), ...);
  }

  LearnerOptions options;

  /// One more strategy, chosen at run time; it acts after those that are there.
  void add(std::unique_ptr<Strategy> strategy);
  Strategy& strategy(std::size_t i) const { return *strategies_.at(i); }

  /// Learns all tasks in order and fills the accuracy matrix: reads every test split before the first task
  /// and after each task. A learner runs once, since its strategies remember what they saw. The first step whose loss
  /// is NaN or infinite throws Diverged, which names task and step, before on_progress hears of it: what was saved
  /// there stays. So does a task after whose last step a parameter is not finite. With options.stop_when_diverged off
  /// the run goes on. An Error when the model's outputs are not the scenario's in number, or when the optimizer has no
  /// trainable parameter of the model. However a run ends, the optimizer has the penalties and transforms of before.
  Result run(const Scenario& scenario);
  /// Outputs for x, without a task: all outputs compete.
  Tensor predict(const Tensor& x);
  /// Accuracy on some examples, NaN for none; their task is used in task-incremental scenarios alone.
  double evaluate(const Scenario& scenario, const Examples& examples);

  /// All that a resumed run needs, ready for nn::save_safetensors: model, optimizer, strategies, random numbers, where
  /// the run stands and what it has measured. Between two steps alone: from options.on_progress, or after it threw.
  nn::State state() const;
  /// The next run() goes on where the state was taken and ends with the same bits as a run without a break. Model,
  /// optimizer, strategies, options and scenario have to be those of that run, made anew. An Error lists what does not
  /// fit and changes nothing; run() refuses another scenario.
  void load(const nn::State& state);

 private:
  /// Where a run stands between two steps.
  struct Standing {
    std::int64_t task = 0, epoch = 0, position = 0;  ///< position: examples seen in this epoch
    std::int64_t steps = 0;                          ///< of this task
    double loss = 0;                                 ///< sum over them
    double seconds = 0;                              ///< spent on this task before the run was resumed
  };
  using Clock = std::chrono::steady_clock;
  using Numbers = std::map<std::string, std::int64_t>;

  double step(Context& context, Batch batch);
  double train_stage(Context& context, const std::vector<int>& tasks);
  std::vector<double> evaluate_all(const Scenario& scenario);
  Context context_for(const Scenario& scenario) const;
  void check_claims() const;
  std::vector<int> stage(int task, int tasks) const;
  double seconds_of_task() const;

  Numbers identity() const;
  static Numbers identity_of(const Scenario& scenario);
  void check_scenario(const Scenario& scenario) const;
  std::string problems_of(const nn::State& state) const;
  void put(const nn::State& state);

  nn::Module& model_;
  optim::Optimizer& optimizer_;
  Forward forward_;
  std::vector<std::unique_ptr<Strategy>> strategies_;
  bool ran_ = false;

  // The run as far as it has come; state() and load() are about these.
  Standing standing_;
  Result result_;
  Numbers scenario_;  // what another scenario is known by
  Clock::time_point task_began_;
  int reads_before_ = 0;
  bool between_steps_ = false;
  nn::State loaded_;  // until the run goes on from it
};

}  // namespace stet::continual
