// What adapters train in copies: modules as a whole, tied embeddings and biases. The originals keep their bits.
#include <algorithm>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include <stet/continual/adapters/adapters.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::Gpt2Case;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

namespace {

using Names = std::vector<std::string>;

LoraOptions gpt2_lora(LoraBias bias, Names whole = {}, bool tie = false) {
  return {.targets = {"*c_attn"}, .rank = 2, .modules_to_save = whole, .bias = bias, .ensure_weight_tying = tie};
}

Names trainable(const nn::Module& model) {
  Names names;
  for (const nn::Parameter* p : model.trainable_parameters()) names.push_back(p->path());
  std::sort(names.begin(), names.end());
  return names;
}

void step(nn::Gpt2& model, const Tensor& tokens) {
  optim::Sgd optimizer(model.trainable_parameters(), {.lr = 0.1});
  sum(square(model(tokens))).backward();
  optimizer.step();
}

nlohmann::json config_of(const test::Scratch& folder) {
  std::ifstream in(folder.path() / "adapter_config.json");
  return nlohmann::json::parse(in);
}

void check_same(const nn::State& a, const nn::State& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : a) {
    CAPTURE(name);
    CHECK(same_bits(value, b.at(name)));
  }
}

}  // namespace

TEST_CASE("embeddings, norms and heads are trained whole, in copies", "[adapters]") {
  LlamaCase llama;
  const nn::State base = llama.model.state();
  const Tensor plain = llama();
  Adapters adapters(llama.model);
  const Names whole{"model.embed_tokens", "model.norm", "lm_head", "*.0.input_layernorm"};
  CHECK(adapters.attach("a", Ia3Options{.targets = {"*k_proj"}, .modules_to_save = whole}) == 6);
  CHECK(same_bits(llama(), plain));
  adapters.freeze_base();
  CHECK(trainable(llama.model) == Names{"lm_head.a.weight", "model.embed_tokens.a.weight",
                                        "model.layers.0.input_layernorm.a.weight",
                                        "model.layers.0.self_attn.k_proj.a.ia3_l",
                                        "model.layers.1.self_attn.k_proj.a.ia3_l", "model.norm.a.weight"});
  sum(square(llama.model(llama.tokens))).backward();
  for (const nn::Parameter* p : adapters.parameters("a")) {
    CAPTURE(p->path());
    REQUIRE(p->grad().defined());
    CHECK(max(abs(p->grad())).item() > 0);
  }
  // Each copy counts: without its change, the output is another.
  shake(adapters.parameters("a"));
  const Tensor trained = llama();
  for (nn::Parameter* p : adapters.parameters("a"))
    if (p->name() == "weight") {
      CAPTURE(p->path());
      const Tensor value = p->value().detach().clone();
      const std::string original = p->path().substr(0, p->path().size() - 8) + "weight";
      p->set(base.at(original));
      CHECK(max(abs(llama() - trained)).item() > 1e-5);
      p->set(value);
    }
  check_same(adapters.base_state(), base);

  // The merged state is that of a model without adapters.
  adapters.merge();
  LlamaCase alone;
  alone.model.load(adapters.merged_state());
  CHECK(same_bits(alone(), llama()));
  adapters.unmerge();

  adapters.attach("b", LoraOptions{.targets = {"*q_proj"}, .modules_to_save = {"model.norm"}});
  CHECK(same_bits(llama(), plain));
  adapters.activate("a");
  CHECK(same_bits(llama(), trained));
  adapters.detach("a");
  CHECK(same_bits(llama(), plain));
  adapters.detach("b");
  check_same(llama.model.state(), base);
}

