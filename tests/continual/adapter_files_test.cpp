// Adapters in files: PEFT's are read and written, and what is damaged or does not fit is refused by name.
#include <fstream>

#include <stet/nn/safetensors.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/goldens.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::kLora;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

namespace {

const std::filesystem::path kGoldens = std::filesystem::path(STET_SOURCE_DIR) / "tests" / "golden" / "adapters";

}  // namespace

TEST_CASE("PEFT's adapters give PEFT's logits and are written as PEFT reads them", "[adapters]") {
  const nn::State golden = nn::load_safetensors(kGoldens / "base.safetensors");
  const auto base = [&](const std::string& prefix) {
    nn::State state;
    for (const auto& [name, value] : golden)
      if (name.starts_with(prefix)) state[name.substr(prefix.size())] = value;
    return state;
  };
  const Tensor tokens = to(golden.at("in.tokens"), default_device());
  const test::Scratch scratch;
  const char* keep = std::getenv("STET_ADAPTERS_OUT");  // for make_adapter_goldens.py --check
  for (const std::string name :
       {"lora",           "rslora",        "dora",        "ia3",       "gpt2_lora",  "gpt2_dora",
        "gpt2_ia3",       "lora_patterns", "lora_head",   "ia3_head",  "norms",      "gpt2_bias_all",
        "gpt2_lora_only", "gpt2_wte",      "gpt2_untied", "gpt2_tied", "tied_llama", "gpt2_ia3_whole",
        "lora_embed",     "dora_embed",    "gpt2_embed"}) {
    CAPTURE(name);
    LlamaCase llama(name == "tied_llama");
    test::Gpt2Case gpt2;
    const bool is_gpt2 = name.starts_with("gpt2");
    nn::Module& model = is_gpt2 ? static_cast<nn::Module&>(gpt2.model) : llama.model;
    nn::State values = is_gpt2 ? nn::Gpt2::transposed(base("gpt2.")) : base("llama.");
    if (name == "tied_llama") values.erase("lm_head.weight");
    model.load(values);
    const auto logits = [&] {
      const NoGrad no_grad;
      const nn::EvalScope evaluation(model);
      return is_gpt2 ? gpt2.model(tokens) : llama.model(tokens);
    };
    Adapters adapters(model);
    adapters.load("theirs", kGoldens / name);
    const Tensor expected = to(golden.at(name + "/out"), default_device());
    CHECK(test::golden_error(logits(), expected) < 1e-5);

    const auto folder = keep ? std::filesystem::path(keep) / name : scratch.path() / name;
    adapters.save("theirs", folder);
    const nn::State theirs = nn::load_safetensors(kGoldens / name / "adapter_model.safetensors");
    const nn::State mine = nn::load_safetensors(folder / "adapter_model.safetensors");
    std::size_t repeated = 0;
    for (const auto& [key, value] : theirs) {
      CAPTURE(key);
      if (key.ends_with(".original_module.bias") || key.ends_with(".modules_to_save.bias") ||
          key.ends_with(".embed_tokens.base_layer.weight")) {
        ++repeated;
        continue;
      }
      REQUIRE(mine.contains(key));
      CHECK(same_bits(mine.at(key), value));
    }
    CHECK(mine.size() + repeated == theirs.size());
    // Of ln_f and two c_proj; the base's table.
    CHECK(repeated == (name == "gpt2_bias_all" ? 6 : name == "lora_embed" || name == "dora_embed" ? 1 : 0));
    const Tensor before = logits();
    adapters.detach("theirs");
    adapters.load("mine", folder);
    CHECK(same_bits(logits(), before));
    if (const auto* lora = std::get_if<LoraOptions>(&adapters.options("mine"))) CHECK(lora->fan_in_fan_out == is_gpt2);
  }
}

