// Fisher diagonals against their definitions, what a Fisher pass must leave alone, and EWC's penalty.
#include <cmath>
#include <functional>
#include <variant>

#include <stet/autograd/engine.h>
#include <stet/autograd/squared.h>
#include <stet/continual/adapters/adapters.h>
#include <stet/continual/learner.h>
#include <stet/continual/strategies/ewc.h>
#include <stet/nn/layers.h>
#include <stet/optim/optimizers.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/pools.h"

using namespace stet;
using namespace stet::continual;

namespace {

/// logits = W x in double precision.
struct SoftmaxRegression : nn::Module {
  nn::Parameter weight;
  SoftmaxRegression(std::int64_t in, std::int64_t out) : weight(this, "weight", initial(in, out)) {}
  Tensor operator()(const Tensor& x) const { return linear(cast(x, f64), weight); }
  static Tensor initial(std::int64_t in, std::int64_t out) {
    Generator generator(5);
    return randn({out, in}, generator, f64);
  }
};

/// A model with everything that a strategy can reach.
template <class Model> struct Bench {
  Model model;
  Scenario scenario;
  optim::Sgd optimizer;
  Forward forward;
  Context context;
  template <class... Arguments> explicit Bench(Scenario s, Arguments... arguments)
      : model(arguments...),
        scenario(std::move(s)),
        optimizer(model.parameters(), {.lr = 1}),
        forward([this](const Tensor& x) { return model(x); }),
        context{model, optimizer, scenario, forward, 0, {}} {}
};

Scenario small(Setting setting = Setting::class_incremental) {
  return split_classes(test::clouds(4, 40, 6, 1), test::clouds(4, 3, 6, 2), setting, 2);
}

double worst(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item() / max(abs(b)).item(); }

/// The definition: one gradient a sample (and label), squared.
Tensor by_loop(const Bench<SoftmaxRegression>& bench, const Examples& examples) {
  Tensor total = zeros(bench.model.weight.shape(), f64);
  for (std::int64_t i = 0; i < examples.size(); ++i) {
    const Batch one = examples.range(i, i + 1);
    total = total + square(grad(sum(cross_entropy_rows(bench.context.logits(one), one.y)), {bench.model.weight})[0]);
  }
  return total * (1.0 / static_cast<double>(examples.size()));
}

}  // namespace

TEST_CASE("The exact Fisher of softmax regression is E[x_j^2 p_k (1 - p_k)], whatever the batch size") {
  for (const Setting setting : {Setting::class_incremental, Setting::task_incremental}) {
    Bench<SoftmaxRegression> bench(small(setting), 6, 4);
    if (setting == Setting::task_incremental) bench.context.output_mask = bench.scenario.output_mask();
    const Examples& examples = bench.context.train();
    const Batch all = examples.range(0, examples.size());
    const Tensor p = softmax(bench.context.logits(all)).detach(), x = cast(all.x, f64);
    const Tensor expected = matmul(transpose(p * (1.0 - p)), square(x)) * (1.0 / static_cast<double>(examples.size()));
    for (const std::int64_t batch : {1, 7, 128}) {
      const Tensor found = fisher_diagonal(bench.context, examples, {.batch_size = batch}).at("weight");
      CHECK(worst(found, expected) <= 1e-10);
    }
    if (setting == Setting::task_incremental) CHECK(max(abs(slice(expected, 0, 2, 4))).item() == 0);
  }
}

TEST_CASE("The empirical Fisher is the loop over samples; the batch mean is another quantity, and says so") {
  Bench<SoftmaxRegression> bench(small(), 6, 4);
  const Examples& examples = bench.context.train();
  const Tensor expected = by_loop(bench, examples);
  const auto diagonal = [&](Fisher kind, std::int64_t batch) {
    return fisher_diagonal(bench.context, examples, {.kind = kind, .batch_size = batch}).at("weight");
  };
  for (const std::int64_t batch : {1, 7, 128}) CHECK(worst(diagonal(Fisher::empirical, batch), expected) <= 1e-10);
  CHECK(worst(diagonal(Fisher::batch_mean, 1), expected) <= 1e-10);
  CHECK(worst(diagonal(Fisher::batch_mean, 40), expected) > 0.3);
  CHECK(name_of(Fisher::batch_mean) == "batch_mean");
  CHECK(name_of(Fisher::exact) == "exact");
}

