// A run that was interrupted after any step and goes on in a new learner ends with the same bits; what does not fit is
// refused as a whole.
#include <cstring>

#include <stet/continual/learner.h>
#include <stet/continual/strategies/baselines.h>
#include <stet/continual/strategies/ewc.h>
#include <stet/continual/strategies/replay.h>
#include <stet/nn/layers.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/pools.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;

namespace {

/// Draws from a generator of its own (dropout) and from the common one (noise).
struct Net : nn::Module {
  nn::Linear fc1{this, "fc1", 12, 16};
  nn::Dropout dropout{this, "dropout", 0.3};
  nn::Linear fc2{this, "fc2", 16, 6};
  Tensor operator()(const Tensor& x) {
    const Tensor noisy = is_training() ? x + randn(x.shape()) * 0.01 : x;
    return fc2(dropout(fc1(noisy, Activation::relu)));
  }
};

/// Starts something anew at each task and goes on with it at each step: resuming must not lose that.
struct Mover final : Strategy {
  Tensor pull = zeros({6});
  std::string name() const override { return "mover"; }
  void begin_task(Context& context) override {
    pull = randn({6}) * 0.1;
    if (context.task == 1) context.model.freeze("fc1.bias");  // for good, although set only once
  }
  Tensor loss(Context&, const Batch&, const Tensor& logits) override {
    pull = pull * 0.9;
    return mean(logits * pull);
  }
  nn::State state() const override { return {{"pull", pull.clone()}}; }
  void load(const nn::State& state) override {
    check(state.contains("pull"), "mover", "no 'pull'");
    pull = state.at("pull").clone();
  }
};

/// A transform that is set anew for each task, from what was remembered.
struct Shrinker final : Strategy {
  Tensor factor = ones({});
  std::string name() const override { return "shrinker"; }
  void begin_task(Context& context) override {
    context.optimizer.set_transform("shrink", [factor = factor](std::vector<optim::NamedGradient>& gradients) {
      for (auto& g : gradients) g.gradient = g.gradient * factor;
    });
  }
  void end_task(Context&) override { factor = factor * 0.5; }
  nn::State state() const override { return {{"factor", factor.clone()}}; }
  void load(const nn::State& state) override { factor = state.at("factor").clone(); }
};

using MakeStrategies = std::function<std::vector<std::unique_ptr<Strategy>>()>;

template <class... Strategies> MakeStrategies listing(Strategies... strategies) {
  return [=] {
    std::vector<std::unique_ptr<Strategy>> out;
    (out.push_back(std::make_unique<Strategies>(strategies)), ...);
    return out;
  };
}

/// Everything that a process would make anew.
struct Pupil {
  Net model;
  optim::Adam optimizer{model.parameters(), optim::AdamOptions{.lr = 1e-2, .weight_decay = 1e-3}};
  Learner learner{model, optimizer};
  std::vector<double> losses;  ///< of each step

  explicit Pupil(const MakeStrategies& strategies, bool keep_optimizer = true) {
    optimizer.clip_norm(1);
    optimizer.set_schedule([](std::int64_t step) { return 1 / (1 + 0.1 * static_cast<double>(step)); });
    for (auto& s : strategies()) learner.add(std::move(s));
    learner.options = {.batch_size = 16, .epochs = 2, .seed = 9, .keep_optimizer = keep_optimizer};
    learner.options.on_progress = [this](const Progress& p) { losses.push_back(p.loss); };
  }
};

Scenario small(std::vector<std::int64_t> order = {}) {
  return split_classes(test::clouds(6, 20, 12, 1), test::clouds(6, 10, 12, 2), Setting::class_incremental, 2,
                       std::move(order));
}
constexpr std::size_t kSteps = 3 * 2 * 3;  // 3 tasks of 40 examples, 2 epochs of 3 batches

bool same_bits(const nn::State& a, const nn::State& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const auto& item) {
           return b.contains(item.first) && test::same_bits(item.second, b.at(item.first));
         });
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

/// A run without a break, with its state after every step.
struct Whole {
  std::vector<nn::State> states;
  std::vector<double> losses;
  Result result;
  nn::State model, optimizer, strategies;
  GeneratorState random;
};

