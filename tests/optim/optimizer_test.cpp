// The base of the optimizers: groups, clipping, penalties, freezing, state and resuming. The rules themselves:
// optim_golden_test.cpp. Masks: mask_test.cpp. Schedules: schedule_test.cpp. Transforms: transform_test.cpp.
// Parameters that come and go: optimizer_parameters_test.cpp. Rules that break the base's contract: own_rule_test.cpp.
#include <stet/nn/layers.h>
#include <stet/nn/losses.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>

#include <cmath>
#include <memory>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/scratch.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using test::spread;
using Model = test::TwoParameters;
using Parameters = std::vector<nn::Parameter*>;

namespace {

struct Maker {
  std::string name;
  std::function<std::unique_ptr<Optimizer>(const Parameters&)> make;
};

template <class Which, class Options> Maker maker(const std::string& name, Options options) {
  return {name, [=](const Parameters& p) { return std::make_unique<Which>(p, options); }};
}

std::vector<Maker> makers(double decay = 1e-2) {
  return {maker<Sgd>("sgd", SgdOptions{.lr = 0.05, .weight_decay = decay}),
          maker<Sgd>("momentum", SgdOptions{.lr = 0.02, .momentum = 0.9, .weight_decay = decay}),
          maker<Sgd>("nesterov", SgdOptions{.lr = 0.02, .momentum = 0.9, .weight_decay = decay, .nesterov = true}),
          maker<Adam>("adam", AdamOptions{.lr = 0.01, .weight_decay = decay}),
          maker<Adam>("amsgrad", AdamOptions{.lr = 0.01, .weight_decay = decay, .amsgrad = true}),
          maker<AdamW>("adamw", AdamWOptions{.lr = 0.01, .weight_decay = decay}),
          maker<Adagrad>("adagrad", AdagradOptions{.lr = 0.05, .weight_decay = decay})};
}

/// A loss with a gradient that changes with the parameters and with time.
Tensor loss_of(const Model& model, int t) {
  return sum(square(model.a - spread({4, 6}, -2, 2, t))) + sum(square(square(model.b - spread({5}, -1, 1, t))));
}

void train(Model& model, Optimizer& optimizer, int from, int to, const std::function<Tensor()>& extra = {}) {
  for (int t = from; t < to; ++t) {
    optimizer.zero_grad();
    Tensor loss = loss_of(model, t);
    if (extra) loss = loss + extra();
    loss.backward();
    optimizer.step();
  }
}

double distance(const Tensor& a, const Tensor& b) { return max(abs(a.detach() - b.detach())).item(); }

}  // namespace

TEST_CASE("A resumed run equals an uninterrupted one bit for bit") {
  const test::Scratch scratch;
  for (const Maker& m : makers()) {
    INFO(m.name);
    const auto configure = [](Optimizer& o) {
      o.clip_norm(3);
      o.set_schedule(warmup_schedule(5, cosine_schedule(50)));
      o.set_mask("a", Mask::rows({4, 6}, {0, 2}));
    };
    Model whole, first, second;
    const auto o_whole = m.make(whole.parameters()), o_first = m.make(first.parameters());
    configure(*o_whole);
    configure(*o_first);
    train(whole, *o_whole, 0, 40);
    train(first, *o_first, 0, 17);
    nn::save(first, scratch.path() / "model");
    nn::save_safetensors(scratch.path() / "optimizer", o_first->state());

    const auto o_second = m.make(second.parameters());
    o_second->clip_norm(3);
    o_second->set_schedule(warmup_schedule(5, cosine_schedule(50)));
    nn::load(second, scratch.path() / "model");
    o_second->load(nn::load_safetensors(scratch.path() / "optimizer"));  // the mask comes with it
    train(second, *o_second, 17, 40);
    CHECK(same(whole.a, second.a));
    CHECK(same(whole.b, second.b));
    CHECK(o_second->steps() == 40);
    for (const auto& [name, value] : o_whole->state()) CHECK(same(value, o_second->state().at(name)));
  }
}

