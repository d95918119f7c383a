// A strategy of your own: learning without forgetting. The model after the last task teaches the one that
// learns the next. Run: build/release/examples/custom_strategy; prints ACC and forgetting without and with
// it, in seconds.
#include <iostream>

#include <CLI/CLI.hpp>

#include <stet/stet.h>

#include "checks.h"

using namespace stet;
using namespace stet::continual;

// Your strategy starts here. Override what you need of strategy.h: this one adds a loss term, and looks at
// the ends of tasks. `Model` is constructed anew for the teacher, which then takes over the learner's state.
template <class Model> class Distillation final : public Strategy {
 public:
  Distillation(std::unique_ptr<Model> teacher, double weight, double temperature)
      : teacher_(std::move(teacher)), weight_(weight), temperature_(temperature) {
    teacher_->freeze();  // its pass builds no graph
    teacher_->eval();
  }
  std::string name() const override { return "distillation"; }

  void end_task(Context& context) override {
    teacher_->load(context.model.state());
    ready_ = true;
  }
  /// KL(teacher || model) at a temperature, on the new task's inputs (Li & Hoiem 2016).
  Tensor loss(Context&, const Batch& batch, const Tensor& logits) override {
    if (!ready_) return {};
    const Tensor wanted = softmax((*teacher_)(batch.x) / temperature_);
    return weight_ * nn::kl_div(log_softmax(logits / temperature_), wanted, {.reduction = nn::Reduction::batch_mean});
  }
  nn::State state() const override { return ready_ ? teacher_->state() : nn::State{}; }
  void load(const nn::State& state) override {
    ready_ = !state.empty();
    if (ready_) teacher_->load(state);
  }

 private:
  std::unique_ptr<Model> teacher_;
  double weight_, temperature_;
  bool ready_ = false;
};
// Your strategy ends here.

int main(int count, char** words) try {
  CLI::App app(
      "Learning without forgetting, a strategy of one's own, against none: ACC and forgetting over three seeds.");
  CLI11_PARSE(app, count, words);
  const Pool train = pool_of(data::load_images("fashion-mnist", data::Split::train));
  const Pool test = pool_of(data::load_images("fashion-mnist", data::Split::test));
  const Scenario scenario = split_classes(train, test, Setting::domain_incremental, 2);
  std::vector<Run> runs;
  for (const std::uint64_t seed : {1, 2, 3})
    for (const bool teach : {false, true}) {
      manual_seed(seed);
      const std::vector<std::int64_t> sizes{784, 100, scenario.outputs};
      nn::Mlp model(sizes);
      optim::Adam optimizer(model.parameters(), {.lr = 1e-3});
      Learner learner(model, optimizer);
      learner.options.seed = seed;
      if (teach) learner.add(std::make_unique<Distillation<nn::Mlp>>(std::make_unique<nn::Mlp>(sizes), 4.0, 2.0));
      runs.push_back({teach ? "distillation" : "naive", seed, learner.run(scenario)});
    }
  std::cout << table(summarise(runs)) << "\nMean ± standard deviation of seeds 1, 2, 3.\n"
            << AccuracyMatrix::definitions();
  return finished();
} catch (const std::exception& problem) {
  std::cerr << problem.what() << '\n';
  return 2;
}