nn::State strategies_of(const Learner& learner, std::size_t count) {
  nn::State all;
  for (std::size_t i = 0; i < count; ++i)
    for (const auto& [name, value] : learner.strategy(i).state()) all[std::to_string(i) + name] = value;
  return all;
}

Whole run_whole(const Scenario& scenario, const MakeStrategies& strategies, bool keep_optimizer = true) {
  manual_seed(4);
  Pupil pupil(strategies, keep_optimizer);
  Whole whole;
  pupil.learner.options.on_progress = [&](const Progress& p) {
    whole.losses.push_back(p.loss);
    whole.states.push_back(pupil.learner.state());
  };
  whole.result = pupil.learner.run(scenario);
  whole.model = pupil.model.state();
  whole.optimizer = pupil.optimizer.state();
  whole.strategies = strategies_of(pupil.learner, strategies().size());
  whole.random = default_generator().state();
  return whole;
}

/// Resumes after step `at` (0: the first) as another process would, and compares all that there is.
void check_resumed(const Whole& whole, const Scenario& scenario, const MakeStrategies& strategies, std::size_t at,
                   bool keep_optimizer = true) {
  INFO("after step " << at + 1);
  manual_seed(1000 + at);  // another model, other random numbers
  Pupil pupil(strategies, keep_optimizer);
  pupil.learner.load(whole.states[at]);
  randn({3});  // somebody draws in between
  const Result result = pupil.learner.run(scenario);
  CHECK(same_bits(pupil.losses,
                  std::vector<double>(whole.losses.begin() + static_cast<std::ptrdiff_t>(at) + 1, whole.losses.end())));
  CHECK(same_bits(pupil.model.state(), whole.model));
  CHECK(same_bits(pupil.optimizer.state(), whole.optimizer));
  CHECK(same_bits(strategies_of(pupil.learner, strategies().size()), whole.strategies));
  CHECK(default_generator().state() == whole.random);
  CHECK(result.strategies == whole.result.strategies);
  CHECK(result.tasks == whole.result.tasks);
  CHECK(same_bits(result.losses, whole.result.losses));
  CHECK(same_bits(result.accuracy.before, whole.result.accuracy.before));
  REQUIRE(result.accuracy.r.size() == whole.result.accuracy.r.size());
  for (std::size_t t = 0; t < result.accuracy.r.size(); ++t)
    CHECK(same_bits(result.accuracy.r[t], whole.result.accuracy.r[t]));
  CHECK(result.seconds.size() == whole.result.seconds.size());
  CHECK(result.steps == whole.result.steps);
  CHECK(result.test_reads == whole.result.test_reads);
}

}  // namespace

TEST_CASE("A run resumed after any step ends with the bits of a run without a break") {
  const Scenario scenario = small();
  const Freeze freeze({.globs = {"fc1.*"}});
  const Replay replay({.capacity = 20, .batch_size = 8, .seed = 3});
  const std::vector<std::pair<const char*, MakeStrategies>> cases{
      {"naive", listing(Naive())},
      {"ewc", listing(Ewc({.lambda = 50}))},
      {"online ewc", listing(Ewc({.lambda = 50, .online = true, .fisher = {.kind = Fisher::sampled}}))},
      {"replay", listing(replay)},
      {"freeze", listing(freeze)},
      {"mover", listing(Mover())},
      {"shrinker", listing(Shrinker())},
      {"ewc, replay and freeze", listing(Ewc({.lambda = 50}), replay, freeze)}};
  for (const auto& [name, strategies] : cases) {
    INFO(name);
    const Whole whole = run_whole(scenario, strategies);
    REQUIRE(whole.states.size() == kSteps);
    for (std::size_t at = 0; at < kSteps; ++at) check_resumed(whole, scenario, strategies, at);
  }
}

TEST_CASE("Runs that train all tasks at once, or start the optimizer anew, resume too") {
  const Scenario scenario = small();
  const Whole joint = run_whole(scenario, listing(Joint()));
  for (const std::size_t at : {std::size_t{0}, joint.states.size() / 2, joint.states.size() - 1})
    check_resumed(joint, scenario, listing(Joint()), at);
  const Whole fresh = run_whole(scenario, listing(Naive()), false);
  CHECK(fresh.optimizer.at("steps").item() == 6);  // of the last task, and so is the schedule's place
  for (std::size_t at = 4; at < 9; ++at) check_resumed(fresh, scenario, listing(Naive()), at, false);
}

