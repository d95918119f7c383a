// Every optimizer with every combination of its options against 100 steps of PyTorch in f64: parameters and
// state.
#include <iostream>
#include <memory>

#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/goldens.h"

using namespace stet;
using test::GoldenCase;

namespace {

constexpr double kBound = 1e-6, kExpected = 1e-11;
constexpr int kSteps = 100;

enum Option {
  lr,
  momentum,
  dampening,
  weight_decay,
  nesterov,
  beta1,
  beta2,
  eps,
  amsgrad,
  lr_decay,
  initial,
  clip_norm,
  clip_value,
  step_every,
  step_factor,
  cosine_total,
  cosine_last
};

std::unique_ptr<optim::Optimizer> make_optimizer(const GoldenCase& c, const std::vector<nn::Parameter*>& parameters) {
  const auto o = [&](Option i) { return c.option(i); };
  if (c.operation == "sgd")
    return std::make_unique<optim::Sgd>(parameters, optim::SgdOptions{.lr = o(lr),
                                                                      .momentum = o(momentum),
                                                                      .dampening = o(dampening),
                                                                      .weight_decay = o(weight_decay),
                                                                      .nesterov = o(nesterov) != 0});
  if (c.operation == "adagrad")
    return std::make_unique<optim::Adagrad>(parameters, optim::AdagradOptions{.lr = o(lr),
                                                                              .lr_decay = o(lr_decay),
                                                                              .weight_decay = o(weight_decay),
                                                                              .initial_accumulator = o(initial),
                                                                              .eps = o(eps)});
  const optim::AdamWOptions options{.lr = o(lr),
                                    .beta1 = o(beta1),
                                    .beta2 = o(beta2),
                                    .eps = o(eps),
                                    .weight_decay = o(weight_decay),
                                    .amsgrad = o(amsgrad) != 0};
  if (c.operation == "adam") return std::make_unique<optim::Adam>(parameters, options);
  return std::make_unique<optim::AdamW>(parameters, options);
}

void configure(optim::Optimizer& optimizer, const GoldenCase& c) {
  optimizer.clip_norm(c.option(clip_norm));
  optimizer.clip_value(c.option(clip_value));
  if (c.option(step_every) > 0)
    optimizer.set_schedule(
        optim::step_schedule(static_cast<std::int64_t>(c.option(step_every)), c.option(step_factor)));
  if (c.option(cosine_total) > 0)
    optimizer.set_schedule(
        optim::cosine_schedule(static_cast<std::int64_t>(c.option(cosine_total)), c.option(cosine_last)));
}

struct Model : nn::Module {
  explicit Model(const nn::State& shared)
      : a(this, "a", shared.at("start/a").clone()), b(this, "b", shared.at("start/b").clone()) {}
  nn::Parameter a, b;
};

/// The state after the run under the names of the golden file: "end.a", "end.a.m", ...
nn::State run(const GoldenCase& c, const nn::State& shared) {
  Model model(shared);
  const auto optimizer = make_optimizer(c, model.parameters());
  configure(*optimizer, c);
  const NoGrad no_grad;
  for (int t = 0; t < kSteps; ++t) {
    for (nn::Parameter* p : model.parameters())
      p->value().set_grad(shared.at("curvature/" + p->path()) * (p->value() - shared.at("centre/" + p->path())) +
                          select(shared.at("noise/" + p->path()), 0, t));
    optimizer->step();
  }
  nn::State end;
  for (nn::Parameter* p : model.parameters()) end["end." + p->path()] = p->value();
  for (const auto& [name, value] : optimizer->state())
    if (const std::size_t slash = name.find('/'); slash != std::string::npos)
      end["end." + name.substr(0, slash) + "." + name.substr(slash + 1)] = value;
  return end;
}

}  // namespace

TEST_CASE("100 steps of every optimizer equal PyTorch's") {
  const nn::State shared =
      nn::load_safetensors(std::filesystem::path(STET_SOURCE_DIR) / "tests/golden/optimizers.safetensors");
  int rows = 0, cases = 0;
  double worst = 0;
  for (const GoldenCase& c : test::golden_cases("optimizers.safetensors")) {
    const nn::State end = run(c, shared);
    ++cases;
    for (const auto& [key, reference] : c.tensors) {
      if (!key.starts_with("end.")) continue;
      INFO(c.name << "/" << key);
      REQUIRE(end.contains(key));
      const double error = test::golden_error(end.at(key), reference);
      CHECK(error <= kBound);
      if (!(error <= worst)) worst = error;
      ++rows;
    }
  }
  std::cout << "optimizers.safetensors: " << rows << " rows in " << cases << " runs against PyTorch, worst " << worst
            << "\n";
  CHECK(worst <= kExpected);
  CHECK(cases == 74);
  CHECK(rows == 376);
}
