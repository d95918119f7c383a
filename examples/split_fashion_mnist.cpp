// Split Fashion-MNIST: five tasks of two classes, one after the other, in three settings and under five
// strategies. Run: build/release/examples/split_fashion_mnist [--help]. Prints ACC, forgetting and seconds
// for each, and writes results.json and accuracy_matrix.svg. Under a minute on two cores.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <iostream>

#include <stet/stet.h>

using namespace stet;
using namespace stet::continual;

namespace {

constexpr Setting kSettings[] = {Setting::task_incremental, Setting::domain_incremental,
                                 Setting::class_incremental};
const std::vector<std::string> kMethods{"naive", "joint", "EWC", "replay 500", "head-only"};

// EWC's strength in each setting: the best validation ACC of `split_fashion_mnist --tune`, which holds out
// the last tenth of each task's training examples and never reads the test split.
constexpr double kLambda[] = {1e5, 1e5, 1e5};

struct Arguments {
  std::string out = ".", data = "fashion-mnist";
  int seeds = 3, threads = 0;
  bool tune = false;
};

constexpr const char* kHelp =
    "split_fashion_mnist [--out DIR] [--data NAME_OR_DIR] [--seeds N] [--threads N] [--tune] [--help]\n"
    "  --out DIR      where results.json and accuracy_matrix.svg go (default: here)\n"
    "  --data D       data set by name, or a folder with IDX files (default: fashion-mnist)\n"
    "  --seeds N      seeds 1 to N (default: 3)\n"
    "  --threads N    threads (default: one for each core)\n"
    "  --tune         choose EWC's lambda on held-out training examples, seed 100; writes nothing\n";

int number(const std::string& name, const std::string& text) {
  int value = 0;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  check(parsed.ec == std::errc() && parsed.ptr == end && value >= 1 && value <= 256, "split_fashion_mnist",
        name, " ", text, ": expected a number from 1 to 256");
  return value;
}

Arguments parse(int count, char** words) {
  Arguments out;
  for (int i = 1; i < count; ++i) {
    const std::string name = words[i];
    if (name == "--help") {
      std::cout << kHelp;
      std::exit(0);
    }
    if (name == "--tune") {
      out.tune = true;
      continue;
    }
    const bool known = name == "--out" || name == "--data" || name == "--seeds" || name == "--threads";
    check(known, "split_fashion_mnist", "unknown argument '", name, "'\n", kHelp);
    check(i + 1 < count, "split_fashion_mnist", name, " needs a value");
    const std::string value = words[++i];
    if (name == "--out")
      out.out = value;
    else if (name == "--data")
      out.data = value;
    else
      (name == "--seeds" ? out.seeds : out.threads) = number(name, value);
  }
  return out;
}

void add_strategy(Learner& learner, const std::string& method, double lambda, std::uint64_t seed) {
  if (method == "joint") learner.add(std::make_unique<Joint>());
  if (method == "EWC")
    learner.add(std::make_unique<Ewc>(EwcOptions{.lambda = lambda, .fisher = {.samples = 1000}}));
  if (method == "replay 500")
    learner.add(std::make_unique<Replay>(ReplayOptions{.capacity = 500, .seed = seed}));
  if (method == "head-only")
    learner.add(std::make_unique<Freeze>(FreezeOptions{.globs = {"fc1.*", "fc2.*"}}));
}

Result learn(const Scenario& scenario, const std::string& method, double lambda, std::uint64_t seed,
             const std::function<void(const Progress&)>& on_progress) {
  manual_seed(seed);  // initial weights
  nn::Mlp model({784, 256, 256, scenario.outputs});
  optim::Adam optimizer(model.parameters(), {.lr = 1e-3});
  Learner learner(model, optimizer);
  learner.options = {.batch_size = 64, .epochs = 1, .seed = seed, .on_progress = on_progress};
  add_strategy(learner, method, lambda, seed);
  return learner.run(scenario);
}