TEST_CASE("a layer norm trained whole is the layer norm with these parameters", "[adapters]") {
  nn::LayerNorm other(6);
  nn::Module root;
  nn::LayerNorm inner(&root, "ln", 6);
  Adapters inside(root);
  inside.attach("a", LoraOptions{.modules_to_save = {"ln"}});
  shake(inside.parameters("a"));
  REQUIRE(inside.parameters("a").size() == 2);
  other.weight->set(inside.parameters("a")[0]->value().detach());
  other.bias->set(inside.parameters("a")[1]->value().detach());
  const Tensor x = test::spread({3, 6}, -1, 1, 1, f32);
  const Tensor a = inner(x), b = other(x);
  CHECK(same_bits(a, b));
  sum(square(a)).backward();
  sum(square(b)).backward();
  CHECK(same_bits(inside.parameters("a")[0]->grad(), other.weight->grad()));
  CHECK(same_bits(inside.parameters("a")[1]->grad(), other.bias->grad()));
  CHECK_FALSE(inner.weight->grad().defined());
}

TEST_CASE("the trainable set is the biases that are asked for and the adapter", "[adapters]") {
  for (const LoraBias bias : {LoraBias::all, LoraBias::lora_only}) {
    CAPTURE(static_cast<int>(bias));
    Gpt2Case gpt2;
    const nn::State base = gpt2.model.state();
    Adapters adapters(gpt2.model);
    adapters.attach("a", gpt2_lora(bias));
    adapters.freeze_base();
    Names expected;
    std::int64_t count = 0;
    for (const auto& [name, value] : base) {
      const bool target = name.ends_with("c_attn.bias"), trained = bias == LoraBias::all || target;
      if (!name.ends_with(".bias") || !trained) continue;
      expected.push_back(name.substr(0, name.size() - 4) + "a.bias");
      count += value.numel();
    }
    CHECK(expected.size() == (bias == LoraBias::all ? 13 : 2));
    for (const std::string layer : {"0", "1"})
      for (const std::string name : {"A", "B"}) {
        expected.push_back("transformer.h." + layer + ".attn.c_attn.a.lora_" + name);
        count += name == "A" ? 2 * 8 : 24 * 2;
      }
    std::sort(expected.begin(), expected.end());
    CHECK(trainable(gpt2.model) == expected);
    CHECK_THAT(nn::summary(gpt2.model), Contains("Trainable params: " + nn::with_commas(count)));

    // All of them learn.
    shake(adapters.parameters("a"));
    const nn::State before = gpt2.model.state();
    step(gpt2.model, gpt2.tokens);
    for (const std::string& name : expected) {
      CAPTURE(name);
      CHECK(max(abs(gpt2.model.parameter(name).value().detach() - before.at(name))).item() > 0);
    }
    check_same(adapters.base_state(), base);
  }
}

TEST_CASE("biases are trained in copies, and the base's come back to the bit", "[adapters]") {
  for (const LoraBias bias : {LoraBias::all, LoraBias::lora_only}) {
    CAPTURE(static_cast<int>(bias));
    Gpt2Case gpt2;
    for (nn::Parameter* p : gpt2.model.parameters())
      if (p->name() == "bias") p->set(test::spread(p->shape(), -0.4, 0.4, 3, f32));
    const nn::State base = gpt2.model.state();
    const Tensor plain = gpt2();
    Adapters adapters(gpt2.model);
    adapters.attach("a", gpt2_lora(bias));
    CHECK(same_bits(gpt2(), plain));
    shake(adapters.parameters("a"));
    const Tensor trained = gpt2();

    // The same as the base with these biases.
    Gpt2Case other;
    nn::State moved = base;
    for (const nn::Parameter* p : adapters.parameters("a"))
      if (p->name() == "bias") moved.at(p->path().substr(0, p->path().size() - 6) + "bias") = p->value().detach();
    other.model.load(moved);
    Adapters lora(other.model);
    lora.attach("a", gpt2_lora(LoraBias::none));
    for (nn::Parameter* p : lora.parameters("a")) p->set(gpt2.model.parameter(p->path()).value().detach());
    CHECK(same_bits(other(), trained));

    adapters.merge();
    const Tensor merged = gpt2();
    CHECK(max(abs(merged - trained)).item() < 1e-4);
    Gpt2Case alone;
    alone.model.load(adapters.merged_state());
    CHECK(same_bits(alone(), merged));
    adapters.unmerge();
    CHECK(same_bits(gpt2(), trained));

    adapters.attach("b", gpt2_lora(LoraBias::all));
    CHECK(same_bits(gpt2(), plain));
    shake(adapters.parameters("b"));
    const Tensor second = gpt2();
    CHECK_FALSE(same_bits(second, trained));
    adapters.activate("a");
    CHECK(same_bits(gpt2(), trained));
    adapters.activate("b");
    CHECK(same_bits(gpt2(), second));
    adapters.deactivate();
    CHECK(same_bits(gpt2(), plain));
    adapters.detach("a");
    adapters.detach("b");
    check_same(gpt2.model.state(), base);
  }
}

