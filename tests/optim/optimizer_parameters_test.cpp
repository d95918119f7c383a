// Which parameters an optimizer has: added, removed, and gone before it.
#include <memory>

#include <stet/nn/layers.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using Model = test::TwoParameters;
using Parameters = std::vector<nn::Parameter*>;

namespace {

void train(Model& model, Optimizer& optimizer, int steps) {
  for (int t = 0; t < steps; ++t) {
    optimizer.zero_grad();
    (sum(square(square(model.a))) + sum(square(square(model.b)))).backward();
    optimizer.step();
  }
}

}  // namespace

TEST_CASE("Steps write neither into a state that was taken nor into one that was loaded") {
  Model model;
  Adam optimizer({&model.a, &model.b}, {.lr = 0.1});
  train(model, optimizer, 2);
  const nn::State taken = optimizer.state();
  const Tensor m = taken.at("a/m").clone();
  train(model, optimizer, 2);
  CHECK(same(taken.at("a/m"), m));
  optimizer.load(taken);
  train(model, optimizer, 2);
  CHECK(same(taken.at("a/m"), m));
}

TEST_CASE("A head can be added to a running optimizer") {
  Model model;
  Sgd optimizer({&model.a}, {.lr = 0.1, .momentum = 0.5});
  optimizer.set_penalty("pull", {1, {}, {{"b", zeros({5}, f64)}}});
  train(model, optimizer, 3);
  const Tensor before = model.b.value().clone();
  optimizer.add_parameters({&model.b});
  model.zero_grad();
  sum(model.b * 0.0).backward();
  optimizer.step();
  CHECK(max(abs(model.b - before * 0.9)).item() < 1e-15);  // the penalty, set before, holds for it
  CHECK(optimizer.state().at("b/step").item() == 1);
  CHECK_THAT(message_of([&] { optimizer.add_parameters({&model.b}); }), Contains("parameter 'b' is in it already"));
  CHECK_THAT(message_of([&] { optimizer.add_parameters({}, 3); }), Contains("group 3 of 1"));
}

TEST_CASE("Another parameter of the same name is refused for what it is") {
  Model model, twin;
  const std::string message =
      "[optimizer] another parameter named 'a' is in it already: state, masks and penalties go by names";
  CHECK(message_of([&] { Sgd({&model.a, &twin.a}, {}); }) == message);
  Sgd optimizer({&model.a}, {});
  CHECK(message_of([&] { optimizer.add_parameters({&twin.a}); }) == message);
  CHECK(message_of([&] { optimizer.add_parameters({&model.a}); }) == "[optimizer] parameter 'a' is in it already");
}

TEST_CASE("A parameter that a penalty does not fit is not added") {
  struct Two : nn::Module {
    nn::Parameter a{this, "a", ones({4})};
    nn::Parameter b{this, "b", ones({4096})};
    nn::Parameter c{this, "c", ones({3})};
  } model;
  Sgd optimizer({&model.a}, {});
  for (const bool importance : {false, true}) {
    nn::State fits{{"b", ones({4096})}}, wrong{{"b", ones({1})}};
    optimizer.set_penalty("pull", importance ? QuadraticPenalty{1, wrong, fits} : QuadraticPenalty{1, {}, wrong});
    CHECK(message_of([&] {
            optimizer.add_parameters({&model.c, &model.b});
          }) == std::string("[add_parameters] ") + (importance ? "importance" : "anchor") +
                    " of 'b' has shape (1,), the parameter (4096,)");
    CHECK(optimizer.parameters() == Parameters{&model.a});
  }
  optimizer.remove_penalty("pull");
  optimizer.add_parameters({&model.c, &model.b});
  CHECK(optimizer.parameters().size() == 3);
}

TEST_CASE("Parameters can be removed: the others keep state, masks and groups") {
  Model model, alone;
  const SgdOptions slow{.lr = 0.01, .momentum = 0.9};
  Sgd optimizer({{{&model.a}, {.lr = 0.1}}, {{&model.b}, slow}}), b_only({&alone.b}, slow);
  for (Optimizer* o : {static_cast<Optimizer*>(&optimizer), static_cast<Optimizer*>(&b_only)}) {
    o->set_penalty("pull", {1, {}, {{"a", zeros({4, 6}, f64)}, {"b", zeros({5}, f64)}}});
    o->set_mask("b", Mask::elements(tensor({true, false, true, true, false})));
  }
  optimizer.set_mask("a", Mask::rows({4, 6}, {1}));
  train(model, optimizer, 3);
  train(alone, b_only, 3);
  const Parameters wrong{&model.a, &alone.a};
  CHECK(message_of([&] { optimizer.remove_parameters(wrong); }) ==
        "[remove_parameters] no parameter 'a' in this optimizer");
  CHECK(optimizer.parameters() == Parameters{&model.a, &model.b});
  optimizer.remove_parameters({&model.a});
  CHECK(optimizer.mask("a") == nullptr);
  const Tensor before = model.a.value().clone();
  train(model, optimizer, 3);
  train(alone, b_only, 3);
  CHECK(same(model.a, before));
  CHECK(same(model.b, alone.b));
  CHECK(same(optimizer.state().at("b/momentum"), b_only.state().at("b/momentum")));
  CHECK(optimizer.penalty_value() == b_only.penalty_value());
  CHECK(optimizer.state().size() == b_only.state().size());
  optimizer.add_parameters({&model.a}, 1);  // as if it were new
  train(model, optimizer, 1);
  CHECK(optimizer.state().at("a/step").item() == 1);
}

TEST_CASE("An optimizer whose parameters are gone says so, whatever it is asked") {
  Model model;
  auto head = std::make_unique<nn::Linear>(&model, "head", 2, 3);
  Adam optimizer(model.parameters(), {});
  train(model, optimizer, 1);
  const nn::State state = optimizer.state();
  optimizer.set_penalty("pull", {1, {}, {{"head.weight", zeros({3, 2})}}});
  head.reset();
  const auto refused = [&](const std::string& op, const auto& action) {
    CHECK(message_of(action) ==
          "[" + op + "] parameter 'head.weight' is gone: expected remove_parameters() before its module went");
  };
  const Tensor before = model.b.value().clone();
  refused("step", [&] { optimizer.step(); });
  CHECK(same(model.b, before));
  refused("zero_grad", [&] { optimizer.zero_grad(); });
  refused("parameters", [&] { optimizer.parameters(); });
  refused("set_mask", [&] { optimizer.set_mask("b", Mask::all({5})); });
  refused("set_penalty", [&] { optimizer.set_penalty("pull", {}); });
  refused("load", [&] { optimizer.load(state); });
  CHECK(message_of([&] { optimizer.set_additions(optimizer.additions()); }) == "no error");  // runs that fail end so
  refused("remove_parameters", [&] { optimizer.remove_parameters({&model.b}); });
  nn::Linear again(&model, "head", 2, 3);  // of the same name, perhaps at the same address
  refused("add_parameters", [&] { optimizer.add_parameters({&again.weight}); });
}
