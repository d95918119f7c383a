// The learner: what it reads, what it must not know, what it refuses, and runs that repeat to the bit.
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include <stet/continual/learner.h>
#include <stet/continual/strategies/baselines.h>
#include <stet/continual/strategies/ewc.h>
#include <stet/continual/strategies/replay.h>
#include <stet/nn/layers.h>
#include <stet/optim/optimizers.h>
#include <stet/tensor/threads.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/pools.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;

namespace {

Scenario small(Setting setting, std::int64_t per_task = 2) {
  return split_classes(test::clouds(6, 40, 30, 1), test::clouds(6, 20, 30, 2), setting, per_task);
}

/// A model and its optimizer, from a seed.
struct Pupil {
  nn::Mlp model;
  optim::Adam optimizer;
  Pupil(std::int64_t in, std::int64_t hidden, std::int64_t out, double lr = 1e-2)
      : model({in, hidden, out}), optimizer(model.parameters(), {.lr = lr, .weight_decay = 1e-4}) {}
};

struct Curriculum final : Strategy {
  std::string name() const override { return "curriculum"; }
  std::vector<std::string> claims() const override { return {"training tasks"}; }
};

/// Remembers the model as it was at the end of each task.
struct Recorder final : Strategy {
  std::vector<nn::State>* states;
  explicit Recorder(std::vector<nn::State>& out) : states(&out) {}
  std::string name() const override { return "recorder"; }
  void end_task(Context& context) override { states->push_back(context.model.state()); }
};

bool same_bits(const nn::State& a, const nn::State& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const auto& item) {
           return test::same_bits(item.second, b.at(item.first));
         });
}

}  // namespace

TEST_CASE("Test splits are read before the first task and after each, and at no other time") {
  const Scenario scenario = small(Setting::class_incremental);
  for (const Task& task : scenario.tasks) CHECK(task.test.reads() == 0);
  Pupil pupil(30, 8, 6);
  Learner learner(pupil.model, pupil.optimizer, Ewc({.lambda = 10}), Replay({.capacity = 20}));
  CHECK(scenario.tasks[0].test.reads() == 0);
  const Result result = learner.run(scenario);
  CHECK(result.test_reads == (3 + 1) * 3);
  for (const Task& task : scenario.tasks) CHECK(task.test.reads() == 3 + 1);
  CHECK(result.strategies == "ewc + replay");
  CHECK(result.tasks == std::vector<std::string>{"0,1", "2,3", "4,5"});
  CHECK(result.steps == 3 * 2);  // 80 examples in batches of 64
  CHECK(result.accuracy.tasks() == 3);
  CHECK(result.losses.size() == 3);
}

TEST_CASE("Plain training forgets classes, and joint training and replay do not") {
  const Scenario scenario = small(Setting::class_incremental);
  const auto learn = [&](auto... strategies) {
    manual_seed(1);
    Pupil pupil(30, 16, 6);
    Learner learner(pupil.model, pupil.optimizer, std::move(strategies)...);
    learner.options = {.batch_size = 16, .epochs = 40};
    return learner.run(scenario);
  };
  const Result naive = learn(Naive()), joint = learn(Joint()),
               replay = learn(Replay({.capacity = 40, .batch_size = 16}));
  CHECK(naive.accuracy.forgetting() > 0.4);
  CHECK(joint.accuracy.accuracy() > 0.9);
  CHECK(replay.accuracy.accuracy() > 0.8);
  CHECK(joint.steps == naive.steps);
  CHECK(joint.test_reads == 2 * 3);
  CHECK(std::isnan(joint.accuracy.r[0][0]));
  CHECK(std::isnan(joint.accuracy.forgetting()));
  CHECK(std::isnan(joint.losses[0]));
  CHECK(joint.seconds[0] == 0);
  CHECK(joint.seconds[2] > 0);
}