TEST_CASE("biases under a frozen base cost no weight gradient", "[adapters]") {
  constexpr std::int64_t n = 64, width = 512;
  nn::Sequential model;
  auto& plain = model.add<nn::Linear>("plain", width, width);
  auto& adapted = model.add<nn::Linear>("adapted", width, width);
  Adapters adapters(model);
  adapters.attach("a", LoraOptions{.targets = {"adapted"}, .rank = 4, .bias = LoraBias::all});
  adapters.freeze_base();
  const Tensor x = test::spread({n, width}, -1, 1, 1, f32);
  const auto peak = [&] {
    model.zero_grad();
    const Tensor y = model(x);
    reset_peak_memory();
    const std::int64_t at = memory_stats().live_bytes;
    y.backward(ones(y.shape()));
    return memory_stats().peak_bytes - at;
  };
  CHECK(peak() < width * width * 4);  // a weight gradient would not fit
  CHECK_FALSE(plain.weight.grad().defined());
  CHECK_FALSE(adapted.weight.grad().defined());
  for (const nn::Parameter* p : adapters.parameters("a"))
    if (p->name() == "bias") CHECK(p->grad().defined());
  CHECK_FALSE(plain.bias->grad().defined());
  plain.weight.set_trainable(true);
  CHECK(peak() >= width * width * 4);
}

TEST_CASE("tied embeddings are untied by copies, or stay tied when asked", "[adapters]") {
  LlamaCase tied(true);
  const nn::State base = tied.model.state();
  const Tensor plain = tied();
  const Tensor table = base.at("model.embed_tokens.weight");
  const auto untied = [&](const Tensor& input, const Tensor& output) {  // the same model with two weights
    LlamaCase other;
    nn::State state = base;
    state["model.embed_tokens.weight"] = input;
    state["lm_head.weight"] = output;
    other.model.load(state);
    return other();
  };
  struct Way {
    Names whole;
    bool tie, input, output;
  };
  for (const Way& way : {Way{{"model.embed_tokens"}, false, true, false}, Way{{"lm_head"}, false, false, true},
                         Way{{"model.embed_tokens"}, true, true, true}, Way{{"lm_head"}, true, true, true},
                         Way{{"lm_head", "*embed_tokens"}, true, true, true}}) {
    CAPTURE(way.whole, way.tie);
    Adapters adapters(tied.model);
    adapters.attach("a", LoraOptions{.modules_to_save = way.whole, .ensure_weight_tying = way.tie});
    CHECK(same_bits(tied(), plain));
    const auto copies = adapters.parameters("a");
    REQUIRE(copies.size() == 1);
    CHECK(copies[0]->path() == (way.input ? "model.embed_tokens.a.weight" : "lm_head.a.weight"));
    shake(copies);
    const Tensor copy = copies[0]->value().detach().clone();
    const Tensor trained = tied();
    CHECK(same_bits(trained, untied(way.input ? copy : table, way.output ? copy : table)));
    // The gradient is that of the ends that read the copy.
    tied.model.freeze("model.embed_tokens.weight");
    sum(square(tied.model(tied.tokens))).backward();
    CHECK(copies[0]->grad().defined());
    tied.model.zero_grad();

    adapters.merge();
    CHECK(same_bits(tied(), trained));
    if (way.tie) {
      LlamaCase alone(true);
      alone.model.load(adapters.merged_state());
      CHECK(same_bits(alone(), trained));
    } else {
      CHECK_THAT(message_of([&] { adapters.merged_state(); }),
                 Contains("[merge] '" + copies[0]->path().substr(0, copies[0]->path().size() - 7)) &&
                     Contains("unties 'model.embed_tokens' and 'lm_head'") && Contains("ensure_weight_tying"));
    }
    adapters.unmerge();
    const test::Scratch scratch;
    adapters.save("a", scratch.path());
    adapters.detach("a");
    CHECK(same_bits(tied(), plain));
    adapters.load("b", scratch.path());
    CHECK(same_bits(tied(), trained));
    CHECK(std::get<LoraOptions>(adapters.options("b")).ensure_weight_tying == way.tie);
    check_same(adapters.base_state(), base);
  }
  CHECK(same_bits(tied(), plain));
}

