// Split Fashion-MNIST: five tasks of two classes, one after the other, in three settings and under five
// strategies. Run: build/release/examples/split_fashion_mnist [--help]. Prints ACC, forgetting and seconds
// for each, and writes results.json and accuracy_matrix.svg. Under a minute on two cores.
#include <chrono>
#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include <stet/cuda/cuda.h>
#include <stet/stet.h>

#include "checks.h"

using namespace stet;
using namespace stet::continual;

namespace {

constexpr Setting kSettings[] = {Setting::task_incremental, Setting::domain_incremental, Setting::class_incremental};
const std::vector<std::string> kMethods{"naive", "joint", "EWC", "replay 500", "head-only"};

// EWC's strength in each setting: the best mean validation ACC of `split_fashion_mnist --tune`, which holds out the
// last tenth of each task's training examples and never reads the test split. Neighbouring powers lie within the
// spread.
constexpr double kLambda[] = {1e5, 1e7, 1e7};

struct Arguments {
  std::string out = ".", data = "fashion-mnist", device = "cpu";
  int seeds = 3, threads = 0;
  bool tune = false;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--out", a.out, "where results.json and accuracy_matrix.svg go");
  app.add_option("--data", a.data, "data set by name, or a folder with IDX files");
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(CLI::Range(1, 256));
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_option("--device", a.device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_flag("--tune", a.tune, "choose EWC's lambda on held-out training examples, seeds 101 to 106; writes nothing");
}

/// Models, and whatever else is made, go there.
void use_device(const std::string& name) {
  if (name == "cpu") return;
  set_default_device(Device::cuda());
  std::cout << "on cuda:0, " << cuda::device_name() << (cuda::simulated() ? " (simulated: right, but slow)\n" : "\n");
}

void add_strategy(Learner& learner, const std::string& method, double lambda, std::uint64_t seed) {
  if (method == "joint") learner.add(std::make_unique<Joint>());
  if (method == "EWC") learner.add(std::make_unique<Ewc>(EwcOptions{.lambda = lambda, .fisher = {.samples = 1000}}));
  if (method == "replay 500")
    learner.add(std::make_unique<Replay>(ReplayOptions{.capacity = 500, .batch_size = 32, .seed = seed}));
  if (method == "head-only") learner.add(std::make_unique<Freeze>(FreezeOptions{.globs = {"fc1.*", "fc2.*"}}));
}

/// Without `on_progress` a run that diverges is not stopped: it is tuning, and such a lambda scores what it deserves.
Result learn(const Scenario& scenario, const std::string& method, double lambda, std::uint64_t seed,
             const std::function<void(const Progress&)>& on_progress) {
  manual_seed(seed);  // initial weights
  nn::Mlp model({784, 256, 256, scenario.outputs});
  optim::Adam optimizer(model.parameters(), {.lr = 1e-3});
  Learner learner(model, optimizer);
  learner.options = {.batch_size = 64,
                     .epochs = 1,
                     .seed = seed,
                     .on_progress = on_progress,
                     .stop_when_diverged = on_progress != nullptr};
  add_strategy(learner, method, lambda, seed);
  return learner.run(scenario);
}

void tune(const Pool& train, const Pool& test) {
  ProgressLine line;
  for (int s = 0; s < 3; ++s) {
    const Scenario scenario = hold_out(split_classes(train, test, kSettings[s], 2), 0.1);
    for (int power = 2; power <= 8; ++power) {
      line.update((s + (power - 2.0) / 7) / 3, "tuning EWC");
      std::vector<double> accuracy;
      for (std::uint64_t seed = 101; seed <= 106; ++seed)
        accuracy.push_back(learn(scenario, "EWC", std::pow(10, power), seed, {}).accuracy.accuracy());
      const Spread spread = spread_of(accuracy);
      line.wipe();
      std::printf("%-18s  lambda 1e%d  validation ACC %.1f ± %.1f %%\n", std::string(name_of(kSettings[s])).c_str(),
                  power, 100 * spread.mean, 100 * spread.deviation);
    }
  }
}

std::vector<Run> run_all(const Pool& train, const Pool& test, int seeds) {
  std::vector<Run> runs;
  ProgressLine line;
  const double total = 3.0 * static_cast<double>(kMethods.size()) * seeds;
  for (int s = 0; s < 3; ++s)
    for (const std::string& method : kMethods)
      for (int seed = 1; seed <= seeds; ++seed) {
        const Scenario scenario = split_classes(train, test, kSettings[s], 2);
        const auto progress = [&](const Progress& p) {
          const double part = (p.task + static_cast<double>(p.step) / static_cast<double>(p.steps)) / p.tasks;
          line.update((static_cast<double>(runs.size()) + part) / total,
                      std::string(name_of(kSettings[s])) + ", " + method + ", seed " + std::to_string(seed));
        };
        const auto number = static_cast<std::uint64_t>(seed);
        runs.push_back({method, number, learn(scenario, method, kLambda[s], number, progress)});
      }
  return runs;
}

/// Matrices of the last seed: these methods in each setting.
std::vector<HeatMap> matrices(const std::vector<Run>& runs, const std::vector<std::string>& methods, int seeds) {
  std::vector<HeatMap> maps;
  for (const Run& run : runs)
    if (run.seed == static_cast<std::uint64_t>(seeds) && std::count(methods.begin(), methods.end(), run.label))
      maps.push_back(
          {std::string(name_of(run.result.setting)) + ": " + run.label, run.result.accuracy, run.result.tasks});
  return maps;
}

/// A sentence is printed as shown only where the numbers carry it.
void conclude(const std::vector<Summary>& all) {
  const auto at = [&](Setting setting, std::string_view method) -> const Summary& {
    return *std::find_if(all.begin(), all.end(),
                         [&](const Summary& s) { return s.setting == setting && s.label == method; });
  };
  const auto beats = [&](Setting setting, std::string_view method, std::string_view other = "naive", double by = 0) {
    const Spread a = at(setting, method).accuracy, b = at(setting, other).accuracy;
    return a.mean - a.deviation > b.mean + b.deviation + by;  // by more than both deviations
  };
  const auto acc = [&](Setting setting, std::string_view method) { return 100 * at(setting, method).accuracy.mean; };
  const auto say = [](bool holds, const std::string& sentence) {
    std::cout << (holds ? "" : "Not shown by these runs (by more than their spread): ") << sentence << '\n';
  };
  const auto task = Setting::task_incremental, domain = Setting::domain_incremental,
             all_classes = Setting::class_incremental;
  char text[400];
  const Spread lost = at(all_classes, "naive").forgetting;
  std::snprintf(text, sizeof text,
                "Plain fine-tuning forgets: class-incremental forgetting is %.0f points, and ACC %.0f %% "
                "against %.0f %% for joint training.",
                100 * lost.mean, acc(all_classes, "naive"), acc(all_classes, "joint"));
  say(lost.mean - lost.deviation > 0.5 && beats(all_classes, "joint"), text);
  std::snprintf(
      text, sizeof text,
      "Replay keeps more in every setting (ACC %.0f, %.0f, %.0f %% against %.0f, %.0f, %.0f %%), "
      "EWC where the task is known (%.0f %%); where classes of all tasks compete it stays far behind replay (%.0f %%).",
      acc(task, "replay 500"), acc(domain, "replay 500"), acc(all_classes, "replay 500"), acc(task, "naive"),
      acc(domain, "naive"), acc(all_classes, "naive"), acc(task, "EWC"), acc(all_classes, "EWC"));
  say(beats(task, "replay 500") && beats(domain, "replay 500") && beats(all_classes, "replay 500") &&
          beats(task, "EWC") && beats(all_classes, "replay 500", "EWC", 0.2),
      text);
}

void compare(const Arguments& arguments, const Pool& train, const Pool& test) {
  make_folder(arguments.out);
  const auto start = std::chrono::steady_clock::now();
  const auto runs = run_all(train, test, arguments.seeds);
  const auto summaries = summarise(runs);
  const std::string set = "Split " + (arguments.data == "fashion-mnist" ? "Fashion-MNIST" : arguments.data);
  std::printf(
      "%s, 5 tasks of 2 classes. MLP 784-256-256, Adam 1e-3, batch 64, one epoch a task, "
      "EWC lambda "
      "%.0e, %.0e, %.0e.\nMean ± standard deviation over seeds 1 to %d.\n\n%s\n",
      set.c_str(), kLambda[0], kLambda[1], kLambda[2], arguments.seeds, table(summaries).c_str());
  std::printf("Accuracy in %% on each task (column) after learning each task (row), seed %d:\n\n", arguments.seeds);
  const auto shown = matrices(runs, {"naive", "replay 500"}, arguments.seeds);
  for (std::size_t i = 0; i + 1 < shown.size(); i += 2) std::cout << table({shown[i], shown[i + 1]}) << '\n';
  if (arguments.seeds > 1) conclude(summaries);
  else std::cout << "One seed has no spread, so nothing is concluded from it: --seeds 3 does.\n";
  const std::filesystem::path out = arguments.out;
  write_results_json(out / "results.json", runs,
                     {{"program", "split_fashion_mnist"},
                      {"model", "MLP 784-256-256"},
                      {"training", "Adam 1e-3, batch 64, one epoch a task"}});
  write_accuracy_matrices_svg(out / "accuracy_matrix.svg", set + ", seed " + std::to_string(arguments.seeds),
                              matrices(runs, {"naive", "EWC", "replay 500", "head-only"}, arguments.seeds), 4);
  std::printf("%zu runs in %.0f s on %d threads; results.json and accuracy_matrix.svg are in %s\n", runs.size(),
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), threads(),
              std::filesystem::absolute(out).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("Split Fashion-MNIST: five tasks, one after the other, in three settings and under five strategies.");
  Arguments arguments;
  describe(app, arguments);
  return program(app, count, words, [&] {
    if (arguments.threads > 0) set_threads(arguments.threads);
    use_device(arguments.device);
    const Pool train = pool_of(data::load_images(arguments.data, data::Split::train));
    const Pool test = pool_of(data::load_images(arguments.data, data::Split::test));
    if (arguments.tune) tune(train, test);
    else compare(arguments, train, test);
  });
}