TEST_CASE("The batch-mean Fisher weighs the square of each batch's mean gradient by the batch") {
  Bench<SoftmaxRegression> bench(small(), 6, 4);
  const Examples& examples = bench.context.train();
  REQUIRE(examples.size() == 80);
  Tensor expected = zeros(bench.model.weight.shape(), f64);
  for (std::int64_t at = 0; at < 80; at += 50) {
    const Batch batch = examples.range(at, std::min<std::int64_t>(at + 50, 80));
    const Tensor g = grad(mean(cross_entropy_rows(bench.context.logits(batch), batch.y)), {bench.model.weight})[0];
    expected = expected + square(g) * (static_cast<double>(batch.size()) / 80);
  }
  const FisherOptions options{.kind = Fisher::batch_mean, .batch_size = 50};
  CHECK(worst(fisher_diagonal(bench.context, examples, options).at("weight"), expected) <= 1e-10);
}

TEST_CASE("The sampled Fisher does not depend on the batch size and is unbiased for the exact one") {
  Bench<SoftmaxRegression> bench(small(), 6, 4);
  const Examples& examples = bench.context.train();
  const auto sampled = [&](std::uint64_t seed, std::int64_t batch) {
    return fisher_diagonal(bench.context, examples, {.kind = Fisher::sampled, .batch_size = batch, .seed = seed})
        .at("weight");
  };
  CHECK(worst(sampled(1, 7), sampled(1, 128)) <= 1e-10);
  CHECK_FALSE(same(sampled(1, 128), sampled(2, 128)));
  constexpr int kRuns = 400;
  Tensor total = zeros({4, 6}, f64), squares = zeros({4, 6}, f64);
  for (int seed = 0; seed < kRuns; ++seed) {
    const Tensor one = sampled(static_cast<std::uint64_t>(seed), 128);
    total = total + one;
    squares = squares + square(one);
  }
  const Tensor average = total / kRuns, error = sqrt((squares / kRuns - square(average)) / kRuns);
  const Tensor exact = fisher_diagonal(bench.context, examples).at("weight");
  const auto off = (abs(average - exact) / error).to_vector<double>();
  for (const double sigmas : off) CHECK(sigmas < 4.5);
}

TEST_CASE("A number of samples is spread evenly over the examples") {
  Bench<SoftmaxRegression> bench(small(), 6, 4);
  const Examples& train = bench.context.train();
  REQUIRE(train.size() == 80);
  const Batch half = train.range(0, 80);
  const auto pool = std::make_shared<const Pool>(Pool{half.x, half.y});
  std::vector<std::int64_t> even;
  for (std::int64_t i = 0; i < 80; i += 2) even.push_back(i);
  const Tensor some = fisher_diagonal(bench.context, train, {.samples = 40}).at("weight");
  CHECK(same(some, fisher_diagonal(bench.context, Examples(pool, even, 0)).at("weight")));
}