TEST_CASE("A quadratic penalty in the update equals one written into the loss") {
  const Tensor anchor_a = spread({4, 6}, -1, 1, 5), anchor_b = spread({5}, -1, 1, 6);
  const Tensor importance_a = spread({4, 6}, 0, 3, 7), importance_b = spread({5}, 0, 3, 8);
  for (const bool masked : {false, true})
    for (const Maker& m : makers()) {
      INFO(m.name << (masked ? " with a mask" : ""));
      Model inside, outside;
      const auto o_in = m.make(inside.parameters()), o_out = m.make(outside.parameters());
      if (masked)
        for (Optimizer* o : {o_in.get(), o_out.get()}) o->set_mask("a", Mask::elements(importance_a > 1.0));
      o_in->set_penalty("ewc", {0.7, {{"a", importance_a}, {"b", importance_b}}, {{"a", anchor_a}, {"b", anchor_b}}});
      const auto written = [&] {
        return (sum(importance_a * square(outside.a - anchor_a)) + sum(importance_b * square(outside.b - anchor_b))) *
               0.35;
      };
      CHECK(o_in->penalty_value() == Approx(written().item()));
      train(inside, *o_in, 0, 100);
      train(outside, *o_out, 0, 100, written);
      CHECK(distance(inside.a, outside.a) < 1e-11);
      CHECK(distance(inside.b, outside.b) < 1e-11);
      CHECK(o_in->penalty_value() == Approx(written().item()).epsilon(1e-9));
    }
}

TEST_CASE("Several penalties add up, with and without importance") {
  const Tensor first = spread({4, 6}, -1, 1, 5), second = spread({4, 6}, -1, 1, 6), third = spread({4, 6}, -1, 1, 9);
  const Tensor importance = spread({4, 6}, 0, 3, 7),
               sparse = where(spread({4, 6}, -1, 1, 8) > 0.0, importance, zeros({4, 6}, f64));
  for (const Maker& m : makers()) {
    INFO(m.name);
    Model inside, outside;
    const auto o_in = m.make(inside.parameters()), o_out = m.make(outside.parameters());
    o_in->set_penalty("l2sp", {0.5, {}, {{"a", first}}});
    o_in->set_penalty("task 1", {2, {{"a", importance}}, {{"a", second}}});
    o_in->set_penalty("task 2", {3, {{"a", sparse}}, {{"a", third}}});
    const auto written = [&] {
      return sum(square(outside.a - first)) * 0.25 + sum(importance * square(outside.a - second)) +
             sum(sparse * square(outside.a - third)) * 1.5;
    };
    CHECK(o_in->penalty_value() == Approx(written().item()));
    train(inside, *o_in, 0, 50);
    train(outside, *o_out, 0, 50, written);
    CHECK(distance(inside.a, outside.a) < 1e-11);
    o_in->remove_penalty("l2sp");
    o_in->remove_penalty("task 1");
    o_in->remove_penalty("task 2");
    CHECK(o_in->penalty_value() == 0);
    train(inside, *o_in, 50, 60);
    train(outside, *o_out, 50, 60);
    CHECK(distance(inside.a, outside.a) < 1e-11);
  }
}

TEST_CASE("Penalties with importance zero everywhere do nothing") {
  Model with, without;
  Sgd o_with(with.parameters(), {.lr = 0.1}), o_without(without.parameters(), {.lr = 0.1});
  for (const char* id : {"one", "two"})
    o_with.set_penalty(id, {5, {{"a", zeros({4, 6}, f64)}}, {{"a", ones({4, 6}, f64)}}});
  train(with, o_with, 0, 5);
  train(without, o_without, 0, 5);
  CHECK(same(with.a, without.a));
}

TEST_CASE("A frozen parameter leaves the optimizer: bits and state stay") {
  for (const Maker& m : makers()) {
    INFO(m.name);
    Model model;
    const auto optimizer = m.make(model.parameters());
    optimizer->set_penalty("pull", {1, {}, {{"a", zeros({4, 6}, f64)}}});
    train(model, *optimizer, 0, 5);
    model.freeze("a");
    const Tensor before = model.a.value().clone();
    const nn::State state = optimizer->state();
    train(model, *optimizer, 5, 20);
    CHECK(same(before, model.a));
    for (const auto& [name, value] : state)
      if (name.starts_with("a/")) CHECK(same(value, optimizer->state().at(name)));
    CHECK(optimizer->state().at("a/step").item() == 5);
    CHECK(optimizer->state().at("b/step").item() == 20);
    model.unfreeze("a");
    train(model, *optimizer, 20, 21);
    CHECK(optimizer->state().at("a/step").item() == 6);
    CHECK_FALSE(same(before, model.a));
  }
}