TEST_CASE("A state goes through a file, also after the callback has stopped the run") {
  const test::Scratch scratch;
  const Scenario scenario = small();
  const MakeStrategies strategies = listing(Ewc({.lambda = 50}), Replay({.capacity = 20, .batch_size = 8}));
  Whole whole = run_whole(scenario, strategies);
  struct Stop {};
  for (const std::int64_t stop : {0, 2, 5, 8, 17}) {
    manual_seed(4);
    Pupil pupil(strategies);
    std::int64_t seen = 0;
    pupil.learner.options.on_progress = [&](const Progress&) {
      if (seen++ == stop) throw Stop();
    };
    CHECK_THROWS_AS(pupil.learner.run(scenario), Stop);
    const auto file = scratch.path() / "run.safetensors";
    nn::save_safetensors(file, pupil.learner.state());
    const auto at = static_cast<std::size_t>(stop);
    whole.states[at] = nn::load_safetensors(file);
    check_resumed(whole, scenario, strategies, at);
  }
}

TEST_CASE("A state that does not fit is refused with a list, and nothing has changed") {
  const Scenario scenario = small();
  const MakeStrategies strategies = listing(Naive(), Replay({.capacity = 20, .batch_size = 8, .seed = 3}));
  const nn::State good = run_whole(scenario, strategies).states[8];
  manual_seed(77);
  Pupil pupil(strategies);
  const auto refuses = [&](const nn::State& state, const std::vector<std::string>& complaints) {
    const nn::State model = pupil.model.state(), optimizer = pupil.optimizer.state(),
                    memory = pupil.learner.strategy(1).state();
    const GeneratorState random = default_generator().state();
    const std::string message = test::message_of([&] { pupil.learner.load(state); });
    CHECK_THAT(message, Contains("[load] the state does not fit this learner:"));
    for (const std::string& complaint : complaints) CHECK_THAT(message, Contains(complaint));
    CHECK(same_bits(pupil.model.state(), model));
    CHECK(same_bits(pupil.optimizer.state(), optimizer));
    CHECK(same_bits(pupil.learner.strategy(1).state(), memory));
    CHECK(default_generator().state() == random);
  };
  refuses({}, {"missing: learner/epochs", "missing: model/fc1.weight", "missing: steps", "no 'counters'"});
  nn::State bad = good;
  bad.erase("model/fc1.weight");
  bad["model/fc2.weight"] = zeros({6, 17});
  bad["model/fc2.bias"] = zeros({6}, f64);
  bad.erase("optimizer/fc1.bias/m");
  bad["optimizer/fc3.bias/m"] = zeros({1});
  bad.erase("strategy 1/y");
  bad["strategy 7/y"] = zeros({1});
  bad.erase("random/draw");
  bad["standing/task"] = tensor(std::vector<std::int64_t>{3}, {});
  refuses(bad, {"missing: model/fc1.weight", "mismatched: model/fc2.weight is f32 (6, 17), expected f32 (6, 16)",
                "mismatched: model/fc2.bias is f64 (6,), expected f32 (6,)", "missing: fc1.bias/m",
                "unexpected: fc3.bias/m", "strategy 1/", "does not fit capacity 20", "unexpected: strategy 7/y (1,)",
                "missing: random/draw", "differs: standing/task is 3, expected 0 to 2"});
  for (const std::int64_t position : {3, 41, 48, -16}) {  // no place between two batches of 16 of 40 examples
    bad = good;
    bad["standing/position"] = tensor(std::vector<std::int64_t>{position}, {});
    refuses(bad, {"differs: standing/position is " + std::to_string(position) + ", expected "});
  }
  for (const auto& [name, value] : good) {  // each name counts
    bad = good;
    bad.erase(name);
    if (name == "optimizer/fc1.weight/mask" || (name.starts_with("scenario/") && !name.ends_with("fingerprint")))
      continue;
    refuses(bad, {});
  }
  pupil.learner.options.epochs = 3;
  refuses(good, {"differs: learner/epochs is 2, expected 3"});
  pupil.learner.options.epochs = 2;
  pupil.learner.options.seed = 10;
  refuses(good, {"differs: learner/seed is 9, expected 10"});
  pupil.learner.options.seed = 9;
  pupil.learner.options.keep_optimizer = false;
  refuses(good, {"differs: learner/keep_optimizer is 1, expected 0"});
  pupil.learner.options.keep_optimizer = true;
  Pupil other(listing(Ewc()));
  CHECK_THROWS_WITH(other.learner.load(good), Contains("missing: learner/strategy 0 ewc") &&
                                                  Contains("unexpected: learner/strategy 0 naive") &&
                                                  Contains("unexpected: learner/strategy 1 replay"));

  const nn::State with_ewc = run_whole(scenario, listing(Ewc())).states[8];
  for (const auto& [name, value] : with_ewc) {
    if (!name.starts_with("strategy 0/")) continue;
    bad = with_ewc;
    bad.erase(name);
    CHECK_THROWS_WITH(other.learner.load(bad), Contains("strategy 0/: [ewc]") && Contains("of its shape"));
    bad[name + "?"] = bad["strategy 0/strength"] = value;
    CHECK_THROWS_WITH(other.learner.load(bad), Contains("[ewc] unexpected state 'strength'"));
    CHECK(other.learner.strategy(0).state().empty());
  }

  pupil.learner.load(good);
  Scenario shorter = scenario;
  shorter.tasks.pop_back();
  const nn::State model = pupil.model.state();
  CHECK_THROWS_WITH(pupil.learner.run(shorter),
                    Contains("[run] this is not the scenario") && Contains("missing: task 2 train"));
  CHECK_THROWS_WITH(pupil.learner.run(split_classes(test::clouds(6, 20, 13, 1), test::clouds(6, 10, 13, 2),
                                                    Setting::class_incremental, 2)),
                    Contains("differs: task 0 features 13, was 12"));
  CHECK_THROWS_WITH(pupil.learner.run(hold_out(scenario, 0.25)), Contains("differs: task 0 train 30, was 40"));
  CHECK_THROWS_WITH(pupil.learner.run(small({4, 5, 2, 3, 0, 1})), Contains("differs: task 0 fingerprint") &&
                                                                      Contains("differs: task 2 fingerprint") &&
                                                                      !Contains("task 1"));
  CHECK(same_bits(pupil.model.state(), model));
  pupil.learner.run(scenario);  // the one that it belongs to
  CHECK_THROWS_WITH(pupil.learner.load(good), Contains("has run already"));
}

