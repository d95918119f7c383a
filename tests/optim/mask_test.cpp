// Masks: construction, conversion, and their promise: an element that may not change keeps its bits, in the
// parameter and in the optimizer's state, after 10,000 steps of any optimizer, and after a save and load.
#include <stet/cuda/cuda.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>

#include <cstring>
#include <iostream>
#include <limits>
#include <memory>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using test::spread;
using Parameters = std::vector<nn::Parameter*>;

namespace {

/// The simulated device takes dozens of times as long, and every step is the same launch.
int all_steps() { return default_device() == Device::cpu() || !cuda::simulated() ? 10'000 : 200; }

Tensor cells(const Shape& shape, const std::vector<std::int64_t>& on) {
  return test::written<bool>(zeros(shape, boolean), [&](bool* at) {
    for (const auto i : on) at[i] = true;
  });
}

/// Numbers whose bits a careless update would change: negative zero, denormals, the largest, NaN.
Tensor delicate(const Shape& shape, int seed) {
  return test::written<float>(spread(shape, -1, 1, seed, f32), [](float* at) {
    const float specials[] = {-0.0f, 1e-42f, -1e-45f, 3.4e38f, NAN, -1e-20f};
    for (int i = 0; i < 6; ++i) at[i] = specials[i];
  });
}

/// One parameter for each kind of mask. The first six elements, the delicate ones, are always masked.
struct Model : nn::Module {
  nn::Parameter rows{this, "rows", delicate({6, 7}, 1)};
  nn::Parameter heads{this, "heads", delicate({6, 4}, 2)};
  nn::Parameter blocks{this, "blocks", delicate({45}, 3)};
  nn::Parameter elements{this, "elements", delicate({9, 11}, 4)};
  nn::Parameter none{this, "none", delicate({8}, 5)};
  nn::Parameter frozen{this, "frozen", delicate({8}, 6)};
  nn::Parameter free{this, "free", spread({8}, -1, 1, 7, f32)};
};

std::map<std::string, Mask> masks() {
  const Tensor scattered =
      test::written<bool>(spread({9, 11}, 0, 1, 8) > 0.5, [](bool* at) { std::fill_n(at, 6, false); });
  return {{"rows", Mask::rows({6, 7}, {1, 4})},
          {"heads", Mask::heads({6, 4}, 3, {2})},
          {"blocks", Mask::blocks({45}, 10, {false, true, false, false, true})},
          {"elements", Mask::elements(scattered)},
          {"none", Mask::none({8})}};
}

struct Case {
  std::string name;
  std::function<std::unique_ptr<Optimizer>(const Parameters&)> make;
};

template <class Which, class Options>
void add_case(std::vector<Case>& cases, const std::string& name, Options options) {
  for (const double decay : {0.0, 5e-4, 1e-2}) {
    options.weight_decay = decay;
    cases.push_back({name + " decay " + std::to_string(decay),
                     [=](const Parameters& p) { return std::make_unique<Which>(p, options); }});
  }
}

std::vector<Case> cases() {
  std::vector<Case> out;
  add_case<Sgd>(out, "sgd", SgdOptions{.lr = 1e-3});
  add_case<Sgd>(out, "momentum", SgdOptions{.lr = 1e-3, .momentum = 0.9});
  add_case<Sgd>(out, "nesterov", SgdOptions{.lr = 1e-3, .momentum = 0.9, .nesterov = true});
  add_case<Adam>(out, "adam", AdamOptions{.lr = 1e-3});
  add_case<Adam>(out, "amsgrad", AdamOptions{.lr = 1e-3, .amsgrad = true});
  add_case<AdamW>(out, "adamw", AdamWOptions{.lr = 1e-3});
  add_case<Adagrad>(out, "adagrad", AdagradOptions{.lr = 1e-2, .initial_accumulator = 0.1});
  return out;
}

/// Gradients of every element, masked or not. Two sets, so that momentum and moments move.
void set_gradients(const Model& model, int phase) {
  for (const nn::Parameter* p : model.parameters())
    if (p->trainable()) p->value().set_grad(spread(p->shape(), -1, 1.5, 20 + phase, f32));
}

void run(const Model& model, Optimizer& optimizer, int steps) {
  for (int phase = 0; phase < 2; ++phase) {
    set_gradients(model, phase);
    for (int t = 0; t < steps / 2; ++t) optimizer.step();
  }
}

/// Everything that a mask protects: the parameter and its state tensors, by name.
nn::State protected_tensors(const Model& model, const Optimizer& optimizer) {
  nn::State all = model.state();
  for (const auto& [name, value] : optimizer.state())
    if (value.rank() > 0 && !name.ends_with("/mask")) all[name] = value;
  return all;
}

struct Changes {
  std::int64_t masked = 0, allowed = 0;
};

/// Counts elements whose bits differ, apart for masked elements and for those that may change.
Changes changes(const nn::State& before, const nn::State& after, const std::map<std::string, Mask>& kept) {
  Changes count;
  for (const auto& [name, value] : before) {
    const std::string owner = name.substr(0, name.find('/'));
    if (owner == "free") continue;
    const auto mask = kept.find(owner);
    const Tensor allowed = test::on_host(mask == kept.end() ? zeros(value.shape(), boolean) : mask->second.to_tensor());
    const Tensor was = test::on_host(value), now = test::on_host(after.at(name));
    const auto* a = static_cast<const std::uint32_t*>(was.raw());
    const auto* b = static_cast<const std::uint32_t*>(now.raw());
    for (std::int64_t i = 0; i < value.numel(); ++i)
      (allowed.data<bool>()[i] ? count.allowed : count.masked) += a[i] != b[i];
  }
  return count;
}

std::int64_t count_allowed(const nn::State& state, const std::map<std::string, Mask>& kept) {
  std::int64_t n = 0;
  for (const auto& [name, value] : state)
    if (const auto mask = kept.find(name.substr(0, name.find('/'))); mask != kept.end()) n += mask->second.count();
  return n;
}

/// One optimizer, decay and clipping: unmasked steps so that state is there, then the promise.
void keep_the_promise(const Case& c, int clipping, const test::Scratch& scratch) {
  const auto kept = masks();
  const auto configure = [&](Optimizer& o) {
    o.clip_norm(clipping == 1 ? 1 : 0);
    o.clip_value(clipping == 2 ? 0.5 : 0);
    o.set_penalty("pull", {0.1, {}, {{"rows", zeros({6, 7})}, {"elements", ones({9, 11})}}});
  };
  Model model;
  const auto optimizer = c.make(model.parameters());
  configure(*optimizer);
  const nn::State fresh = model.state();
  run(model, *optimizer, 4);
  model.load(fresh);  // the delicate bits again, with a state that is not zero
  for (const auto& [name, mask] : kept) optimizer->set_mask(name, mask);
  model.freeze("frozen");
  const nn::State before = protected_tensors(model, *optimizer);
  run(model, *optimizer, all_steps());
  const nn::State after = protected_tensors(model, *optimizer);
  const Changes count = changes(before, after, kept);
  CHECK(count.masked == 0);
  CHECK(count.allowed >= count_allowed(before, kept) * 9 / 10);  // the others did move

  nn::save(model, scratch.path() / "model");
  nn::save_safetensors(scratch.path() / "optimizer", optimizer->state());
  Model loaded;
  const auto resumed = c.make(loaded.parameters());
  configure(*resumed);
  nn::load(loaded, scratch.path() / "model");
  resumed->load(nn::load_safetensors(scratch.path() / "optimizer"));
  loaded.freeze("frozen");
  run(loaded, *resumed, 100);
  run(model, *optimizer, 100);
  const nn::State end = protected_tensors(loaded, *resumed);
  CHECK(changes(before, end, kept).masked == 0);
  CHECK(changes(protected_tensors(model, *optimizer), end, {}).masked ==
        0);  // no bit differs from the run that went on
}

}  // namespace

TEST_CASE("Masked and frozen elements keep their bits after 10,000 steps of every optimizer") {
  const test::Scratch scratch;
  int combinations = 0;
  for (const Case& c : cases())
    for (int clipping = 0; clipping < 3; ++clipping) {
      INFO(c.name << " clipping " << clipping);
      keep_the_promise(c, clipping, scratch);
      ++combinations;
    }
  CHECK(combinations == 63);
  std::cout << "masks: 0 changed bits in " << combinations << " combinations x 5 masks and a frozen tensor, "
            << all_steps() << " steps each\n";
}

TEST_CASE("Masks and what they allow") {
  const auto allows = [](const Mask& mask, const std::vector<std::int64_t>& on) {
    CHECK(same(mask.to_tensor(), cells(mask.shape(), on)));
    CHECK(mask.count() == static_cast<std::int64_t>(on.size()));
    CHECK(mask.is_none() == on.empty());
    CHECK(mask.is_all() == (static_cast<std::int64_t>(on.size()) == mask.numel()));
  };
  allows(Mask::all({2, 2}), {0, 1, 2, 3});
  allows(Mask::none({2, 2}), {});
  allows(Mask::rows({4, 2}, {3, 1, 3}), {2, 3, 6, 7});
  allows(Mask::rows({3}, {1}), {1});
  allows(Mask::rows({2, 3, 2}, {1}), {6, 7, 8, 9, 10, 11});
  allows(Mask::rows({2, 2}, {0, 1}), {0, 1, 2, 3});
  allows(Mask::heads({4, 2}, 2, {1}), {4, 5, 6, 7});
  allows(Mask::blocks({5}, 2, {true, false, true}), {0, 1, 4});
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  allows(Mask::blocks({5}, kMost, {true}), {0, 1, 2, 3, 4});
  CHECK(Mask::blocks({kMost}, kMost / 2 + 1, {false, true}).count() == kMost / 2);
  allows(Mask::elements(cells({40}, {0, 31, 32, 39})), {0, 31, 32, 39});
  allows(Mask::all({0, 3}), {});
}

TEST_CASE("Long runs of an element mask become ranges, scattered elements bits") {
  const Tensor runs = test::written<bool>(zeros({1000}, boolean), [](bool* at) { std::fill_n(at + 200, 300, true); });
  CHECK(Mask::elements(runs).is_structured());
  CHECK_FALSE(Mask::elements(spread({1000}, 0, 1, 1) > 0.5).is_structured());
  CHECK(Mask::elements(transpose(cells({2, 3}, {1, 5}))).shape() == Shape{3, 2});
}

TEST_CASE("Masks combine: both must allow") {
  const Mask rows = Mask::rows({3, 4}, {0, 1});
  CHECK(same((rows & Mask::elements(cells({3, 4}, {0, 5, 10}))).to_tensor(), cells({3, 4}, {0, 5})));
  CHECK((rows & Mask::none({3, 4})).is_none());
  CHECK((rows & Mask::all({3, 4})).count() == 8);
  CHECK_THAT(message_of([&] { rows& Mask::all({4, 3}); }), Contains("[mask] shapes (3, 4) and (4, 3)"));
}

TEST_CASE("Masks name what is wrong") {
  CHECK_THAT(message_of([] { Mask::rows({4, 2}, {4}); }), Contains("row 4 of shape (4, 2)"));
  CHECK_THAT(message_of([] { Mask::rows({4, 2}, {-1}); }), Contains("row -1"));
  CHECK_THAT(message_of([] { Mask::rows({}, {0}); }), Contains("a scalar has no rows"));
  CHECK_THAT(message_of([] { Mask::heads({4, 2}, 3, {0}); }), Contains("not a multiple of 3 heads"));
  CHECK_THAT(message_of([] { Mask::heads({4, 2}, 2, {2}); }), Contains("head 2 of 2"));
  CHECK_THAT(message_of([] { Mask::blocks({5}, 2, {true}); }), Contains("1 choices for 3 blocks of 2"));
  CHECK_THAT(message_of([] { Mask::blocks({0}, std::numeric_limits<std::int64_t>::max(), {true}); }),
             Contains("1 choices for 0 blocks of"));
  CHECK_THAT(message_of([] { Mask::blocks({5}, 0, {true}); }), Contains("blocks of 0 elements"));
  CHECK_THAT(message_of([] { Mask::elements(ones({3})); }), Contains("elements hold f32, expected bool"));
}

TEST_CASE("A mask can change during training, and be removed") {
  Model model;
  Adam optimizer({&model.free}, {.lr = 0.1});
  const auto step = [&] {
    const Tensor before = model.free.value().clone();
    model.free.value().set_grad(ones({8}));
    optimizer.step();
    return not_equal(before, model.free.value());
  };
  optimizer.set_mask("free", Mask::elements(cells({8}, {0, 1})));
  CHECK(same(step(), cells({8}, {0, 1})));
  CHECK(optimizer.mask("free")->count() == 2);
  optimizer.set_mask("free", Mask::elements(cells({8}, {1, 7})));
  CHECK(same(step(), cells({8}, {1, 7})));
  const nn::State masked = optimizer.state();
  optimizer.clear_mask("free");
  const nn::State without = optimizer.state();
  optimizer.load(masked);
  CHECK(optimizer.mask("free")->count() == 2);
  optimizer.load(without);
  CHECK(optimizer.mask("free") == nullptr);
  CHECK(same(step(), ones({8}, boolean)));
}