TEST_CASE("Class- and domain-incremental accuracy does not see the task; task-incremental does") {
  for (const Setting setting : {Setting::class_incremental, Setting::domain_incremental, Setting::task_incremental}) {
    const Scenario scenario = small(setting);
    Pupil pupil(30, 16, scenario.outputs);
    Learner learner(pupil.model, pupil.optimizer);
    learner.run(scenario);
    const Pool test = test::clouds(6, 20, 30, 2);
    const auto pool = std::make_shared<const Pool>(
        setting == Setting::domain_incremental ? Pool{test.x, test.y - floor(test.y / 2.0) * 2.0} : test);
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < 120; ++i) all.push_back(i);
    const auto shared = std::make_shared<const Pool>(Pool{pool->x, cast(pool->y, i64)});
    std::vector<double> accuracy;
    for (const std::int64_t task : {0, 1, 2})
      accuracy.push_back(learner.evaluate(scenario, Examples(shared, all, task)));
    const bool alike = accuracy[0] == accuracy[1] && accuracy[0] == accuracy[2];
    CHECK(alike == (setting != Setting::task_incremental));
    if (setting == Setting::task_incremental) continue;
    const Tensor hits = equal(learner.predict(shared->x), shared->y);
    CHECK(sum(hits).item() / 120 == accuracy[0]);
  }
}

TEST_CASE("On random labels every setting scores chance") {
  Generator generator(11);
  const auto random_labels = [&](std::int64_t n) {  // balanced, in random order
    auto order = permutation(generator, n);
    for (auto& label : order) label %= 10;
    return Pool{randn({n, 20}, generator), tensor(order)};
  };
  const Pool train = random_labels(1000), test = random_labels(2000);
  const auto score = [&](Setting setting) {
    const Scenario scenario = split_classes(train, test, setting, 2);
    Pupil pupil(20, 32, scenario.outputs);
    Learner learner(pupil.model, pupil.optimizer, Replay({.capacity = 100}));
    learner.options.epochs = 5;
    return learner.run(scenario).accuracy.accuracy();
  };
  const auto sigma = [](double p) { return std::sqrt(p * (1 - p) / 2000); };
  CHECK(std::abs(score(Setting::class_incremental) - 0.1) < 3 * sigma(0.1));
  CHECK(std::abs(score(Setting::task_incremental) - 0.5) < 3 * sigma(0.5));
  CHECK(std::abs(score(Setting::domain_incremental) - 0.5) < 3 * sigma(0.5));
}

TEST_CASE("Every example counts in an accuracy, and nothing drops out") {
  struct Echo : nn::Module {
    nn::Dropout dropout{this, "dropout", 0.5};
    Tensor operator()(const Tensor& x) { return dropout(x); }
  } echo;
  // Only two of 2,500 examples, one of them the last of a thousand, are given the right output.
  std::vector<float> x;
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < 2500; ++i) {
    const bool right = i == 999 || i == 2499;
    x.insert(x.end(), {right ? 1.0f : 0.0f, right ? 0.0f : 1.0f});
    all.push_back(i);
  }
  const auto pool = std::make_shared<const Pool>(Pool{tensor(x, {2500, 2}), zeros({2500}, i64)});
  const Scenario scenario{Setting::domain_incremental, 2, {}};
  optim::Sgd optimizer(std::vector<nn::Parameter*>{}, {});
  Learner learner(echo, optimizer);
  CHECK(learner.evaluate(scenario, Examples(pool, all, 0)) == 2 / 2500.0);
  CHECK(sum(learner.predict(pool->x)).item() == 2498);
  CHECK(echo.is_training());
}

TEST_CASE("A run begins its strategies once, trains in training mode, and has an order of its own for each task") {
  Generator generator(3);
  const Pool train = test::clouds(3, 20, 8, 1), test = test::clouds(3, 4, 8, 2);
  const Scenario scenario = permuted(train, test, Setting::domain_incremental, 2, generator);
  struct Watch final : Strategy {
    std::vector<std::string>* calls;
    std::vector<std::vector<std::int64_t>>* labels;
    Watch(std::vector<std::string>& c, std::vector<std::vector<std::int64_t>>& l) : calls(&c), labels(&l) {}
    std::string name() const override { return "watch"; }
    void begin(Context&) override { calls->push_back("begin"); }
    void begin_task(Context&) override { calls->push_back("task"); }
    Tensor loss(Context& context, const Batch& batch, const Tensor&) override {
      CHECK(context.model.is_training());
      labels->push_back(batch.y.to_vector<std::int64_t>());
      return {};
    }
  };
  std::vector<std::string> calls;
  std::vector<std::vector<std::int64_t>> labels;
  Pupil pupil(8, 4, 3);
  pupil.model.eval();
  Learner learner(pupil.model, pupil.optimizer, Watch(calls, labels));
  learner.run(scenario);
  CHECK(calls == std::vector<std::string>{"begin", "task", "task"});
  REQUIRE(labels.size() == 2);  // a batch of all 60 for each task
  CHECK(labels[0] != labels[1]);
}

