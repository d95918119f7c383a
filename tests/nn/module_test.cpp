// The tree of modules: names, attaching to an existing model, freezing, modes, summary, state and loading.
#include <stet/autograd/engine.h>
#include <stet/nn/layers.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;
using Names = std::vector<std::string>;

namespace {

struct Backbone : nn::Module {
  nn::Linear fc1{this, "fc1", 64, 128};
  Tensor operator()(const Tensor& x) const { return fc1(x, Activation::relu); }
};

struct Block : nn::Module {
  Block(Module* parent, std::string name) : Module(parent, std::move(name)) {}
  nn::LayerNorm norm{this, "norm", 4};
  nn::Linear fc{this, "fc", 4, 4};
  nn::Dropout drop{this, "drop", 0.5};
};

struct Deep : nn::Module {
  Block first{this, "first"}, second{this, "second"};
  nn::Linear head{this, "head", 4, 2, {.bias = false}};
};

Names names_of(const nn::Module& module) {
  Names names;
  for (const nn::Parameter* p : module.parameters()) names.push_back(p->path());
  return names;
}

Names trainable_of(const nn::Module& module) {
  Names names;
  for (const nn::Parameter* p : module.trainable_parameters()) names.push_back(p->path());
  return names;
}

}  // namespace

TEST_CASE("Parameters are named by their path, in order of construction") {
  const Deep model;
  CHECK(names_of(model) == Names{"first.norm.weight", "first.norm.bias", "first.fc.weight", "first.fc.bias",
                                 "second.norm.weight", "second.norm.bias", "second.fc.weight", "second.fc.bias",
                                 "head.weight"});
  CHECK(model.first.fc.path() == "first.fc");
  CHECK(model.buffers().size() == 2);
  CHECK(model.buffers()[1]->path() == "second.drop.generator");
  CHECK(&model.parameter("second.fc.bias") == &*model.second.fc.bias);
  CHECK(&model.second.parameter("fc.bias") == &*model.second.fc.bias);  // relative to the module that is asked
  CHECK(model.count() == 2 * (4 + 4 + 16 + 4) + 8);
  CHECK_THAT(message_of([&] { model.parameter("head.bias"); }),
             Contains("no parameter 'head.bias'; known: first.norm.weight, "));
}

TEST_CASE("A layer can be attached to a model that exists, and leaves with its scope") {
  Backbone model;
  {
    nn::Linear classifier{&model, "classifier", 128, 2};
    CHECK(names_of(model) == Names{"fc1.weight", "fc1.bias", "classifier.weight", "classifier.bias"});
    model.freeze("fc1.*");
    CHECK(model.count() - model.count_trainable() == 8320);
    CHECK(model.count_trainable() == 258);
    CHECK(nn::summary(model) ==
          "parameter          shape      count  trainable\n"
          "fc1.weight         (128, 64)  8,192  no\n"
          "fc1.bias           (128,)       128  no\n"
          "classifier.weight  (2, 128)     256  yes\n"
          "classifier.bias    (2,)           2  yes\n"
          "Frozen params: 8,320   Trainable params: 258\n");
    const Tensor y = sum(classifier(model(ones({3, 64}))));
    y.backward();
    CHECK(classifier.weight.grad().defined());
    CHECK_FALSE(model.fc1.weight.grad().defined());
  }
  CHECK(names_of(model) == Names{"fc1.weight", "fc1.bias"});
}

TEST_CASE("A child that outlives its parent becomes a root") {
  auto model = std::make_unique<Backbone>();
  nn::Linear classifier{model.get(), "classifier", 4, 2};
  model.reset();
  CHECK(classifier.weight.path() == "weight");
  CHECK(classifier(ones({1, 4})).shape() == Shape{1, 2});
}

TEST_CASE("Names must be usable in a path and taken once") {
  Backbone model;
  CHECK_THAT(message_of([&] { nn::Linear(&model, "fc1", 2, 2); }), Contains("'' already has a part named 'fc1'"));
  CHECK_THAT(message_of([&] { nn::Linear(&model, "a.b", 2, 2); }),
             Contains("module name 'a.b': expected a name without dots"));
  CHECK_THAT(message_of([&] { nn::Linear(&model, "", 2, 2); }), Contains("module name ''"));
  CHECK_THAT(message_of([&] { nn::Linear(nullptr, "x", 2, 2); }), Contains("'x' needs a parent"));
  CHECK_THAT(message_of([&] { nn::Parameter(nullptr, "w", ones({1})); }), Contains("'w' needs an owner"));
  CHECK_THAT(message_of([&] { nn::Parameter(&model, "w", ones({1}, i64)); }), Contains("'w' holds i64"));
  CHECK(names_of(model) == Names{"fc1.weight", "fc1.bias"});  // what failed left nothing behind
}

