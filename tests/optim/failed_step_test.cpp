// Steps and loads that fail part-way: counts, states and parameters are as they were, and the next step is the one that
// would have been made. And what options do that are changed between steps.
#include <stet/optim/optimizers.h>

#include <limits>

#include <stet/tensor/storage.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using test::same_bits;
using Model = test::TwoParameters;
using Parameters = std::vector<nn::Parameter*>;

namespace {

constexpr std::int64_t kMany = 1'000'000;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Large : nn::Module {
  nn::Parameter a{this, "a", ones({kMany})};
  nn::Parameter b{this, "b", ones({kMany})};
  Large() {
    a.value().set_grad(ones({kMany}));
    b.value().set_grad(ones({kMany}));
  }
};

/// Runs `action` where the device has room for `bytes` more, and no longer.
template <class Action> void with_room_for(std::int64_t bytes, const Action& action) {
  release_cached_memory();
  set_memory_limit(memory_stats().system_bytes + bytes);
  CHECK_THROWS_AS(action(), OutOfMemory);
  set_memory_limit(0);
}

void set_gradients(const Model& model) {
  for (const nn::Parameter* p : model.parameters()) p->value().set_grad(ones(p->shape(), f64));
}

}  // namespace

TEST_CASE("A step that finds no memory for a state counts for nothing") {
  Large model, other;
  Adam optimizer({&model.a, &model.b}, {.lr = 0.1}), fresh({&other.a, &other.b}, {.lr = 0.1});
  with_room_for(12'000'000, [&] { optimizer.step(); });  // two of the four states
  CHECK(optimizer.steps() == 0);
  const nn::State state = optimizer.state();
  CHECK(state.at("a/step").item() == 0);
  CHECK(state.at("b/step").item() == 0);
  CHECK(same(model.a.value().detach(), ones({kMany})));
  for (int i = 0; i < 2; ++i) {
    optimizer.step();
    fresh.step();
  }
  CHECK(optimizer.steps() == 2);
  CHECK(same_bits(model.a.value(), other.a.value()));
  CHECK(same_bits(model.b.value(), other.b.value()));
}

TEST_CASE("A step that a changed option stops counts for nothing") {
  Model model, other;
  Adam optimizer({{{&model.a}, {.lr = 0.1}}, {{&model.b}, {.lr = 0.1}}}), fresh(other.parameters(), {.lr = 0.1});
  set_gradients(model);
  set_gradients(other);
  optimizer.step();
  fresh.step();
  optimizer.options(1).amsgrad = true;
  for (int i = 0; i < 3; ++i)
    CHECK_THAT(message_of([&] { optimizer.step(); }),
               Contains("the state of 'b' has 2 tensors, its options now need 3"));
  CHECK(optimizer.steps() == 1);
  CHECK(same_bits(model.a.value(), other.a.value()));
  optimizer.options(1).amsgrad = false;
  optimizer.step();
  fresh.step();
  CHECK(optimizer.state().at("a/step").item() == 2);
  CHECK(same_bits(model.a.value(), other.a.value()));
  CHECK(same_bits(model.b.value(), other.b.value()));
}

TEST_CASE("A fresh state of a step that failed is not kept: its options may change") {
  Model model;
  Adagrad optimizer({{{&model.a}, {.lr = 0}}, {{&model.b}, {.lr = 0}}});
  set_gradients(model);
  optimizer.options(0).initial_accumulator = 5;
  optimizer.options(1).eps = kNan;
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("[step] eps nan of group 1"));
  optimizer.options(0).initial_accumulator = 2;
  optimizer.options(1).eps = 0;
  optimizer.step();
  CHECK(same(to(optimizer.state().at("a/sum"), Device::cpu()), full({4, 6}, 3, {f64, Device::cpu()})));
}

TEST_CASE("A rule of one's own that throws leaves the parameters before it with their step") {
  struct Fussy final : Optimizer {
    std::string refused = "b";
    explicit Fussy(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {"m"}; }
    void update(const Slot& slot, std::size_t) const override {
      check(slot.parameter().numel() != 5 || refused.empty(), "fussy", "no");
      slot.assign(slot.parameter() - 1.0, {slot.state(0) + 1.0});
    }
  };
  Model model;
  Fussy optimizer(model.parameters());
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  set_gradients(model);
  CHECK(message_of([&] { optimizer.step(); }) == "[fussy] no");
  CHECK(same_bits(model.a.value(), a - 1.0));
  CHECK(same_bits(model.b.value(), b));
  CHECK(optimizer.state().at("a/step").item() == 1);
  CHECK(optimizer.state().at("a/m").to_vector<double>()[0] == 1);
  CHECK(optimizer.state().at("b/step").item() == 0);
  CHECK(optimizer.steps() == 0);
}

TEST_CASE("A load that finds no memory changes nothing") {
  Large model;
  Adam optimizer({&model.a, &model.b}, {.lr = 0.1});
  optimizer.step();
  const nn::State first = optimizer.state();
  optimizer.step();
  const nn::State second = optimizer.state();
  with_room_for(12'000'000, [&] { optimizer.load(first); });
  const nn::State after = optimizer.state();
  for (const auto& [name, value] : second) CHECK(same_bits(after.at(name), value));
  optimizer.load(first);
  CHECK(same_bits(optimizer.state().at("b/v"), first.at("b/v")));
}

TEST_CASE("Options that are changed are checked by the next step, before anything changes") {
  Model model;
  set_gradients(model);
  const Tensor a = model.a.value().clone();
  const auto refused = [&](Optimizer& optimizer, const std::string& message) {
    CHECK(message_of([&] { optimizer.step(); }) == "[step] " + message);
    CHECK(same_bits(model.a.value(), a));
    CHECK(optimizer.steps() == 0);
  };
  Sgd sgd({{{&model.a}, {.lr = 1}}, {{&model.b}, {.lr = 1}}});
  sgd.options(1).lr = kNan;
  refused(sgd, "lr nan of group 1: expected a finite number, 0 or more");
  sgd.options(1).lr = 1;
  sgd.options(0).nesterov = true;
  refused(sgd, "Nesterov needs momentum and no dampening, got momentum 0 and dampening 0 of group 0");
  sgd.options(0) = {.lr = 1, .dampening = kNan};
  refused(sgd, "dampening nan of group 0: expected a finite number");
  Adagrad adagrad(model.parameters(), {});
  adagrad.options().lr_decay = -1;
  refused(adagrad, "lr decay -1 of group 0: expected a finite number, 0 or more");
  AdamW adam(model.parameters());
  adam.options().beta2 = 1;
  refused(adam, "betas 0.9 and 1 of group 0: expected 0 <= beta < 1");
}

TEST_CASE("Momentum that is switched on later starts with the gradient, as PyTorch's does") {
  Model model;
  model.b.set(ones({5}, f64));
  Sgd optimizer({&model.b}, {.lr = 1});
  set_gradients(model);
  optimizer.step();  // 1 - 1
  optimizer.options().momentum = 0.5;
  optimizer.options().dampening = 0.75;
  optimizer.step();  // v = 1, the gradient undampened
  optimizer.step();  // v = 0.5 + 0.25
  CHECK(same_bits(model.b.value(), full({5}, -1.75, f64)));
}