TEST_CASE("Two strategies that claim the same are an error that names both") {
  const Scenario scenario = small(Setting::class_incremental);
  Pupil pupil(30, 8, 6);
  Learner learner(pupil.model, pupil.optimizer, Joint(), Curriculum());
  CHECK_THROWS_WITH(learner.run(scenario), Contains("'joint' and 'curriculum' both claim the training tasks"));
  Learner twice(pupil.model, pupil.optimizer, Ewc(), Ewc({.online = true}));
  CHECK_THROWS_WITH(twice.run(scenario), Contains("'ewc' and 'online ewc' both claim the penalty 'ewc'"));
  Learner memories(pupil.model, pupil.optimizer, Replay(), Ewc(), Replay({.seed = 1}));
  CHECK_THROWS_WITH(memories.run(scenario), Contains("'replay' and 'replay' both claim the replay memory"));
  for (const Task& task : scenario.tasks) CHECK(task.test.reads() == 0);
}

TEST_CASE("Learners refuse what cannot be run") {
  const Scenario scenario = small(Setting::class_incremental);
  Pupil pupil(30, 8, 6);
  Learner learner(pupil.model, pupil.optimizer);
  CHECK_THROWS_WITH(learner.run({}), Contains("no tasks"));
  Scenario gap = scenario;
  gap.tasks[2].train = gap.tasks[2].train.subset(0, 0);
  CHECK_THROWS_WITH(learner.run(gap), Contains("task '4,5' has no training examples"));
  learner.options.epochs = 0;
  CHECK_THROWS_WITH(learner.run(scenario), Contains("0 epochs"));
  CHECK_THROWS_WITH(learner.add(nullptr), Contains("no strategy"));
  learner.options.epochs = 1;
  learner.run(scenario);
  CHECK_THROWS_WITH(learner.run(scenario), Contains("runs once"));
  CHECK(std::isnan(learner.evaluate(scenario, Examples())));
  CHECK_THROWS_WITH(Freeze({}), Contains("no globs"));
  CHECK_THROWS_WITH(Ewc({.lambda = -1}), Contains("[Ewc] lambda -1: expected"));
  CHECK_THROWS_WITH(Ewc({.gamma = std::numeric_limits<double>::quiet_NaN()}), Contains("[Ewc] gamma nan: expected"));
  CHECK_THROWS_WITH(Ewc({.fisher = {.samples = -1}}), Contains("[fisher] samples -1: expected 0 (all) or more"));
  CHECK_THROWS_WITH(Ewc({.fisher = {.batch_size = 0}}), Contains("[fisher] batch size 0: expected at least 1"));
  CHECK_THROWS_WITH(Replay({.batch_size = -1}), Contains("[Replay] batch size -1: expected"));
  Learner frozen(pupil.model, pupil.optimizer, Freeze({.globs = {"*"}}));
  CHECK_THROWS_WITH(frozen.run(scenario), Contains("nothing is left to train"));
}

TEST_CASE("Training tasks that a scenario does not have are refused, with the strategy's name") {
  struct Far final : Strategy {
    int far;
    explicit Far(int task) : far(task) {}
    std::string name() const override { return "far"; }
    std::vector<int> training_tasks(int task, int) const override { return {task, far}; }
  };
  const Scenario scenario = small(Setting::class_incremental);
  for (const int task : {-1, 3, 100000}) {
    Pupil pupil(30, 8, 6);
    Learner learner(pupil.model, pupil.optimizer, Far(task));
    CHECK_THROWS_WITH(learner.run(scenario), "[training_tasks] strategy 'far' trains stage 0 on task " +
                                                 std::to_string(task) + ": expected 0 to 2");
  }
}