TEST_CASE("Freezing by glob") {
  Deep model;
  CHECK(model.freeze("first.*") == 4);
  CHECK(trainable_of(model) ==
        Names{"second.norm.weight", "second.norm.bias", "second.fc.weight", "second.fc.bias", "head.weight"});
  CHECK(model.freeze("*.bias") == 4);  // counts what matched, frozen before or not
  CHECK(trainable_of(model) == Names{"second.norm.weight", "second.fc.weight", "head.weight"});
  CHECK(model.unfreeze("first.fc.????") == 1);
  CHECK(model.first.fc.bias->trainable());
  CHECK(model.second.freeze("fc.weight") == 1);  // relative to the module that is asked
  CHECK_FALSE(model.second.fc.weight.trainable());
  CHECK(model.freeze() == 9);
  CHECK(model.trainable_parameters().empty());
  CHECK_THAT(message_of([&] { model.freeze("frist.*"); }), Contains("[freeze] no parameter matches 'frist.*'"));
  CHECK_THAT(message_of([&] { model.unfreeze("first"); }), Contains("[unfreeze] no parameter matches 'first'"));
}

TEST_CASE("Globs") {
  CHECK(nn::glob_match("*", ""));
  CHECK(nn::glob_match("a*c*e", "abcde"));
  CHECK(nn::glob_match("*ab", "aab"));
  CHECK(nn::glob_match("a?c", "abc"));
  CHECK_FALSE(nn::glob_match("a?c", "ac"));
  CHECK_FALSE(nn::glob_match("a*", "ba"));
  CHECK_FALSE(nn::glob_match("", "a"));
  CHECK(nn::glob_match("*x*x*x*x*x", std::string(200, 'x')));
  CHECK_FALSE(nn::glob_match("*x*x*x*x*y", std::string(20000, 'x')));  // no exponential search
}

TEST_CASE("A frozen parameter gets no gradient and keeps none") {
  nn::Linear layer(3, 2);
  sum(layer(ones({1, 3}))).backward();
  CHECK(layer.weight.grad().defined());
  layer.freeze("weight");
  CHECK_FALSE(layer.weight.grad().defined());
  CHECK_FALSE(layer.weight.value().requires_grad());
  sum(layer(ones({1, 3}))).backward();
  CHECK_FALSE(layer.weight.grad().defined());
  CHECK(layer.bias->grad().defined());
  layer.unfreeze("weight");
  CHECK_FALSE(layer.weight.grad().defined());
  sum(layer(ones({1, 3}))).backward();
  CHECK(same(layer.weight.grad(), ones({2, 3})));
  layer.zero_grad();
  CHECK_FALSE(layer.weight.grad().defined());
}

TEST_CASE("Modes reach children and leave trainable alone") {
  Deep model;
  model.freeze("first.*");
  const Names before = trainable_of(model);
  CHECK(model.second.drop.is_training());
  model.eval();
  CHECK_FALSE(model.is_training());
  CHECK_FALSE(model.second.drop.is_training());
  CHECK(trainable_of(model) == before);
  model.train();
  CHECK(model.second.drop.is_training());
  CHECK(trainable_of(model) == before);
}

TEST_CASE("A new child takes its parent's mode") {
  Backbone model;
  model.eval();
  const nn::Dropout drop{&model, "drop", 0.5};
  CHECK_FALSE(drop.is_training());
}

TEST_CASE("EvalScope restores the mode of every module") {
  Deep model;
  model.first.eval();
  model.second.norm.eval();
  {
    const nn::EvalScope scope(model);
    CHECK_FALSE(model.is_training());
    CHECK_FALSE(model.second.drop.is_training());
  }
  CHECK(model.is_training());
  CHECK_FALSE(model.first.is_training());
  CHECK_FALSE(model.first.drop.is_training());
  CHECK(model.second.is_training());
  CHECK_FALSE(model.second.norm.is_training());
  CHECK(model.second.drop.is_training());
}

TEST_CASE("A state is a copy, by name, and loads back") {
  Deep model;
  const nn::State before = model.state();
  CHECK(before.size() == 11);
  CHECK(before.contains("second.drop.generator"));
  model.first.fc.weight.set(zeros({4, 4}));
  CHECK_FALSE(same(before.at("first.fc.weight"), model.first.fc.weight));
  CHECK(model.load(before).empty());
  CHECK(same(before.at("first.fc.weight"), model.first.fc.weight));
  CHECK(model.first.state().contains("fc.weight"));  // relative to the module that is asked

  nn::State wide = before;
  wide["head.weight"] = cast(wide["head.weight"], f64);
  model.load(wide);
  CHECK(model.head.weight.value().dtype() == f32);
}