TEST_CASE("A Fisher pass leaves buffers, modes and gradients alone, and repeats to the bit under dropout") {
  Bench<nn::Sequential> bench(small());
  nn::Sequential& model = bench.model;
  model.add<nn::Linear>("fc1", 6, 16);
  nn::Dropout& dropout = model.add<nn::Dropout>("dropout", 0.5);
  model.add<nn::Linear>("fc2", 16, 4).eval();
  model.freeze("fc1.bias");
  const Batch batch = bench.context.train().range(0, 8);
  mean(cross_entropy_rows(model(batch.x), batch.y)).backward();
  const nn::State before = model.state();
  std::vector<Tensor> gradients;
  for (const nn::Parameter* p : model.trainable_parameters()) gradients.push_back(p->grad().clone());
  for (const Fisher kind : {Fisher::exact, Fisher::sampled, Fisher::empirical, Fisher::batch_mean}) {
    const nn::State first = fisher_diagonal(bench.context, bench.context.train(), {.kind = kind});
    const nn::State second = fisher_diagonal(bench.context, bench.context.train(), {.kind = kind});
    CHECK(first.size() == 3);
    CHECK_FALSE(first.contains("fc1.bias"));
    for (const auto& [name, value] : first) CHECK(same(value, second.at(name)));
  }
  CHECK(model.is_training());
  CHECK(dropout.is_training());
  CHECK_FALSE(model.children().back()->is_training());
  for (const auto& [name, value] : model.state()) CHECK(same(value, before.at(name)));
  std::size_t i = 0;
  for (const nn::Parameter* p : model.trainable_parameters()) CHECK(same(p->grad(), gradients[i++]));
  model.freeze("*");
  CHECK(fisher_diagonal(bench.context, bench.context.train()).empty());
}

TEST_CASE("EWC sees the parameters of adapters like any others, DoRA's magnitudes and (IA)^3's factors too") {
  const LoraOptions lora{.targets = {"*"}, .rank = 2}, dora{.targets = {"*"}, .rank = 2, .dora = true};
  const Ia3Options ia3{.targets = {"*"}}, feedforward{.targets = {"*1"}, .feedforward = {"*2"}};
  using Options = std::variant<LoraOptions, Ia3Options>;
  for (const auto& [options, count] :
       std::vector<std::pair<Options, std::size_t>>{{lora, 4}, {dora, 6}, {ia3, 2}, {feedforward, 2}}) {
    Bench<nn::Mlp> bench(small(), std::vector<std::int64_t>{6, 5, 4});
    Adapters adapters(bench.model);
    std::visit([&](const auto& chosen) { adapters.attach("a", chosen); }, options);
    adapters.freeze_base();
    test::shake(adapters.parameters("a"));
    const Examples& examples = bench.context.train();
    const auto parameters = bench.model.trainable_parameters();
    std::vector<Tensor> expected;
    for (const nn::Parameter* p : parameters) expected.push_back(zeros(p->shape(), f64));
    for (std::int64_t i = 0; i < examples.size(); ++i) {
      const Batch one = examples.range(i, i + 1);
      const Tensor loss = sum(cross_entropy_rows(bench.context.logits(one), one.y));
      for (std::size_t k = 0; k < parameters.size(); ++k)
        expected[k] = expected[k] + square(cast(grad(loss, {parameters[k]->value()}, {.retain_graph = true})[0], f64));
    }
    Ewc ewc({.fisher = {.kind = Fisher::empirical, .batch_size = 5}});  // as many as a layer has outputs
    ewc.end_task(bench.context);
    const nn::State found = fisher_diagonal(bench.context, examples, {.kind = Fisher::empirical, .batch_size = 5});
    CHECK(found.size() == count);
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      CAPTURE(parameters[k]->path());
      CHECK(worst(cast(found.at(parameters[k]->path()), f64), expected[k] / static_cast<double>(examples.size())) <
            1e-5);
    }
  }
}