TEST_CASE("Seconds before a break count for the task that it was in") {
  const Scenario scenario = small();
  nn::State state = run_whole(scenario, listing(Naive())).states[7];  // in the second task
  CHECK(state.at("standing/seconds").item() > 0);
  state["standing/seconds"] = tensor(std::vector<double>{1000}, {});
  Pupil pupil(listing(Naive()));
  pupil.learner.load(state);
  const Result result = pupil.learner.run(scenario);
  REQUIRE(result.seconds.size() == 3);
  CHECK(result.seconds[0] == state.at("result/seconds").to_vector<double>()[0]);
  CHECK(result.seconds[1] > 1000);
  CHECK(result.seconds[2] < 500);
}

TEST_CASE("A state exists between two steps alone") {
  const Scenario scenario = small();
  struct Asks final : Strategy {
    Learner* learner = nullptr;
    std::string name() const override { return "asks"; }
    void end_task(Context&) override { CHECK_THROWS_WITH(learner->state(), Contains("between two steps")); }
    Tensor loss(Context&, const Batch&, const Tensor&) override {
      CHECK_THROWS_WITH(learner->state(), Contains("between two steps"));
      return {};
    }
  };
  Pupil pupil(listing(Asks()));
  static_cast<Asks&>(pupil.learner.strategy(0)).learner = &pupil.learner;
  CHECK_THROWS_WITH(pupil.learner.state(), Contains("between two steps"));
  pupil.learner.run(scenario);
  CHECK_THROWS_WITH(pupil.learner.state(), Contains("between two steps"));
}
