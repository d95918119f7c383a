// What adapters compute, by their definitions, and what their files say of them.
#include <stet/nn/safetensors.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::message_of;
using test::same_bits;
using test::shake;
using test::spread;

namespace {

/// Layers whose names end alike.
struct Nested : nn::Module {
  nn::Linear fc{this, "fc", 4, 3}, bigfc{this, "bigfc", 3, 5};
  nn::Module inner{this, "inner"};
  nn::Linear last{&inner, "fc", 5, 2};
  Tensor operator()(const Tensor& x) { return last(bigfc(fc(x))); }
};

Tensor now(Nested& model) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model);
  return model(spread({6, 4}, -1, 1, 1, f32));
}

}  // namespace

TEST_CASE("a bottleneck adds scale * up(act(down(in))), where parallel reads what its neighbour reads", "[adapters]") {
  const NoGrad no_grad;
  const Tensor x = spread({2, 3, 4}, -1, 1, 1, f32), y = spread({2, 3, 4}, -1, 1, 2, f32);
  for (const Bottleneck placement : {Bottleneck::houlsby, Bottleneck::pfeiffer, Bottleneck::parallel}) {
    nn::TransformerBlock block({.width = 4, .heads = 2, .hidden = 8});
    Adapters adapters(block);
    adapters.attach(
        "a", BottleneckOptions{.placement = placement, .width = 2, .activation = Activation::tanh, .scale = 2.5});
    shake(adapters.parameters("a"));
    const auto expected = [&](const std::string& part, const Tensor& in) {
      const auto p = [&](const char* name) { return block.parameter("a_" + part + "." + name).value(); };
      return y + linear(tanh(linear(in, p("down.weight"), p("down.bias"))), p("up.weight"), p("up.bias")) * 2.5;
    };
    REQUIRE(block.mlp_slot);
    const Tensor in = placement == Bottleneck::parallel ? x : y;
    CHECK(max(abs((*block.mlp_slot)(x, y) - expected("mlp_adapter", in))).item() < 1e-6);
    CHECK((block.attention_slot != nullptr) == (placement == Bottleneck::houlsby));
    if (block.attention_slot)
      CHECK(max(abs((*block.attention_slot)(x, y) - expected("attention_adapter", y))).item() < 1e-6);
  }
}

TEST_CASE("LoRA's dropout is before A alone, and rests in a model that is evaluated", "[adapters]") {
  const Tensor x = spread({6, 4}, -1, 1, 1, f32);
  nn::Linear layer(4, 3);
  const Tensor plain = layer(x).detach();
  Adapters adapters(layer);
  adapters.attach("a", LoraOptions{.targets = {"*"}, .rank = 2, .dropout = 0.9});
  CHECK(same_bits(layer(x).detach(), plain));  // B is 0 still
  shake(adapters.parameters("a"));
  CHECK_FALSE(same_bits(layer(x).detach(), layer(x).detach()));
  layer.eval();
  adapters.attach("b", LoraOptions{.targets = {"*"}, .rank = 2, .dropout = 0.9});
  shake(adapters.parameters("b"));
  CHECK(same_bits(layer(x).detach(), layer(x).detach()));
}

TEST_CASE("a base's bias that is written while its layer is merged is noticed", "[adapters]") {
  nn::Linear layer(4, 3);
  const Tensor x = spread({6, 4}, -1, 1, 1, f32);
  Adapters adapters(layer);
  adapters.attach("a", LoraOptions{.targets = {"*"}, .rank = 2});
  adapters.merge();
  layer(x);
  layer.bias->set(ones({3}));
  CHECK_THAT(message_of([&] { layer(x); }), Contains("base or adapter was written while merged"));
}

TEST_CASE("files say which layer has which alpha, and keep the dropout", "[adapters]") {
  const test::Scratch scratch;
  Nested model;
  Adapters adapters(model);
  adapters.attach(
      "a",
      LoraOptions{.targets = {"fc", "inner.fc"}, .rank = 2, .alpha = 2, .dropout = 0.25, .alpha_pattern = {{"fc", 6}}});
  shake(adapters.parameters("a"));
  const Tensor before = now(model);
  adapters.save("a", scratch.path());
  adapters.detach("a");
  adapters.load("b", scratch.path());
  CHECK(same_bits(now(model), before));
  CHECK(std::get<LoraOptions>(adapters.options("b")).dropout == 0.25);
}

TEST_CASE("what a file leaves out has PEFT's defaults: rank 8, alpha 8", "[adapters]") {
  const test::Scratch scratch;
  Nested model;
  Adapters adapters(model);
  adapters.attach("a", LoraOptions{.targets = {"fc", "bigfc"}, .rank = 8, .alpha = 8});
  shake(adapters.parameters("a"));
  const Tensor before = now(model);
  adapters.save("a", scratch.path());
  scratch.write("adapter_config.json", R"({"peft_type": "LORA"})");
  adapters.detach("a");
  adapters.load("b", scratch.path());
  CHECK(same_bits(now(model), before));
}

TEST_CASE("a name in a file's list stands for the ends of paths that it is, part by part", "[adapters]") {
  const test::Scratch scratch;
  Nested model;
  Adapters adapters(model);
  adapters.attach("a", Ia3Options{.targets = {"bigfc"}, .feedforward = {"fc", "inner.fc"}});
  shake(adapters.parameters("a"));
  const Tensor before = now(model);
  adapters.save("a", scratch.path());
  scratch.write("adapter_config.json",
                R"({"peft_type": "IA3", "target_modules": ["bigfc", "fc"], "feedforward_modules": ["fc"]})");
  adapters.detach("a");
  adapters.load("b", scratch.path());
  CHECK(same_bits(now(model), before));
}