TEST_CASE("A model with other outputs than the scenario's is refused, in training and in evaluation") {
  for (const Setting setting : {Setting::task_incremental, Setting::domain_incremental, Setting::class_incremental})
    for (const std::int64_t width : {1, 7}) {
      const Scenario scenario = small(setting);
      Pupil pupil(30, 8, width);
      Learner learner(pupil.model, pupil.optimizer);
      std::ostringstream wanted;
      wanted << ", " << width << "): expected (40, " << scenario.outputs << "), an output for each of the scenario's";
      CHECK_THROWS_WITH(learner.evaluate(scenario, scenario.tasks[0].test.read()),
                        Contains("[logits] the model gives (") && Contains(wanted.str()));
      CHECK_THROWS_WITH(learner.run(scenario), Contains("[logits] the model gives ("));
    }
  // One row for all examples, and more axes than two, would be stretched as well.
  const Scenario scenario = small(Setting::task_incremental);
  struct Wrong : nn::Module {
    nn::Linear fc{this, "fc", 30, 6};
    bool mean_of_all;
    explicit Wrong(bool mean) : mean_of_all(mean) {}
    Tensor operator()(const Tensor& x) { return mean_of_all ? mean(fc(x), {0}, true) : unsqueeze(fc(x), 0); }
  };
  for (const bool mean_of_all : {true, false}) {
    Wrong model(mean_of_all);
    optim::Sgd optimizer(model.parameters(), {});
    Learner learner(model, optimizer);
    CHECK_THROWS_WITH(learner.evaluate(scenario, scenario.tasks[0].test.read()), Contains("expected (40, 6)"));
  }
}

TEST_CASE("Another model's optimizer is refused; one of a part of the model is not") {
  const Scenario scenario = small(Setting::class_incremental);
  Pupil pupil(30, 8, 6), other(30, 8, 6);
  Learner learner(pupil.model, other.optimizer);
  CHECK_THROWS_WITH(learner.run(scenario),
                    Contains("[run] the optimizer has 4 parameters and none of the model's 4 that "
                             "are trainable, 'fc1.weight' the first of them"));
  CHECK_FALSE(std::isnan(learner.evaluate(scenario, scenario.tasks[0].test.read())));  // which needs no optimizer
  optim::Adam head({&pupil.model.parameter("fc2.weight")}, {});
  Learner with_head(pupil.model, head);
  const Tensor body = pupil.model.parameter("fc1.weight").value().detach().clone();
  with_head.run(scenario);
  CHECK(same(pupil.model.parameter("fc1.weight").value().detach(), body));
  // What is in the optimizer but frozen does not count.
  pupil.model.freeze("fc2.*");
  Learner frozen(pupil.model, head);
  CHECK_THROWS_WITH(frozen.run(scenario), Contains("the optimizer has 1 parameters and none of the model's 2"));
}

TEST_CASE("A loss that is not finite ends the run at its step, or goes into the result where it is wanted") {
  const Scenario scenario = small(Setting::class_incremental);
  const auto learn = [&](const Scenario& tasks, double lr, bool stop, int& reported) {
    manual_seed(1);
    Pupil pupil(30, 8, 6, lr);
    Learner learner(pupil.model, pupil.optimizer);
    learner.options.stop_when_diverged = stop;
    learner.options.on_progress = [&](const Progress&) { ++reported; };
    return learner.run(tasks);
  };
  int reported = 0;
  CHECK_THROWS_AS(learn(scenario, 1e30, true, reported), Diverged);
  CHECK(reported == 1);  // the step before
  CHECK_THROWS_WITH(learn(scenario, 1e30, true, reported), Contains("[run] task '0,1', step 2 of 2: the loss is "));
  reported = 0;
  CHECK_FALSE(std::isfinite(learn(scenario, 1e30, false, reported).losses[0]));
  CHECK(reported == 6);

  // The last update of all shows in no loss.
  manual_seed(1);
  Pupil pupil(30, 8, 6, 1e39);
  Learner learner(pupil.model, pupil.optimizer);
  learner.options.batch_size = 10'000;
  reported = 0;
  learner.options.on_progress = [&](const Progress&) { ++reported; };
  const Pool train = test::clouds(6, 40, 30, 1), test = test::clouds(6, 20, 30, 2);
  CHECK_THROWS_WITH(learner.run(split_classes(train, test, Setting::class_incremental, 6)),
                    Contains("after its last step: parameter 'fc1.weight' is not finite"));
  CHECK(reported == 0);

  const Pool spoilt{train.x + std::numeric_limits<double>::quiet_NaN(), train.y};
  reported = 0;
  CHECK_THROWS_AS(learn(split_classes(spoilt, test, Setting::class_incremental, 2), 1e-3, true, reported), Diverged);
  CHECK(reported == 0);
}