TEST_CASE("A parameter without a gradient is left alone, decay or not") {
  Model model;
  AdamW optimizer(model.parameters(), {.weight_decay = 0.5});
  sum(model.b).backward();
  const Tensor before = model.a.value().clone();
  optimizer.step();
  CHECK(same(before, model.a));
  CHECK(optimizer.state().at("a/step").item() == 0);
  optimizer.zero_grad();
  CHECK_FALSE(model.b.grad().defined());
}

TEST_CASE("Groups have complete options of their own") {
  Model model, alone;
  Sgd optimizer({{{&model.a}, {.lr = 0.1}}, {{&model.b}, {.lr = 0.01, .momentum = 0.9}}});
  Sgd a_only({&alone.a}, {.lr = 0.1}), b_only({&alone.b}, {.lr = 0.01, .momentum = 0.9});
  train(model, optimizer, 0, 10);
  for (int t = 0; t < 10; ++t) {
    alone.zero_grad();
    loss_of(alone, t).backward();
    a_only.step();
    b_only.step();
  }
  CHECK(same(model.a, alone.a));
  CHECK(same(model.b, alone.b));
  CHECK_FALSE(optimizer.state().contains("a/momentum"));
  CHECK(optimizer.state().contains("b/momentum"));
  CHECK(optimizer.parameters() == Parameters{&model.a, &model.b});
  CHECK(optimizer.options(1).momentum == 0.9);
  CHECK(message_of([&] { optimizer.options(5); }) == "[options] group 5 of 2");
  CHECK(message_of([&] { Adam({&model.a}, {}).options(1); }) == "[options] group 1 of 1");
  CHECK(message_of([&] { Adagrad({&model.a}, {}).options(1); }) == "[options] group 1 of 1");
}

TEST_CASE("AdamW decays by 0.01 unless told otherwise, in groups too") {
  Model model;
  const auto lost = [&](AdamW& optimizer) {  // a gradient of 0 leaves the decay alone
    const Tensor before = model.a.value().clone();
    model.a.value().set_grad(zeros({4, 6}, f64));
    optimizer.step();
    return 1 - sum(model.a.value() / before).item() / 24;
  };
  AdamW plain({&model.a}), rated({&model.a}, {.lr = 0.5}), grouped({{{&model.a}, {.lr = 0.5}}}),
      without({&model.a}, {.lr = 0.5, .weight_decay = 0});
  CHECK(lost(plain) == Approx(1e-5).epsilon(1e-6));
  CHECK(lost(rated) == Approx(5e-3));
  CHECK(lost(grouped) == Approx(5e-3));
  CHECK(lost(without) == 0);
}

TEST_CASE("A step reaches every element of many parameters, small, empty and large, and so does the norm") {
  nn::Module model;
  std::vector<std::unique_ptr<nn::Parameter>> all;
  std::vector<Tensor> expected;
  double squares = 0;
  for (std::int64_t size : {5, 40000, 0, 16384, 1, 16385, 0, 100}) {
    const int seed = static_cast<int>(all.size());
    all.push_back(
        std::make_unique<nn::Parameter>(&model, "p" + std::to_string(seed), spread({size}, -1, 1, seed, f32)));
    const Tensor g = spread({size}, -1, 1, seed + 20, f32);
    all.back()->value().set_grad(g);
    expected.push_back(all.back()->value().detach() - g * 0.5);
    squares += sum(square(cast(g, f64))).item();
  }
  Sgd optimizer(model.parameters(), {.lr = 0.5});
  optimizer.clip_norm(std::numeric_limits<double>::infinity());  // measured, not reached
  optimizer.step();
  CHECK(optimizer.last_grad_norm() == Approx(std::sqrt(squares)));
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO(i);
    if (expected[i].numel() > 0) CHECK(distance(all[i]->value(), expected[i]) < 1e-6);
  }
}

TEST_CASE("A state that an option no longer fits is refused by step and state; one that it asks for is there") {
  Model model;
  Sgd sgd({&model.a}, {.lr = 0.01, .momentum = 0.9});
  Adam adam({&model.b}, {.amsgrad = true});
  model.a.value().set_grad(ones({4, 6}, f64));
  model.b.value().set_grad(ones({5}, f64));
  sgd.step();
  adam.step();
  sgd.options().momentum = 0;
  adam.options().amsgrad = false;
  const auto refused = [](Optimizer& optimizer, const std::string& what) {
    const std::string message = " the state of " + what + ": reset_state() after such a change";
    CHECK(message_of([&] { optimizer.state(); }) == "[state]" + message);
    CHECK(message_of([&] { optimizer.step(); }) == "[step]" + message);
  };
  refused(sgd, "'a' has 1 tensors, its options now need 0");
  refused(adam, "'b' has 3 tensors, its options now need 2");
  adam.options().amsgrad = true;
  CHECK(adam.state().contains("b/v_max"));
  sgd.reset_state();
  sgd.step();
  sgd.options().momentum = 0.9;  // before its first step with it: what that would start from
  const nn::State state = sgd.state();
  CHECK(same(state.at("a/momentum"), zeros({4, 6}, f64)));
  Sgd again({&model.a}, {.lr = 0.01, .momentum = 0.9});
  again.load(state);
  CHECK(again.steps() == 1);
}

