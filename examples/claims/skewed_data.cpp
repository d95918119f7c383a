// Claim: more data that is skewed makes a model forget more than less data that is diverse. A classifier of
// Fashion-MNIST goes on with images that are turned, by 30 or by 90 degrees: 4,000 of two classes, or 1,000 of all.
// What is left of the upright ones? Run: build/release/examples/claims/skewed_data [--help]. Under a minute on two
// cores.
#include <algorithm>
#include <array>
#include <cstdio>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

using Positions = std::vector<std::int64_t>;
constexpr std::size_t kBatchSize = 64;
constexpr std::int64_t kClasses = 10;

int steps_upright(const Arguments& arguments) { return arguments.quick ? 50 : 1400; }

/// One way to go on: how many images of two classes, how many of all, for how many steps.
struct Diet {
  std::string name;
  std::size_t skewed, diverse;
  int steps;
};

std::vector<Diet> diets(bool quick) {
  const int steps = quick ? 10 : 250;
  return {
      {"1,000 of all classes", 0, 1000, steps},           {"4,000 of two classes", 4000, 0, steps},
      {"1,000 of all + 3,000 of two", 3000, 1000, steps}, {"4,000 of all classes", 0, 4000, steps},
      {"1,000 of two classes", 1000, 0, steps},           {"1,000 of all, a quarter of the steps", 0, 1000, steps / 4}};
}

struct Measured {
  std::vector<double> old_all, old_two, old_rest, fresh;  // of each seed, percent
};

/// Share of right answers for each class.
std::array<double, kClasses> accuracies(nn::Mlp& model, const Examples& examples) {
  const NoGrad no_grad;
  std::array<double, kClasses> right{}, all{};
  for (std::int64_t at = 0; at < examples.size(); at += 1000) {
    const Batch batch = examples.range(at, std::min(at + 1000, examples.size()));
    const Tensor hits = equal(argmax(model(batch.x)), batch.y);
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const auto label = static_cast<std::size_t>(batch.y.data<std::int64_t>()[i]);
      right[label] += hits.data<bool>()[i];
      ++all[label];
    }
  }
  for (std::size_t c = 0; c < right.size(); ++c) right[c] /= all[c];
  return right;
}

/// Mean over the classes that are (are not) among `two`, in percent.
double mean_over(const std::array<double, kClasses>& accuracy, const Positions& two, bool among) {
  double total = 0, count = 0;
  for (std::size_t c = 0; c < accuracy.size(); ++c)
    if ((std::count(two.begin(), two.end(), static_cast<std::int64_t>(c)) > 0) == among) total += accuracy[c], ++count;
  return 100 * total / count;
}

/// Adam 1e-3 on batches of 64 from `chosen`, in a new order after each pass.
void train(nn::Mlp& model, const Examples& examples, const Positions& chosen, int steps, Generator order,
           const std::function<void()>& report) {
  optim::Adam optimizer(model.parameters(), {.lr = 1e-3});
  Positions left;
  for (int step = 0; step < steps; ++step) {
    Positions batch;
    while (batch.size() < kBatchSize) {
      if (left.empty())
        for (const auto i : permutation(order, static_cast<std::int64_t>(chosen.size())))
          left.push_back(chosen[static_cast<std::size_t>(i)]);
      batch.push_back(left.back());
      left.pop_back();
    }
    const Batch now = examples.batch(batch);
    optimizer.zero_grad();
    nn::cross_entropy(model(now.x), now.y).backward();
    optimizer.step();
    report();
  }
}

/// The first `diverse` images of `order`, and the first `skewed` of the two classes that follow them.
Positions choose(const Positions& order, const Tensor& labels, const Positions& two, const Diet& diet) {
  Positions out(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(diet.diverse));
  for (std::size_t i = diet.diverse; i < order.size() && out.size() < diet.diverse + diet.skewed; ++i)
    if (std::count(two.begin(), two.end(), labels.data<std::int64_t>()[order[i]])) out.push_back(order[i]);
  check(out.size() == diet.diverse + diet.skewed, "skewed_data", out.size(), " images for '", diet.name, "'");
  return out;
}