TEST_CASE("a tied copy's gradient is that of the table in full training", "[adapters]") {
  LlamaCase tied(true);
  sum(square(tied.model(tied.tokens))).backward();
  const Tensor full = tied.model.parameter("model.embed_tokens.weight").grad().clone();
  Adapters adapters(tied.model);
  adapters.attach("a", LoraOptions{.modules_to_save = {"lm_head"}, .ensure_weight_tying = true});
  adapters.freeze_base();
  sum(square(tied.model(tied.tokens))).backward();
  CHECK(same_bits(adapters.parameters("a")[0]->grad(), full));
}

TEST_CASE("copies are averaged with the rest", "[adapters]") {
  Gpt2Case gpt2;
  Adapters adapters(gpt2.model);
  const LoraOptions options = gpt2_lora(LoraBias::all, {"transformer.wte", "*ln_f"}, true);
  for (const char* name : {"a", "b"}) {
    adapters.attach(name, options);
    shake(adapters.parameters(name));
  }
  for (nn::Parameter* p : adapters.parameters("b")) p->set(p->value().detach() * 2);
  adapters.average("mean", {{"a", 0.25}, {"b", 0.75}});
  const auto a = adapters.parameters("a"), b = adapters.parameters("b"), mean = adapters.parameters("mean");
  REQUIRE(mean.size() == 2 * 2 + 12 + 1 + 2);
  for (std::size_t i = 0; i < mean.size(); ++i)
    CHECK(same_bits(mean[i]->value(), a[i]->value() * 0.25 + b[i]->value() * 0.75));
  const Tensor with_b = gpt2();
  adapters.average("copy", {{"b", 1}});
  adapters.activate("copy");
  CHECK(same_bits(gpt2(), with_b));
  adapters.attach("other", gpt2_lora(LoraBias::lora_only));
  CHECK_THROWS_WITH(adapters.average("bad", {{"b", 1}, {"other", 1}}), Contains("are of different kinds"));
}