TEST_CASE("Freeze keeps every bit of the body after its task, and the head goes on learning") {
  const Scenario scenario = small(Setting::class_incremental);
  Pupil pupil(30, 16, 6);
  std::vector<nn::State> at_end;
  Learner learner(pupil.model, pupil.optimizer, Recorder(at_end), Freeze({.globs = {"fc1.*"}}));
  learner.run(scenario);
  REQUIRE(at_end.size() == 3);
  for (const char* name : {"fc1.weight", "fc1.bias"}) {
    CHECK(same(at_end[2].at(name), at_end[0].at(name)));
    CHECK_FALSE(pupil.model.parameter(name).trainable());
  }
  CHECK_FALSE(same(at_end[1].at("fc2.weight"), at_end[0].at("fc2.weight")));
  CHECK_FALSE(same(at_end[2].at("fc2.weight"), at_end[1].at("fc2.weight")));
}

TEST_CASE("With Joint, Freeze keeps what it freezes from the beginning, and freezes nothing that was never trained") {
  const Scenario scenario = small(Setting::class_incremental);
  for (const int after_task : {-1, 0, 1}) {
    Pupil pupil(30, 16, 6);
    const Tensor before = pupil.model.parameter("fc1.weight").value().detach().clone();
    Learner learner(pupil.model, pupil.optimizer, Joint(), Freeze({.globs = {"fc1.*"}, .after_task = after_task}));
    learner.run(scenario);
    CHECK(same(pupil.model.parameter("fc1.weight").value().detach(), before) == (after_task == -1));
  }
}

TEST_CASE("A run repeats to the bit from its seed, at any number of threads") {
  const int before = threads();
  const Scenario scenario =
      split_classes(test::clouds(6, 100, 300, 1), test::clouds(6, 20, 300, 2), Setting::class_incremental, 2);
  const auto learn = [&](int count, std::uint64_t seed) {
    set_threads(count);
    manual_seed(seed);
    Pupil pupil(300, 200, 6, 1e-3);
    std::vector<nn::State> at_end;
    Learner learner(pupil.model, pupil.optimizer, Recorder(at_end), Ewc({.lambda = 100}),
                    Replay({.capacity = 50, .seed = seed}));
    learner.options = {.batch_size = 32, .epochs = 2, .seed = seed};
    const Result result = learner.run(scenario);
    return std::pair(at_end, result);
  };
  const auto [states, result] = learn(1, 5);
  for (const int count : {1, 4}) {
    const auto [again, other] = learn(count, 5);
    REQUIRE(again.size() == 3);
    for (std::size_t t = 0; t < 3; ++t) CHECK(same_bits(again[t], states[t]));
    CHECK(other.accuracy.r == result.accuracy.r);
    CHECK(other.losses == result.losses);
  }
  CHECK_FALSE(same_bits(learn(1, 6).first[0], states[0]));
  set_threads(before);
}

TEST_CASE("Optimizer state is kept between tasks unless told otherwise") {
  const Scenario scenario = small(Setting::class_incremental);
  const auto steps_of = [&](bool keep) {
    Pupil pupil(30, 8, 6);
    Learner learner(pupil.model, pupil.optimizer);
    learner.options.keep_optimizer = keep;
    learner.run(scenario);
    return pupil.optimizer.state().at("fc1.weight/step").item();
  };
  CHECK(steps_of(true) == 6);
  CHECK(steps_of(false) == 2);
}