TEST_CASE("Clipping by norm is over all parameters and does not count masked elements") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1});
  optimizer.clip_norm(1);
  model.a.value().set_grad(full({4, 6}, 3, f64));
  model.b.value().set_grad(full({5}, 2, f64));
  optimizer.step();
  CHECK(optimizer.last_grad_norm() == Approx(std::sqrt(24 * 9 + 5 * 4)));
  optimizer.set_mask("a", Mask::rows({4, 6}, {1}));
  const Tensor before = model.b.value().clone();
  optimizer.step();
  const double norm = std::sqrt(6 * 9 + 5 * 4);
  CHECK(optimizer.last_grad_norm() == Approx(norm));
  CHECK(distance(before - model.b.value(), full({5}, 2 / norm, f64)) < 1e-6);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor nans = full({4, 6}, nan, f64), threes = full({4, 6}, 3, f64);
  model.a.value().set_grad(where(optimizer.mask("a")->to_tensor(), threes, nans));
  optimizer.step();
  CHECK(optimizer.last_grad_norm() == Approx(norm));  // what may not change may hold anything
  for (const double wrong : {-1.0, nan}) {
    CHECK_THAT(message_of([&] { optimizer.clip_norm(wrong); }), Contains(": expected 0 (off) or more"));
    CHECK_THAT(message_of([&] { optimizer.clip_value(wrong); }), Contains(": expected 0 (off) or more"));
  }
}