TEST_CASE("Strict loading lists everything that does not fit, and changes nothing") {
  Deep model;
  nn::State state = model.state();
  state.erase("first.fc.bias");
  state.erase("second.drop.generator");
  state["extra"] = ones({2});
  state["head.weight"] = ones({3, 4});
  state["first.fc.weight"] = ones({4, 4});
  const Tensor before = model.first.fc.weight.value().clone();
  const std::string message = message_of([&] { model.load(state); });
  CHECK(message ==
        "[load] 4 names do not fit the model:\n"
        "  missing: first.fc.bias (4,)\n"
        "  mismatched: head.weight is (3, 4), the model has (2, 4)\n"
        "  missing: second.drop.generator (2,)\n"
        "  unexpected: extra (2,)");
  CHECK(same(before, model.first.fc.weight));
  CHECK(model.load(state, false) == Names{"first.fc.bias", "head.weight", "second.drop.generator", "extra"});
  CHECK(same(ones({4, 4}), model.first.fc.weight));
}

TEST_CASE("Setting a parameter checks its shape and is seen by graphs that saved the old value") {
  nn::Linear layer(3, 2);
  CHECK_THAT(message_of([&] {
               layer.weight.set(ones({3, 2}));
             }),
             Contains("[set] parameter 'weight' has shape (2, 3), not (3, 2)"));
  const Tensor x = ones({1, 3});
  x.set_requires_grad();
  const Tensor y = sum(layer(x));
  layer.weight.set(zeros({2, 3}));
  CHECK_THAT(message_of([&] { y.backward(); }), Contains("was modified in place"));
}

TEST_CASE("A parameter owns its memory") {
  nn::Module root;
  const Tensor initial = ones({2, 3});
  const nn::Parameter a(&root, "a", initial), b(&root, "b", transpose(initial)), c(&root, "c", expand(ones({1}), {4}));
  const NoGrad no_grad;
  initial.fill_(5);
  CHECK(same(a, ones({2, 3})));
  CHECK(b.value().is_contiguous());
  CHECK(c.value().is_contiguous());
}

TEST_CASE("A buffer has a memory of its own") {
  nn::Module root;
  const Tensor initial = ones({2});
  const nn::Buffer buffer(&root, "buffer", initial);
  initial.fill_(5);
  CHECK(same(buffer.value(), ones({2})));
}

TEST_CASE("Numbers with commas") {
  CHECK(nn::with_commas(0) == "0");
  CHECK(nn::with_commas(999) == "999");
  CHECK(nn::with_commas(8320) == "8,320");
  CHECK(nn::with_commas(-123456) == "-123,456");
  CHECK(nn::with_commas(1234567890) == "1,234,567,890");
}

TEST_CASE("Floating buffers move with the model, a generator's state stays on the host") {
  if (!test::has_cuda()) return;
  const DefaultDevice host(Device::cpu());
  nn::Module root;
  nn::Linear fc(&root, "fc", 3, 2);
  nn::Dropout drop(&root, "drop", 0.5);
  nn::Buffer running_mean(&root, "running_mean", tensor({1.f, 2.f, 3.f}));
  root.to(Device::cuda());
  CHECK(running_mean.value().device() == Device::cuda());
  CHECK(drop.generator.value().device() == Device::cpu());
  CHECK(sum(fc(zeros({1, 3}, Device::cuda()) + running_mean)).device() == Device::cuda());
  running_mean.set(tensor({4.f, 5.f, 6.f}));
  root.to(Device::cpu());
  CHECK(running_mean.value().to_vector<float>() == std::vector<float>{4, 5, 6});
}

TEST_CASE("a parameter that stands in is read by forward passes alone") {
  nn::Module root;
  nn::Linear fc(&root, "fc", 3, 2);
  nn::Module copies(&root, "copies");
  nn::Parameter bias(&copies, "bias", fc.bias->value().detach() + 1.0), wide(&copies, "wide", zeros({3}));
  const Tensor x = ones({1, 3}), before = fc(x).detach(), own = fc.bias->value().detach().clone();
  fc.bias->set_stand_in(&bias);
  CHECK(fc.bias->stand_in() == &bias);
  CHECK(max(abs(fc(x).detach() - before - 1.0)).item() < 1e-6);
  sum(fc(x)).backward();
  CHECK(bias.grad().defined());
  CHECK_FALSE(fc.bias->grad().defined());
  // What is saved and written is the parameter's own.
  const Tensor shifted = fc(x).detach();
  CHECK(max(abs(root.state().at("fc.bias") - own)).item() == 0);
  fc.bias->set(own * 2);
  CHECK(max(abs(fc(x).detach() - shifted)).item() == 0);
  fc.bias->set(own);
  CHECK_THAT(message_of([&] { fc.bias->set_stand_in(&wide); }),
             Contains("[set_stand_in] 'fc.bias' has shape (2,), 'copies.wide' has (3,)"));
  fc.bias->set_stand_in(nullptr);
  CHECK(max(abs(fc(x).detach() - before)).item() == 0);
}
