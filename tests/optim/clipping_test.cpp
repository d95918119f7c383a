// Clipping by norm where the norm is no number or none of the usual, and gradient transforms that bring a parameter
// twice or under another name.
#include <stet/optim/optimizers.h>

#include <cmath>
#include <limits>

#include <stet/cuda/cuda.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using test::message_of;
using test::same_bits;
using Model = test::TwoParameters;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

/// Gradients of 3, but for the first element of b's.
void set_gradients(const Model& model, double first) {
  model.a.value().set_grad(full({4, 6}, 3, f64));
  model.b.value().set_grad(cat({full({1}, first, f64), full({4}, 3, f64)}));
}

bool all_nan(const Tensor& x) {
  for (const double v : x.to_vector<double>())
    if (!std::isnan(v)) return false;
  return true;
}

}  // namespace

TEST_CASE("A norm that is NaN makes all gradients NaN, an infinite one the finite elements 0") {
  for (const bool recorded : {false, true}) {
    if (recorded && default_device() == Device::cpu()) continue;
    Model model;
    Sgd optimizer(model.parameters(), {.lr = 1});
    optimizer.clip_norm(1);
    const Tensor a = model.a.value().clone(), b = model.b.value().clone();
    set_gradients(model, 3);
    const auto reset = [&](double first) {  // the gradients' memory stays, for the recorded step
      const NoGrad no_grad;
      model.a.set(a);
      model.b.set(b);
      slice(model.b.grad(), 0, 0, 1).fill_(first);
    };
    std::function<void()> step = [&] { optimizer.step(); };
    if (recorded) {
      step();
      step = [graph = cuda::capture([&] { optimizer.step(); })]() mutable { graph.replay(); };
    }
    reset(kInf);
    step();
    CHECK(optimizer.last_grad_norm() == kInf);
    CHECK(same_bits(model.a.value(), a));
    const auto moved = model.b.value().to_vector<double>();
    CHECK(std::isnan(moved[0]));
    CHECK(moved[4] == b.to_vector<double>()[4]);
    reset(3);
    step();
    CHECK(optimizer.last_grad_norm() == Approx(std::sqrt(29 * 9)));
    CHECK(model.a.value().to_vector<double>()[0] == Approx(a.to_vector<double>()[0] - 1 / std::sqrt(29)));
    reset(kNan);
    step();
    CHECK(std::isnan(optimizer.last_grad_norm()));
    CHECK(all_nan(model.a.value()));
    CHECK(all_nan(model.b.value()));
  }
}

TEST_CASE("An infinite bound measures and scales nothing, whatever the norm") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1});
  optimizer.clip_norm(kInf);
  const Tensor a = model.a.value().clone();
  set_gradients(model, kNan);
  optimizer.step();
  CHECK(std::isnan(optimizer.last_grad_norm()));
  CHECK(same_bits(model.a.value(), a - 3.0));
}

TEST_CASE("A transform that brings a parameter twice is refused before anything changes") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1, .momentum = 0.9});
  optimizer.clip_norm(1);
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  set_gradients(model, 3);
  optimizer.set_transform("again", [](std::vector<NamedGradient>& all) { all.push_back(all.front()); });
  CHECK(message_of([&] { optimizer.step(); }) == "[step] a gradient transform brought 'a' twice: expected it once");
  CHECK(same_bits(model.a.value(), a));
  CHECK(same_bits(model.b.value(), b));
  CHECK(optimizer.last_grad_norm() == 0);
  CHECK(optimizer.state().at("a/step").item() == 0);
  optimizer.set_transform("again", [](std::vector<NamedGradient>& all) { std::swap(all[0], all[1]); });
  optimizer.step();
  CHECK(optimizer.steps() == 1);
}

TEST_CASE("Clipping finds a parameter's mask, whatever a transform calls it") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1});
  optimizer.clip_norm(1);
  optimizer.set_mask("a", Mask::rows({4, 6}, {1}));
  set_gradients(model, 3);
  optimizer.set_transform("rename", [](std::vector<NamedGradient>& all) {
    for (NamedGradient& g : all) g.name = "projected " + g.name;
  });
  optimizer.step();
  CHECK(optimizer.last_grad_norm() == Approx(std::sqrt(11 * 9)));
}