TEST_CASE("A schedule starts again with every task where the optimizer's state does") {
  const Scenario scenario = small(Setting::class_incremental);
  for (const bool keep : {true, false}) {
    Pupil pupil(30, 8, 6);
    pupil.optimizer.set_schedule(optim::cosine_schedule(2));  // the steps of a task
    std::vector<nn::State> at_end;
    Learner learner(pupil.model, pupil.optimizer, Recorder(at_end));
    learner.options.keep_optimizer = keep;
    learner.run(scenario);
    for (const std::size_t task : {1u, 2u}) CHECK(same_bits(at_end[task], at_end[task - 1]) == keep);
    CHECK(pupil.optimizer.steps() == (keep ? 6 : 2));
  }
}

TEST_CASE("Penalties and transforms of a run's strategies leave the optimizer with it, however it ends") {
  const Scenario scenario = small(Setting::class_incremental);
  struct Sets final : Strategy {
    std::string name() const override { return "sets"; }
    void begin_task(Context& context) override {
      context.optimizer.set_transform("mine", [](std::vector<optim::NamedGradient>&) {});
      context.optimizer.set_transform("projection", [](std::vector<optim::NamedGradient>&) {});
      context.optimizer.set_penalty("mine", {3, {}, {}});
      context.optimizer.remove_penalty("also mine");
      context.optimizer.set_penalty("also mine", {4, {}, {}});
    }
  };
  struct Stop {};
  for (const bool stopped : {false, true}) {
    Pupil pupil(30, 8, 6);
    bool mine = false;
    pupil.optimizer.set_penalty("mine", {1, {}, {}});
    pupil.optimizer.set_penalty("also mine", {2, {}, {}});
    pupil.optimizer.set_transform("mine", [&](std::vector<optim::NamedGradient>&) { mine = true; });
    {
      Learner learner(pupil.model, pupil.optimizer, Ewc({.lambda = 100}), Sets());
      learner.options.on_progress = [&](const Progress& p) {
        CHECK(pupil.optimizer.additions().penalties.size() == 2 + static_cast<std::size_t>(p.task));
        CHECK(pupil.optimizer.additions().transforms.size() == 2);
        if (stopped && p.task == 2) throw Stop();
      };
      if (stopped) CHECK_THROWS_AS(learner.run(scenario), Stop);
      else learner.run(scenario);
    }
    CHECK_FALSE(mine);
    const auto& [penalties, transforms] = pupil.optimizer.additions();
    REQUIRE(penalties.size() == 2);
    CHECK(penalties.at("mine").strength == 1);
    CHECK(penalties.at("also mine").strength == 2);
    CHECK(transforms.size() == 1);
    pupil.optimizer.step();
    CHECK(mine);
    CHECK(pupil.optimizer.penalty_value() == 0);
  }
}

TEST_CASE("The run that follows another with the same optimizer is its own") {
  const Scenario scenario = small(Setting::class_incremental);
  const auto second_run = [&](bool ewc) {
    manual_seed(1);
    Pupil pupil(30, 8, 6);
    const nn::State start = pupil.model.state();
    Learner first(pupil.model, pupil.optimizer);
    if (ewc) first.add(std::make_unique<Ewc>(EwcOptions{.lambda = 1e4}));
    first.run(scenario);
    pupil.model.load(start);
    pupil.optimizer.reset_state();
    Learner second(pupil.model, pupil.optimizer);
    second.run(scenario);
    return pupil.model.state();
  };
  CHECK(same_bits(second_run(true), second_run(false)));
}

TEST_CASE("Progress counts the steps of each task") {
  const Scenario scenario = small(Setting::class_incremental);
  Pupil pupil(30, 8, 6);
  Learner learner(pupil.model, pupil.optimizer);
  std::vector<std::pair<int, std::int64_t>> seen;
  learner.options.on_progress = [&](const Progress& p) {
    CHECK(p.steps == 2);
    CHECK(p.tasks == 3);
    CHECK(std::isfinite(p.loss));
    seen.emplace_back(p.task, p.step);
  };
  learner.run(scenario);
  CHECK(seen == std::vector<std::pair<int, std::int64_t>>{{0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 1}, {2, 2}});
}