std::vector<Measured> measure(const Arguments& arguments, const Pool& train_pool, const Pool& test_pool, double angle,
                              std::vector<double>& before) {
  const Scenario scenario = rotated(train_pool, test_pool, Setting::domain_incremental, 28, {0, angle});
  const Examples &old = scenario.tasks[0].train, &turned = scenario.tasks[1].train;
  const Examples &old_test = scenario.tasks[0].test.read(), &turned_test = scenario.tasks[1].test.read();
  const std::int64_t half = old.size() / 2;  // upright images from one half, turned ones from the other
  const auto all = diets(arguments.quick);
  const int first_steps = steps_upright(arguments);
  double steps = first_steps;
  for (const Diet& diet : all) steps += diet.steps;
  StepCounter counter(arguments.seeds * steps);
  std::vector<Measured> out(all.size());
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(arguments.seeds); ++seed) {
    manual_seed(seed);
    const Generator root(seed);
    Generator shuffled = root.fork("images"), classes = root.fork("classes");
    nn::Mlp model({784, 256, 256, kClasses});
    Positions upright(static_cast<std::size_t>(half));
    for (std::size_t i = 0; i < upright.size(); ++i) upright[i] = static_cast<std::int64_t>(i);
    train(model, old, upright, first_steps, root.fork("first"), counter.of("upright"));
    Positions order = permutation(shuffled, old.size() - half), two = permutation(classes, kClasses);
    for (auto& position : order) position += half;
    two.resize(2);
    const nn::State start = model.state();
    const auto known = accuracies(model, old_test);
    before.push_back(mean_over(known, {}, false));
    for (std::size_t i = 0; i < all.size(); ++i) {
      model.load(start);
      train(model, turned, choose(order, train_pool.y, two, all[i]), all[i].steps, root.fork("second"),
            counter.of(all[i].name));
      const auto left = accuracies(model, old_test), fresh = accuracies(model, turned_test);
      out[i].old_all.push_back(mean_over(known, {}, false) - mean_over(left, {}, false));
      out[i].old_two.push_back(mean_over(known, two, true) - mean_over(left, two, true));
      out[i].old_rest.push_back(mean_over(known, two, false) - mean_over(left, two, false));
      out[i].fresh.push_back(mean_over(fresh, {}, false));
    }
  }
  return out;
}

void conclude(const std::vector<Measured>& m) {
  const auto judge = [&](const char* what, std::size_t i) {
    const auto more = minus(m[i].old_all, m[0].old_all), less = minus(m[0].old_all, m[i].old_all);
    const char* verdict = clearly_positive(more) ? "forgets more than" : "does not clearly differ from";
    if (clearly_positive(less)) verdict = "forgets less than";
    std::printf("%s %s 1,000 of all: %.1f points lost against %.1f (difference %s).\n", what, verdict,
                mean_of(m[i].old_all), mean_of(m[0].old_all), cell(more, 1).c_str());
  };
  judge("Four times as many images of two classes alone", 1);
  judge("Adding 3,000 of two classes", 2);
  judge("Adding 3,000 of all classes", 3);
}

void compare(const Arguments& arguments) {
  const Pool train_pool = pool_of(data::load_images(arguments.data, data::Split::train));
  const Pool test_pool = pool_of(data::load_images(arguments.data, data::Split::test));
  std::printf(
      "MLP 784-256-256, %d steps on upright %s, then on turned images; Adam 1e-3, batches of 64, as many "
      "steps\nfor all rows but the last. Mean ± deviation over seeds 1 to %d, in points of test accuracy.\nLost: fall "
      "of "
      "the accuracy on upright images.\n\n",
      steps_upright(arguments), arguments.data == "fashion-mnist" ? "Fashion-MNIST" : arguments.data.c_str(),
      arguments.seeds);
  for (const double angle : {30.0, 90.0}) {
    std::vector<double> before;
    const auto measured = measure(arguments, train_pool, test_pool, angle, before);
    std::printf("Turned by %.0f degrees; upright before: %s\n\n", angle, cell(before, 1, false).c_str());
    Table table({"continues with", "steps", "lost", "of the two classes", "of the other eight", "turned: accuracy"});
    const auto all = diets(arguments.quick);
    for (std::size_t i = 0; i < all.size(); ++i)
      table.add({all[i].name, std::to_string(all[i].steps), cell(measured[i].old_all, 1), cell(measured[i].old_two, 1),
                 cell(measured[i].old_rest, 1), cell(measured[i].fresh, 1, false)});
    table.print();
    if (enough_seeds(arguments)) conclude(measured);
    std::printf("\n");
  }
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "More but skewed data against less but diverse data.", false, compare);
}