TEST_CASE("bottleneck adapters are saved and loaded", "[adapters]") {
  const test::Scratch scratch;
  for (const Bottleneck placement : {Bottleneck::houlsby, Bottleneck::pfeiffer, Bottleneck::parallel}) {
    LlamaCase llama;
    Adapters adapters(llama.model);
    CHECK(adapters.attach("a", BottleneckOptions{.placement = placement, .width = 3}) ==
          (placement == Bottleneck::houlsby ? 4 : 2));
    shake(adapters.parameters("a"));
    const Tensor before = llama();
    adapters.save("a", scratch.path());
    adapters.detach("a");
    adapters.load("b", scratch.path());
    CHECK(same_bits(llama(), before));
    CHECK_THROWS_WITH(adapters.merge(), Contains("cannot be merged"));
    CHECK_THROWS_WITH(adapters.merged_state(), Contains("cannot be merged"));
  }
}

TEST_CASE("a model may be the layer that is adapted, or own parameters besides its layers", "[adapters]") {
  const test::Scratch scratch;
  const auto round_trip = [&](nn::Module& model, const Forward& forward, const AdapterOptions& options) {
    const auto now = [&] {
      const NoGrad no_grad;
      return forward(test::spread({2, 3, 4}, -1, 1, 1, f32));
    };
    const Tensor plain = now();
    Adapters adapters(model);
    adapters.attach("x", options);
    shake(adapters.parameters("x"));
    const Tensor before = now();
    CHECK_FALSE(same_bits(before, plain));
    adapters.save("x", scratch.path());
    for (const auto& [key, value] : nn::load_safetensors(scratch.path() / "adapter_model.safetensors"))
      CHECK(key.find("..") == std::string::npos);
    const bool linear = !std::holds_alternative<BottleneckOptions>(options);
    const nn::State base = adapters.base_state(), merged = linear ? adapters.merged_state() : base;
    adapters.detach("x");
    CHECK(same_bits(now(), plain));
    if (linear) {
      model.load(merged);
      CHECK(max(abs(now() - before)).item() < 1e-5);
      model.load(base);
    }
    adapters.load("y", scratch.path());
    CHECK(same_bits(now(), before));
  };
  const std::vector<AdapterOptions> kinds{
      LoraOptions{.targets = {"*"}, .rank = 2, .dora = true, .bias = LoraBias::lora_only},
      LoraOptions{.targets = {"*"}, .rank_pattern = {{"*", 3}}}, Ia3Options{.targets = {""}},
      Ia3Options{.feedforward = {""}}, LoraOptions{.modules_to_save = {"*"}}};
  nn::Linear alone(4, 3);
  nn::Sequential root;
  nn::Linear& child = root.add<nn::Linear>("fc", 4, 3);
  for (nn::Linear* layer : {&alone, &child})
    for (const AdapterOptions& options : kinds) {
      CAPTURE(layer->path(), options.index());
      round_trip(
          *layer, [&](const Tensor& x) { return (*layer)(x); }, options);
    }
  for (const Bottleneck placement : {Bottleneck::houlsby, Bottleneck::pfeiffer}) {
    nn::TransformerBlock block({.width = 4, .heads = 2, .hidden = 8});
    round_trip(
        block, [&](const Tensor& x) { return block(x); }, BottleneckOptions{.placement = placement, .width = 2});
  }
  struct Shifted : nn::Module {
    nn::Linear fc{this, "fc", 4, 3};
    nn::Parameter shift{this, "shift", ones({3})};
    Tensor operator()(const Tensor& x) { return fc(x) + shift; }
  } shifted;
  for (const std::vector<std::string>& whole : {std::vector<std::string>{""}, std::vector<std::string>{"*"}})
    round_trip(
        shifted, [&](const Tensor& x) { return shifted(x); },
        LoraOptions{.targets = {"fc"}, .rank = 2, .modules_to_save = whole});
}