TEST_CASE("Settings that are negative or no finite number are refused for what they are") {
  Model model;
  const auto p = model.parameters();
  for (const double wrong : {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::ostringstream text;
    text << wrong << ": expected a finite number, 0 or more";
    const auto refused = [&](const std::string& setting, const auto& make) {
      CHECK(message_of(make) == setting + ' ' + text.str());
    };
    refused("[Sgd] lr", [&] { Sgd(p, {.lr = wrong}); });
    refused("[Sgd] momentum", [&] { Sgd(p, {.momentum = wrong}); });
    refused("[Sgd] weight decay", [&] { Sgd(p, {.weight_decay = wrong}); });
    refused("[Adagrad] lr", [&] { Adagrad(p, {.lr = wrong}); });
    refused("[Adagrad] lr decay", [&] { Adagrad(p, {.lr_decay = wrong}); });
    refused("[Adagrad] initial accumulator", [&] { Adagrad(p, {.initial_accumulator = wrong}); });
    refused("[Adagrad] eps", [&] { Adagrad(p, {.eps = wrong}); });
    refused("[Adam] lr", [&] { Adam(p, {.lr = wrong}); });
    refused("[Adam] eps", [&] { Adam(p, {.eps = wrong}); });
    refused("[AdamW] lr", [&] { AdamW(p, {.lr = wrong}); });
    refused("[AdamW] weight decay", [&] { AdamW(p, {.weight_decay = wrong}); });
    refused("[constant_schedule] factor", [&] { constant_schedule(wrong); });
    refused("[step_schedule] factor", [&] { step_schedule(1, wrong); });
    refused("[cosine_schedule] last", [&] { cosine_schedule(10, wrong); });
    Sgd optimizer(p, {});
    CHECK_THAT(message_of([&] {
                 optimizer.set_penalty("ewc", {wrong, {}, {}});
               }),
               Contains(" of 'ewc': expected a finite number, 0 or more"));
  }
  CHECK_THAT(message_of([&] { Sgd(p, {.dampening = std::numeric_limits<double>::quiet_NaN()}); }),
             Contains("[Sgd] dampening nan"));
}

TEST_CASE("Loading lists what does not fit and changes nothing") {
  Model model;
  Adam optimizer(model.parameters(), {});
  train(model, optimizer, 0, 3);
  const nn::State good = optimizer.state();
  nn::State bad = good;
  bad.erase("a/m");
  bad["a/v"] = zeros({2}, f64);
  bad["b/v"] = zeros({5});
  bad["c/step"] = zeros({}, i64);
  CHECK(message_of([&] { optimizer.load(bad); }) ==
        "[load] the optimizer state does not fit:\n"
        "  missing: a/m\n"
        "  mismatched: a/v is f64 (2,), expected f64 (4, 6)\n"
        "  mismatched: b/v is f32 (5,), expected f64 (5,)\n"
        "  unexpected: c/step");
  bad = good;
  bad["steps"] = tensor(std::vector<std::int64_t>{-1}, {});
  bad["a/step"] = tensor(std::vector<std::int64_t>{-7}, {});
  CHECK(message_of([&] { optimizer.load(bad); }) ==
        "[load] the optimizer state does not fit:\n"
        "  negative: steps is -1\n"
        "  negative: a/step is -7\n"
        "  unexpected: a/m\n"
        "  unexpected: a/v");
  for (const auto& [name, value] : optimizer.state()) CHECK(same(value, good.at(name)));
  Adam fresh(model.parameters(), {});
  fresh.load(good);
  for (const auto& [name, value] : fresh.state()) CHECK(same(value, good.at(name)));
  CHECK(fresh.steps() == 3);
}

TEST_CASE("Wrong options and names are named") {
  Model model;
  const Parameters all = model.parameters();
  CHECK_THAT(message_of([&] { Sgd(all, {.lr = -1}); }), Contains("[Sgd] lr -1"));
  CHECK_THAT(message_of([&] { Sgd(all, {.momentum = -0.1}); }), Contains("momentum -0.1"));
  CHECK_THAT(message_of([&] { Sgd(all, {.nesterov = true}); }), Contains("Nesterov needs momentum"));
  CHECK_THAT(message_of([&] { Sgd(all, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}); }),
             Contains("dampening 0.1"));
  CHECK_THAT(message_of([&] { Adam(all, {.beta2 = 1}); }), Contains("[Adam] betas 0.9 and 1"));
  CHECK_THAT(message_of([&] { AdamW(all, {.weight_decay = -1}); }), Contains("[AdamW] weight decay -1"));
  CHECK_THAT(message_of([&] { Adagrad(all, {.lr = -1}); }), Contains("[Adagrad] lr -1"));
  CHECK_THAT(message_of([&] { Sgd({&model.a, &model.a}, {}); }), Contains("parameter 'a' is in it already"));
  Sgd optimizer(all, {});
  CHECK_THAT(message_of([&] { optimizer.set_mask("c", Mask::all({2})); }), Contains("no parameter 'c'"));
  CHECK_THAT(message_of([&] {
               optimizer.set_mask("a", Mask::all({6, 4}));
             }),
             Contains("mask (6, 4) for parameter 'a' (4, 6)"));
  CHECK_THAT(message_of([&] { optimizer.set_penalty("p", {-1, {}, {}}); }), Contains("strength -1 of 'p'"));
  CHECK_THAT(message_of([&] {
               optimizer.set_penalty("p", {1, {}, {{"a", ones({2})}}});
             }),
             Contains("anchor of 'a' has shape (2,), the parameter (4, 6)"));
  CHECK_THAT(message_of([&] { optimizer.remove_penalty("p"); }), Contains("no penalty 'p'"));
}

TEST_CASE("An optimizer written in tensor operations honours masks") {
  struct SignSgd final : Optimizer {
    explicit SignSgd(const Parameters& p) : Optimizer(1) { add_group(0, p); }
    std::vector<std::string> state_names(std::size_t) const override { return {"last"}; }
    void update(const Slot& slot, std::size_t) const override {
      const Tensor g = slot.gradient();
      slot.assign(slot.parameter() - sign(g) * 0.1, {g});
    }
  };
  Model model;
  SignSgd optimizer(model.parameters());
  optimizer.set_mask("b", Mask::elements(tensor({true, false, true, false, false})));
  const Tensor before = model.b.value().clone();
  model.b.value().set_grad(ones({5}, f64));
  optimizer.step();
  const Tensor allowed = tensor({1.0, 0.0, 1.0, 0.0, 0.0});
  CHECK(distance(before - model.b.value(), allowed * 0.1) < 1e-15);
  CHECK(same(optimizer.state().at("b/last"), allowed));
}
