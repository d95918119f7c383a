// Adapters averaged: the weighted sum of those that compute the same, and what is refused.
#include <limits>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::dora;
using test::kLora;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

TEST_CASE("adapters can be averaged", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  adapters.attach("a", kLora);
  adapters.attach("b", kLora);
  shake(adapters.parameters("a"));
  shake(adapters.parameters("b"));
  const Tensor with_b = llama();
  adapters.average("mean", {{"a", 0.25}, {"b", 0.75}});
  CHECK(adapters.active() == "b");
  CHECK(same_bits(llama(), with_b));
  const auto a = adapters.parameters("a"), b = adapters.parameters("b"), mean = adapters.parameters("mean");
  for (std::size_t i = 0; i < mean.size(); ++i)
    CHECK(same_bits(mean[i]->value(), a[i]->value() * 0.25 + b[i]->value() * 0.75));
  adapters.average("copy", {{"b", 1}});
  adapters.activate("copy");
  CHECK(same_bits(llama(), with_b));
  adapters.attach("other", dora());
  CHECK_THROWS_WITH(adapters.average("bad", {{"a", 1}, {"other", 1}}),
                    Contains("'a' and 'other' are of different kinds"));
}

TEST_CASE("adapters that compute something else of their parameters are not averaged", "[adapters][misuse]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  const auto refused = [&](const AdapterOptions& one, const AdapterOptions& other, const std::string& expected) {
    adapters.attach("x", one);
    adapters.attach("y", other);
    CHECK_THAT(message_of([&] { adapters.average("z", {{"x", 0.0}, {"y", 1.0}}); }), Contains(expected));
    CHECK(adapters.names() == std::vector<std::string>{"x", "y"});
    adapters.detach("x");
    adapters.detach("y");
  };
  const auto lora = [](const std::function<void(LoraOptions&)>& change) {
    LoraOptions options = kLora;
    change(options);
    return options;
  };
  const std::string both = "[average] adapters 'x' and 'y' ", v_proj = "at 'model.layers.1.self_attn.v_proj': ";
  refused(kLora, lora([](auto& o) { o.alpha = 200; }),
          both + "differ in alpha at 'model.layers.0.mlp.down_proj': 3 and 200");
  refused(kLora, lora([](auto& o) {
            o.alpha_pattern = {{"*.1.*v_proj", 5}};
          }),
          both + "differ in alpha " + v_proj + "3 and 5");
  refused(kLora, lora([](auto& o) {
            o.rank_pattern = {{"*.1.*v_proj", 1}};
          }),
          both + "differ in rank " + v_proj + "2 and 1");
  refused(kLora, lora([](auto& o) { o.rslora = true; }), both + "differ in rslora at");
  refused(kLora, lora([](auto& o) { o.targets.pop_back(); }), both + "are of different kinds or");
  refused(kLora, lora([](auto& o) { o.targets.back() = "*up_proj"; }), both + "are of different kinds or");
  refused(kLora, Ia3Options{.targets = kLora.targets}, both + "are of different kinds or");
  const BottleneckOptions small{.width = 3};
  const auto bottleneck = [&](const std::function<void(BottleneckOptions&)>& change) {
    BottleneckOptions options = small;
    change(options);
    return options;
  };
  refused(small, bottleneck([](auto& o) { o.scale = 4; }),
          both + "differ in scale at 'model.layers.0.mlp_adapter': 1 and 4");
  refused(small, bottleneck([](auto& o) { o.activation = Activation::gelu; }), both + "differ in activation");
  refused(small, bottleneck([](auto& o) { o.placement = Bottleneck::parallel; }), both + "differ in placement");

  // What the same values come from does not matter, nor does what is for training alone.
  adapters.attach("x", kLora);
  adapters.attach("y", lora([](auto& o) {
                    o.alpha = 7;
                    o.alpha_pattern = {{"*", 3}};
                    o.dropout = 0.5;
                  }));
  adapters.average("z", {{"x", 0.5}, {"y", 0.5}});
  for (const double wrong : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    CHECK_THAT(message_of([&] {
                 adapters.average("w", {{"x", 0.5}, {"y", wrong}});
               }),
               Contains("[average] weight ") && Contains(" of adapter 'y': expected a finite number"));
}

TEST_CASE("tied and untied copies of a table are not averaged", "[adapters][misuse]") {
  LlamaCase llama(true);
  Adapters adapters(llama.model);
  LoraOptions options = kLora;
  options.modules_to_save = {"model.embed_tokens"};
  adapters.attach("x", options);
  options.ensure_weight_tying = true;
  adapters.attach("y", options);
  CHECK_THAT(message_of([&] {
               adapters.average("z", {{"x", 0.5}, {"y", 0.5}});
             }),
             Contains("differ in ensure_weight_tying at 'model.embed_tokens': 0 and 1"));
}