TEST_CASE("(IA)^3's factors have per-sample gradients in a sequence too") {
  test::LlamaCase llama;
  Adapters adapters(llama.model);
  adapters.attach("a", Ia3Options{.targets = {"*k_proj", "*v_proj"}, .feedforward = {"*down_proj"}});
  adapters.freeze_base();
  test::shake(adapters.parameters("a"));
  std::vector<Tensor> parameters;
  for (const nn::Parameter* p : adapters.parameters("a")) parameters.push_back(p->value());
  const Tensor logits = llama.model(llama.tokens);
  const Tensor losses = sum(square(logits), {1, 2});
  std::vector<Tensor> expected(parameters.size());
  for (std::int64_t i = 0; i < 2; ++i) {
    const auto one = grad(sum(slice(losses, 0, i, i + 1)), parameters, {.retain_graph = true});
    for (std::size_t k = 0; k < one.size(); ++k)
      expected[k] = expected[k].defined() ? expected[k] + square(one[k]) : square(one[k]);
  }
  const auto found = squared_gradients(losses, parameters);
  for (std::size_t k = 0; k < found.size(); ++k) CHECK(worst(found[k], expected[k]) < 1e-5);
}

TEST_CASE("A model without per-sample gradients is refused before EWC has it trained") {
  struct Doubled : nn::Module {
    nn::Linear fc{this, "fc", 6, 4};
    Tensor operator()(const Tensor& x) { return linear(x, fc.weight * 2.0, *fc.bias); }
  };
  Bench<Doubled> bench(small());
  const Tensor before = bench.model.fc.weight.value().clone();
  Learner learner(bench.model, bench.optimizer, Ewc());
  CHECK_THROWS_WITH(learner.run(bench.scenario), Catch::Matchers::Contains("consumes parameter 'fc.weight'"));
  CHECK(same(bench.model.fc.weight.value(), before));
}

namespace {

/// How far one plain step of size 1 moves the weight when the loss itself has no gradient: the penalty's
/// gradient.
Tensor penalty_gradient(Bench<SoftmaxRegression>& bench, const Tensor& at) {
  bench.model.weight.set(at);
  bench.optimizer.zero_grad();
  sum(bench.model.weight.value() * 0.0).backward();
  bench.optimizer.step();
  return at - bench.model.weight.value().detach();
}

}  // namespace

TEST_CASE("EWC's gradient is lambda F (theta - anchor), summed over tasks") {
  Bench<SoftmaxRegression> bench(small(Setting::domain_incremental), 6, 2);
  const Tensor anchor0 = bench.model.weight.value().clone();
  const Tensor anchor1 = anchor0 * 0.5, here = anchor0 * 2.0 + 0.1;
  Ewc separate({.lambda = 3}), online({.lambda = 3, .online = true, .gamma = 0.5});
  std::vector<Tensor> fisher;
  for (const Tensor& anchor : {anchor0, anchor1}) {
    bench.model.weight.set(anchor);
    fisher.push_back(fisher_diagonal(bench.context, bench.context.train()).at("weight"));
    separate.end_task(bench.context);
    online.end_task(bench.context);
    ++bench.context.task;
    if (bench.context.task > 1) continue;
    separate.begin_task(bench.context);
    CHECK(worst(penalty_gradient(bench, here), fisher[0] * (here - anchor0) * 3.0) <= 1e-12);
  }
  bench.context.task = 1;
  separate.begin_task(bench.context);
  const Tensor sum_of_both = (fisher[0] * (here - anchor0) + fisher[1] * (here - anchor1)) * 3.0;
  CHECK(worst(penalty_gradient(bench, here), sum_of_both) <= 1e-12);

  SECTION("a saved state gives the same penalties") {
    Bench<SoftmaxRegression> resumed(small(Setting::domain_incremental), 6, 2);
    Ewc loaded({.lambda = 3});
    loaded.load(separate.state());
    loaded.begin_task(resumed.context);
    CHECK(same(penalty_gradient(resumed, here), penalty_gradient(bench, here)));
  }
  SECTION("online: one running Fisher and the last anchor") {
    Bench<SoftmaxRegression> fresh(small(Setting::domain_incremental), 6, 2);
    online.begin_task(fresh.context);
    const Tensor expected = (fisher[0] * 0.5 + fisher[1]) * (here - anchor1) * 3.0;
    CHECK(worst(penalty_gradient(fresh, here), expected) <= 1e-12);
  }
}