TEST_CASE("files that do not fit are refused by name", "[adapters][misuse]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  adapters.attach("a", kLora);
  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  nn::State file = nn::load_safetensors(scratch.path() / "adapter_model.safetensors");
  const std::string key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  file[key] = zeros({3, 8});
  file["base_model.model.more"] = zeros({1});
  nn::save_safetensors(scratch.path() / "adapter_model.safetensors", file);
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("adapter_model.safetensors") && Contains("mismatched: " + key + " is (3, 8)") &&
                 Contains("unexpected: base_model.model.more"));
  CHECK(adapters.names() == std::vector<std::string>{"a"});
  scratch.write("adapter_config.json", R"({"peft_type": "LORA", "bias": "some"})");
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("bias near byte") && Contains("found \"some\", which is none of those"));
  scratch.write("adapter_config.json", R"({"peft_type": "LORA", "init_lora_weights": "pissa"})");
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("init_lora_weights near byte") && Contains("found \"pissa\""));
  scratch.write("adapter_config.json", R"({"peft_type": "LORA", "r": "two"})");
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("adapter_config.json") && Contains("r near byte") && Contains("\"two\""));
  for (const std::string& pattern : {std::string("(q_proj"), std::string("(?i)q"), std::string(300, 'q')}) {
    scratch.write("adapter_config.json", R"({"peft_type": "LORA", "rank_pattern": {")" + pattern + R"(": 2}})");
    CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
               Contains("rank_pattern") && Contains("near byte") && Contains("is not one that can be matched"));
  }
  scratch.write("adapter_config.json", R"({"peft_type": "LORA", "rank_pattern": {"(.*)*(.*)*(.*)*x": 0}})");
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("mismatched: " + key));  // and does not take long
  scratch.write("adapter_config.json", R"({"peft_type": "VERA"})");
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("peft_type near byte") && Contains("\"VERA\""));
}

TEST_CASE("an embedding's LoRA that was trained on another table is refused by name", "[adapters][misuse]") {
  const test::Scratch scratch;
  std::filesystem::copy(kGoldens / "lora_embed", scratch.path());
  LlamaCase llama;
  const std::string key = "base_model.model.model.embed_tokens.base_layer.weight";
  nn::State file = nn::load_safetensors(scratch.path() / "adapter_model.safetensors");
  REQUIRE(file.contains(key));
  Adapters adapters(llama.model);
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }),
             Contains("different: " + key + " is not this model's"));
  file[key] = zeros({20, 8});  // as of a vocabulary with one more token
  nn::save_safetensors(scratch.path() / "adapter_model.safetensors", file);
  CHECK_THAT(message_of([&] { adapters.load("b", scratch.path()); }), Contains("mismatched: " + key + " is (20, 8)"));
  CHECK(adapters.names().empty());
  file.erase(key);
  nn::save_safetensors(scratch.path() / "adapter_model.safetensors", file);
  adapters.load("b", scratch.path());
}

TEST_CASE("adapter files that end anywhere are refused by name, and nothing is attached", "[adapters]") {
  const test::Scratch scratch;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    std::map<std::string, std::string> bytes;
    for (const char* each : {"adapter_config.json", "adapter_model.safetensors"}) {
      std::ifstream in(kGoldens / "lora" / each, std::ios::binary);
      bytes[each].assign(std::istreambuf_iterator<char>(in), {});
      scratch.write(each, bytes[each]);
    }
    LlamaCase llama;
    Adapters adapters(llama.model);
    const std::string whole = bytes[name].substr(0, bytes[name].find_last_not_of('\n') + 1);
    REQUIRE(whole.size() > 500);
    int refused = 0;
    for (std::size_t size = 0; size < whole.size(); ++size) {
      scratch.write(name, whole.substr(0, size));
      refused += message_of([&] { adapters.load("b", scratch.path()); }).find(name) != std::string::npos;
    }
    CHECK(refused == static_cast<int>(whole.size()));
    CHECK(adapters.names().empty());
    scratch.write(name, bytes[name]);
    adapters.load("b", scratch.path());  // it was the truncation that was refused
  }
}