TEST_CASE("copies are saved under PEFT's keys, and files that do not fit are refused", "[adapters][misuse]") {
  Gpt2Case gpt2;
  const Tensor plain = gpt2();
  Adapters adapters(gpt2.model);
  adapters.attach("a", gpt2_lora(LoraBias::all, {"transformer.wte", "*ln_f"}, true));
  shake(adapters.parameters("a"));
  const Tensor trained = gpt2();
  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  const auto weights = scratch.path() / "adapter_model.safetensors";
  const nn::State saved = nn::load_safetensors(weights);
  const std::string prefix = "base_model.model.";
  for (const char* key :
       {"transformer.h.0.attn.c_attn.base_layer.bias", "transformer.h.0.attn.c_proj.bias", "transformer.h.1.ln_2.bias",
        "transformer.ln_f.weight", "transformer.ln_f.bias", "transformer.wte.weight", "lm_head.weight"})
    CHECK(saved.contains(prefix + key));
  CHECK(saved.size() == adapters.parameters("a").size() + 1);
  CHECK(same_bits(saved.at(prefix + "lm_head.weight"), saved.at(prefix + "transformer.wte.weight")));

  // PEFT ties by the name of either end that it knows.
  CHECK(config_of(scratch).at("modules_to_save") == nlohmann::json{"transformer.ln_f", "transformer.wte", "lm_head"});
  CHECK(config_of(scratch).at("bias") == "all");
  CHECK(config_of(scratch).at("ensure_weight_tying") == true);

  adapters.detach("a");
  const auto refused = [&](const std::function<void(nn::State&)>& change) {
    nn::State state = saved;
    change(state);
    nn::save_safetensors(weights, state);
    const std::string message = message_of([&] { adapters.load("b", scratch.path()); });
    CHECK(adapters.names().empty());
    CHECK(same_bits(gpt2(), plain));
    return message;
  };
  CHECK_THAT(refused([&](nn::State& s) {
               s.at(prefix + "lm_head.weight") = zeros({19, 8});
             }),
             Contains("untied: " + prefix + "transformer.wte.weight and " + prefix + "lm_head.weight differ"));
  CHECK_THAT(refused([&](nn::State& s) { s.erase(prefix + "transformer.h.1.ln_2.bias"); }),
             Contains("missing: " + prefix + "transformer.h.1.ln_2.bias"));
  CHECK_THAT(refused([&](nn::State& s) { s.at(prefix + "transformer.ln_f.bias") = zeros({9}); }),
             Contains("mismatched: " + prefix + "transformer.ln_f.bias"));
  CHECK_THAT(refused([&](nn::State& s) { s[prefix + "transformer.ln_g.modules_to_save.weight"] = zeros({9}); }),
             Contains("unexpected: " + prefix + "transformer.ln_g"));
  nn::save_safetensors(weights, saved);
  adapters.load("b", scratch.path());
  CHECK(same_bits(gpt2(), trained));
  const auto& options = std::get<LoraOptions>(adapters.options("b"));
  CHECK(options.bias == LoraBias::all);
  CHECK(options.ensure_weight_tying);
  Adapters others(gpt2.model);
  CHECK_THAT(message_of([&] { others.attach("c", LoraOptions{.modules_to_save = {"*ln_f"}}); }),
             Contains("the slot of 'transformer.ln_f' is taken by another adapter"));
  CHECK_THAT(message_of([&] { others.attach("c", LoraOptions{.modules_to_save = {"lm_head"}}); }),
             Contains("the slot of 'lm_head' is taken by another adapter"));
}

TEST_CASE("a name in modules_to_save stands for all that a module contains", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  adapters.attach("a", LoraOptions{.targets = {"*q_proj"}, .modules_to_save = {"*.0.mlp.*"}});
  CHECK(adapters.parameters("a").size() == 2 * 2 + 3);
  shake(adapters.parameters("a"));
  const Tensor trained = llama();
  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  adapters.detach("a");
  nlohmann::json config = config_of(scratch);
  config["modules_to_save"] = {"0.mlp"};
  scratch.write("adapter_config.json", config.dump());
  adapters.load("b", scratch.path());
  CHECK(same_bits(llama(), trained));
  CHECK(std::get<LoraOptions>(adapters.options("b")).modules_to_save.size() == 3);
  adapters.detach("b");
  config["modules_to_save"] = {"1.mlp"};
  scratch.write("adapter_config.json", config.dump());
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("unexpected: base_model.model.model.layers.0.mlp.down_proj.weight"));
}
