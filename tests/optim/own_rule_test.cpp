// Rules of one's own that do not keep to what Optimizer asks of them: refused before they write where they must not.
#include <stet/optim/optimizers.h>

#include <functional>

#include "support/catch.h"
#include "support/message.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using Model = test::TwoParameters;
using Parameters = std::vector<nn::Parameter*>;

TEST_CASE("The state that a rule of one's own starts with is checked and made its own") {
  struct Custom final : Optimizer {
    std::function<std::vector<Tensor>(const Tensor&)> make;
    explicit Custom(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {"sum"}; }
    std::vector<Tensor> init(const Tensor& p, std::size_t) const override { return make(p); }
    void update(const Slot& slot, std::size_t) const override { slot.fused<AdagradRule>({.lr = 0.1}); }
  };
  Model model;
  Custom optimizer({&model.a});
  model.a.value().set_grad(ones({4, 6}, f64));
  const auto refused = [&](const std::vector<Tensor>& state, const std::string& message) {
    optimizer.make = [&](const Tensor&) { return state; };
    CHECK_THAT(message_of([&] { optimizer.step(); }), Contains(message));
  };
  refused({zeros({1}, f64)}, "[step] init() gave the state 'sum' of 'a' as (1,) f64 on ");
  refused({zeros({4, 6}, f32)}, "as (4, 6) f32 on ");
  refused({Tensor()}, "[step] init() left the state 'sum' of 'a' undefined");
  refused({}, "[step] init() gave 'a' 0 state tensors: expected 1");
  const Tensor one = full({1}, 0.5, f64);
  optimizer.make = [&](const Tensor& p) { return std::vector<Tensor>{expand(one, p.shape())}; };
  optimizer.step();
  CHECK(same(to(optimizer.state().at("a/sum"), Device::cpu()), full({4, 6}, 1.5, {f64, Device::cpu()})));
  CHECK(one.item() == 0.5);
}

TEST_CASE("A rule in tensor operations sees gradients clipped, then the penalty's pull") {
  struct Plain final : Optimizer {
    explicit Plain(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {}; }
    void update(const Slot& slot, std::size_t) const override { slot.assign(slot.parameter() - slot.gradient(), {}); }
  };
  Model model;
  Plain optimizer({&model.a});
  model.a.set(ones({4, 6}, f64));
  model.a.value().set_grad(full({4, 6}, -3, f64));
  optimizer.clip_value(0.5);
  optimizer.set_penalty("pull", {2, {}, {{"a", full({4, 6}, 0.25, f64)}}});
  optimizer.step();  // 1 - (-0.5 + 2 (1 - 0.25))
  CHECK(same(model.a.value().detach(), full({4, 6}, 0, f64)));
}

TEST_CASE("New values of another shape are refused before any is written") {
  struct Stretched final : Optimizer {
    Shape value{}, moment{4, 6};
    explicit Stretched(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {"m"}; }
    void update(const Slot& slot, std::size_t) const override { slot.assign(ones(value, f64), {ones(moment, f64)}); }
  };
  Model model;
  Stretched optimizer({&model.a});
  const Tensor before = model.a.value().clone();
  model.a.value().set_grad(ones({4, 6}, f64));
  const auto refused = [&](const std::string& shape) {
    CHECK(message_of([&] { optimizer.step(); }) ==
          "[assign] a value " + shape + " for 'a' or its state: expected (4, 6)");
    CHECK(same(model.a.value().detach(), before));
    CHECK(optimizer.state().at("a/step").item() == 0);
  };
  refused("()");
  optimizer.value = {4, 6};
  optimizer.moment = {1, 6};
  refused("(1, 6)");
}

TEST_CASE("A fused rule that keeps another number of state tensors is refused") {
  struct Forgetful final : Optimizer {
    explicit Forgetful(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {"m"}; }
    void update(const Slot& slot, std::size_t) const override { slot.fused<AdamRule>({.lr = 0.1}); }
  };
  Model model;
  Forgetful optimizer({&model.a});
  model.a.value().set_grad(ones({4, 6}, f64));
  CHECK(message_of([&] { optimizer.step(); }) ==
        "[step] the update rule of 'a' keeps 2 state tensors: expected 1, as many as state_names()");
}
