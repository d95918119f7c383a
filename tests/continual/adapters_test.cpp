// Adapters: no effect when attached, gradients and merged weights against the written formulas, what is trainable, and
// what is refused.
#include <cmath>
#include <limits>

#include <stet/continual/adapters/adapters.h>
#include <stet/continual/learner.h>
#include <stet/continual/strategies/adapt.h>
#include <stet/nn/checkpoint.h>
#include <stet/nn/losses.h>
#include <stet/nn/pretrained.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/goldens.h"
#include "support/message.h"
#include "support/pools.h"
#include "support/samples.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::dora;
using test::kLora;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

namespace {

std::vector<AdapterOptions> linear_kinds() {
  LoraOptions rs = kLora;
  rs.rslora = true;
  LoraOptions head = dora();
  head.rank_pattern = {{"*.0.*q_proj", 3}, {"*q_proj", 1}};
  head.alpha_pattern = {{"*v_proj", 2.5}};
  head.modules_to_save = {"lm_head", "*.1.*down_proj"};
  LoraOptions table = kLora, dora_table = dora();
  table.embeddings = dora_table.embeddings = {"*embed_tokens"};
  return {kLora,
          rs,
          dora(),
          head,
          table,
          dora_table,
          Ia3Options{.targets = {"*k_proj", "*v_proj"}, .feedforward = {"*down_proj"}}};
}
std::vector<AdapterOptions> all_kinds() {
  auto kinds = linear_kinds();
  for (const Bottleneck placement : {Bottleneck::houlsby, Bottleneck::pfeiffer, Bottleneck::parallel})
    kinds.push_back(BottleneckOptions{.placement = placement, .width = 3, .activation = Activation::gelu, .scale = 2});
  return kinds;
}

}  // namespace

TEST_CASE("an adapter has no effect when attached, has one when trained, and none when detached", "[adapters]") {
  for (const AdapterOptions& options : all_kinds()) {
    CAPTURE(options.index());
    LlamaCase llama;
    const Tensor plain = llama();
    Adapters adapters(llama.model);
    adapters.attach("a", options);
    CHECK(same_bits(llama(), plain));
    shake(adapters.parameters("a"));
    const Tensor adapted = llama();
    CHECK(max(abs(adapted - plain)).item() > 1e-4);
    adapters.deactivate();
    CHECK(same_bits(llama(), plain));
    adapters.activate("a");
    CHECK(same_bits(llama(), adapted));
    adapters.detach("a");
    CHECK(same_bits(llama(), plain));
    CHECK(adapters.names().empty());
  }
}

TEST_CASE("LoRA, DoRA and (IA)^3 are their formulas, gradients included", "[adapters]") {
  for (const bool bias : {true, false})
    for (const int kind : {0, 1, 2, 3}) {
      CAPTURE(bias, kind);
      nn::Sequential model;
      auto& layer = model.add<nn::Linear>("fc", 5, 4, nn::LinearOptions{.bias = bias});
      Adapters adapters(model);
      LoraOptions lora{.targets = {"fc"}, .rank = 2, .alpha = 3, .rslora = kind == 1, .dora = kind == 1};
      if (kind < 2) adapters.attach("a", lora);
      else adapters.attach("a", kind == 2 ? Ia3Options{.targets = {"fc"}} : Ia3Options{.feedforward = {"fc"}});
      shake(adapters.parameters("a"));
      const Tensor x = test::spread({3, 5}, -1, 1, 1, f32).set_requires_grad(),
                   seed = test::spread({3, 4}, -1, 1, 2, f32);
      const Tensor y = layer(x, Activation::tanh);
      y.backward(seed);

      // The same in f64, composed of matmul.
      const auto wide = [](const Tensor& t) { return cast(t.detach(), f64); };
      std::vector<Tensor> p;
      for (const nn::Parameter* parameter : adapters.parameters("a")) p.push_back(wide(*parameter).set_requires_grad());
      const Tensor in = wide(x).set_requires_grad(), w = wide(layer.weight);
      const Tensor b = bias ? wide(*layer.bias) : zeros({4}, f64);
      const double s = kind == 1 ? 3 / std::sqrt(2.0) : 1.5;
      Tensor z;
      if (kind == 0) z = matmul(in, transpose(w)) + matmul(matmul(in, transpose(p[0])), transpose(p[1])) * s + b;
      if (kind == 1) {
        const Tensor v = w + matmul(p[1], p[0]) * s;
        z = matmul(in, transpose(v * unsqueeze(p[2] / sqrt(sum(square(v.detach()), {1})), 1))) + b;
      }
      if (kind == 2) z = (matmul(in, transpose(w)) + b) * flatten(p[0]);
      if (kind == 3) z = matmul(in * flatten(p[0]), transpose(w)) + b;
      const Tensor expected = tanh(z);
      expected.backward(cast(seed, f64));
      CHECK(test::golden_error(cast(y.detach(), f64), expected.detach()) < 1e-6);
      CHECK(test::golden_error(cast(x.grad(), f64), in.grad()) < 2e-6);
      const auto mine = adapters.parameters("a");
      for (std::size_t i = 0; i < mine.size(); ++i) {
        CAPTURE(mine[i]->path());
        CHECK(test::golden_error(cast(mine[i]->grad(), f64), p[i].grad()) < 2e-6);
      }
      adapters.merge();
      CHECK(test::golden_error(cast(layer(x, Activation::tanh).detach(), f64), expected.detach()) < 1e-6);
    }
}

TEST_CASE("merging changes logits by rounding, keeps the base's bits, and is undone exactly", "[adapters]") {
  for (const AdapterOptions& options : linear_kinds()) {
    CAPTURE(options.index());
    LlamaCase llama;
    const nn::State base = llama.model.state();
    Adapters adapters(llama.model);
    adapters.attach("a", options);
    shake(adapters.parameters("a"));
    const Tensor before = llama();
    const auto forward = [&](const Tensor& x) { return llama.model(x); };
    const double change = adapters.merge(forward, llama.tokens);
    const Tensor merged = llama();
    CHECK(change == max(abs(merged - before)).item());
    CHECK(change > 0);
    CHECK(change < 1e-4);
    adapters.merge();
    CHECK(same_bits(llama(), merged));
    CHECK(adapters.merge(forward, llama.tokens) == change);
    for (const auto& [name, value] : base) CHECK(same_bits(llama.model.state().at(name), value));
    CHECK(adapters.base_state().size() == base.size());

    LlamaCase alone;
    alone.model.load(adapters.merged_state());
    CHECK(same_bits(alone(), merged));

    adapters.unmerge();
    CHECK(same_bits(llama(), before));
    adapters.deactivate();
    alone.model.load(base);
    CHECK(same_bits(llama(), alone()));
  }
}

TEST_CASE("a released folder holds the base, whatever is attached, active or merged", "[adapters]") {
  for (const AdapterOptions& options : all_kinds()) {
    CAPTURE(options.index());
    LlamaCase llama;
    const Tensor plain = llama();
    Adapters adapters(llama.model);
    adapters.attach("a", options);
    adapters.attach("b", options);
    shake(adapters.parameters("b"));
    const bool linear = !std::holds_alternative<BottleneckOptions>(options);
    for (const bool merged : linear ? std::vector{false, true} : std::vector{false}) {
      if (merged) adapters.merge();
      const test::Scratch scratch;
      nn::save_pretrained(llama.model, scratch.path());
      nn::Pretrained saved = nn::load_pretrained(scratch.path());
      const NoGrad no_grad;
      const nn::EvalScope evaluation(saved.module());
      CHECK(same_bits((*std::get<std::unique_ptr<nn::Llama>>(saved.model))(llama.tokens), plain));
    }
    adapters.unmerge();
  }
}

TEST_CASE("ranks and alphas by glob, and layers trained whole", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  const LoraOptions options{.targets = {"*_proj"},
                            .rank = 2,
                            .alpha = 3,
                            .rank_pattern = {{"*.0.*q_proj", 5}, {"*q_proj", 1}},
                            .alpha_pattern = {{"*.1.*v_proj", 2.5}},
                            .modules_to_save = {"lm_head", "*.0.mlp.up_proj"}};
  CHECK(adapters.attach("a", options) == 15);
  const auto shape_of = [&](const std::string& path) { return llama.model.parameter(path).shape(); };
  CHECK(shape_of("model.layers.0.self_attn.q_proj.a.lora_A") == Shape{5, 8});
  CHECK(shape_of("model.layers.1.self_attn.q_proj.a.lora_B") == Shape{8, 1});
  CHECK(shape_of("model.layers.1.self_attn.k_proj.a.lora_A") == Shape{2, 8});
  CHECK(shape_of("lm_head.a.weight") == Shape{19, 8});
  CHECK(shape_of("model.layers.0.mlp.up_proj.a.weight") == Shape{12, 8});
  adapters.freeze_base();

  // The head's copy is trained; its original keeps its bits, and comes back.
  const Tensor head = llama.model.parameter("lm_head.weight").value().detach().clone(), plain = llama();
  optim::Sgd optimizer(llama.model.trainable_parameters(), {.lr = 0.1});
  sum(square(llama.model(llama.tokens))).backward();
  optimizer.step();
  CHECK(same_bits(llama.model.parameter("lm_head.weight").value().detach(), head));
  CHECK(max(abs(llama.model.parameter("lm_head.a.weight").value().detach() - head)).item() > 0);
  const Tensor trained = llama();
  CHECK_FALSE(same_bits(trained, plain));

  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  adapters.detach("a");
  CHECK(same_bits(llama(), plain));
  adapters.load("b", scratch.path());
  CHECK(same_bits(llama(), trained));
  const auto& loaded = std::get<LoraOptions>(adapters.options("b"));
  CHECK(loaded.rank_pattern.size() == 2);
  CHECK(loaded.alpha_pattern == ByGlob<double>{{"model.layers.1.self_attn.v_proj", 2.5}});
  CHECK(loaded.modules_to_save == std::vector<std::string>{"lm_head", "model.layers.0.mlp.up_proj"});
}

TEST_CASE("only attaching and freezing decide what is trainable", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  const auto trainable = [&] {
    std::vector<std::string> names;
    for (const nn::Parameter* p : llama.model.trainable_parameters()) names.push_back(p->path());
    return names;
  };
  const std::int64_t base = llama.model.count();
  adapters.attach("a", kLora);
  CHECK(llama.model.count_trainable() == llama.model.count());
  CHECK(adapters.freeze_base() == 21);
  const std::int64_t adapter = llama.model.count() - base;
  CHECK(llama.model.count_trainable() == adapter);
  CHECK_THAT(nn::summary(llama.model),
             Contains("Frozen params: " + nn::with_commas(base) + "   Trainable params: " + nn::with_commas(adapter)));
  for (nn::Parameter* p : adapters.parameters("a")) p->set_trainable(false);
  adapters.attach("b", dora());
  const auto names = trainable();
  CHECK(names.size() == adapters.parameters("b").size());
  adapters.activate("a");
  CHECK(trainable() == names);
  adapters.deactivate();
  CHECK(trainable() == names);
  adapters.activate("b");
  CHECK(trainable() == names);
}

TEST_CASE("what two owners have put into a model is no part of the base", "[adapters]") {
  nn::Mlp model({4, 5, 3});
  const nn::State base = model.state();
  Adapters one(model), two(model);
  one.attach("x", LoraOptions{.targets = {"fc1"}, .rank = 2, .dropout = 0.1});
  two.attach("y", LoraOptions{.targets = {"fc2"}, .rank = 2, .dropout = 0.1});
  CHECK(two.freeze_base() == 4);
  for (const Adapters* owner : {&one, &two})
    for (const std::string& name : owner->names())
      for (const nn::Parameter* p : owner->parameters(name)) CHECK(p->trainable());
  for (const nn::State& state : {one.base_state(), two.merged_state()})
    CHECK(nn::shapes_of(state) == nn::shapes_of(base));
}

TEST_CASE("a frozen base under LoRA computes no weight gradient and keeps no activation for it", "[adapters]") {
  constexpr std::int64_t n = 64, width = 512;
  nn::Sequential model;
  auto& layer = model.add<nn::Linear>("fc", width, width, nn::LinearOptions{.bias = false});
  Adapters adapters(model);
  adapters.attach("a", LoraOptions{.targets = {"fc"}, .rank = 4});
  adapters.freeze_base();
  const Tensor x = test::spread({n, width}, -1, 1, 1, f32);
  const auto kept = [&] {  // by the graph of one step, besides the output; then the most that backward needs
    const std::int64_t before = memory_stats().live_bytes;
    const Tensor y = layer(x * 1.0);
    const std::int64_t live = memory_stats().live_bytes - before - y.bytes();
    reset_peak_memory();
    const std::int64_t at = memory_stats().live_bytes;
    y.backward(ones(y.shape()));
    return std::pair{live, memory_stats().peak_bytes - at};
  };
  const auto [frozen_live, frozen_peak] = kept();
  CHECK_FALSE(layer.weight.grad().defined());
  // x once, for A's gradient, and the thin product.
  CHECK(frozen_live <= n * width * 4 + 3 * n * 4 * 4 + 4096);
  CHECK(frozen_peak < width * width * 4);  // a weight gradient would not fit
  layer.weight.set_trainable(true);
  CHECK(kept().second >= width * width * 4);
  layer.weight.set_trainable(false);
  model.zero_grad();
  for (nn::Parameter* p : adapters.parameters("a")) p->set_trainable(false);
  CHECK_FALSE(layer(x).requires_grad());
}

TEST_CASE("recomputed blocks and dropout work with adapters", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  LoraOptions options = kLora;
  options.dropout = 0.3;
  adapters.attach("a", options);
  shake(adapters.parameters("a"));
  adapters.freeze_base();
  const nn::State state = llama.model.state();
  const auto gradients = [&](bool recompute) {
    llama.model.load(state);
    llama.model.zero_grad();
    llama.model.layers.recompute = recompute;
    sum(square(llama.model(llama.tokens))).backward();
    std::vector<Tensor> all;
    for (const nn::Parameter* p : adapters.parameters("a")) all.push_back(p->grad().clone());
    return all;
  };
  const auto plain = gradients(false), again = gradients(true);
  for (std::size_t i = 0; i < plain.size(); ++i) CHECK(same_bits(plain[i], again[i]));
  const NoGrad no_grad;
  llama.model.load(state);
  CHECK_FALSE(same_bits(llama.model(llama.tokens), llama()));
}

TEST_CASE("a learner adapts a model that it keeps", "[adapters]") {
  const auto scenario =
      split_classes(test::clouds(4, 40, 6, 1), test::clouds(4, 20, 6, 2), Setting::domain_incremental, 2);
  nn::Mlp model({6, 8, scenario.outputs});
  optim::Adam optimizer(model.parameters(), {.lr = 1e-2});
  Adapters adapters(model);
  Learner learner(model, optimizer,
                  Adapt(adapters, "task 2", LoraOptions{.targets = {"*"}, .rank = 2}, {.from_task = 1}));
  nn::State base;
  learner.options.batch_size = 8;
  learner.options.on_progress = [&](const Progress& p) {
    if (p.task == 0) base = model.state();
  };
  learner.run(scenario);
  CHECK(adapters.active() == "task 2");
  for (const auto& [name, value] : base) CHECK(same_bits(model.state().at(name), value));
  for (const nn::Parameter* p : adapters.parameters("task 2"))
    if (p->name() == "lora_B") CHECK(max(abs(p->value())).item() > 0);
}

TEST_CASE("a run with an adapter is resumed to the bit", "[adapters]") {
  const auto scenario =
      split_classes(test::clouds(4, 40, 6, 1), test::clouds(4, 20, 6, 2), Setting::domain_incremental, 2);
  nn::State at, end;
  for (const bool resumed : {false, true}) {
    nn::Mlp model({6, 8, scenario.outputs});
    Adapters adapters(model);
    const LoraOptions kind{.targets = {"*"}, .rank = 2, .dropout = 0.2};
    if (resumed) adapters.attach("a", kind);
    optim::Adam optimizer(model.parameters(), {.lr = 1e-2});
    Learner learner(model, optimizer, Adapt(adapters, "a", kind, {.from_task = 1}));
    learner.options.batch_size = 8;
    learner.options.on_progress = [&](const Progress& p) {
      if (!resumed && p.task == 1 && p.step == 3) at = learner.state();
    };
    if (resumed) learner.load(at);
    learner.run(scenario);
    if (!resumed) end = model.state();
    for (const auto& [name, value] : model.state()) {
      CAPTURE(name);
      CHECK(same_bits(value, end.at(name)));
    }
  }
}

TEST_CASE("LoRA on a tied output, and on an embedding as if it were a linear layer, is refused by name",
          "[adapters][misuse]") {
  LlamaCase llama(true);
  Adapters adapters(llama.model);
  for (const AdapterOptions& options : {AdapterOptions(LoraOptions{.targets = {"*q_proj", "lm_head"}}),
                                        AdapterOptions(Ia3Options{.targets = {"lm_head"}})})
    CHECK_THAT(message_of([&] { adapters.attach("a", options); }), Contains("no linear layer matches 'lm_head'"));
  CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*embed_tokens"}}); }),
             Contains("no linear layer matches '*embed_tokens'"));
  // In PEFT's files, too.
  adapters.attach("a", kLora);
  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  const auto refused = [&](const std::string& key, const Shape& a, const std::string& other, const Shape& b) {
    const auto file = scratch.path() / "adapter_model.safetensors";
    const nn::State saved = nn::load_safetensors(file);
    nn::State state = saved;
    state["base_model.model." + key] = zeros(a);
    state["base_model.model." + other] = zeros(b);
    nn::save_safetensors(file, state);
    const std::string message = message_of([&] { adapters.load("b", scratch.path()); });
    nn::save_safetensors(file, saved);
    return message;
  };
  CHECK_THAT(refused("lm_head.lora_A.weight", {2, 8}, "lm_head.lora_B.weight", {19, 2}),
             Contains("adapter_model.safetensors") && Contains("no linear layer matches 'lm_head'"));
  CHECK_THAT(refused("model.embed_tokens.lora_A.weight", {2, 8}, "model.embed_tokens.lora_B.weight", {19, 2}),
             Contains("no linear layer matches 'model.embed_tokens'"));
  CHECK(adapters.names() == std::vector<std::string>{"a"});
}

TEST_CASE("what does not fit is refused by name", "[adapters][misuse]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*query"}}); }),
             Contains("[attach] no linear layer matches '*query'") && Contains("model.layers.0.self_attn.q_proj"));
  CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{}); }), Contains("has no targets"));
  CHECK_THAT(
      message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*q_proj"}, .modules_to_save = {"head"}}); }),
      Contains("no module with parameters matches 'head'"));
  CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*q_proj"}, .rank = 0}); }),
             Contains("rank 0"));
  for (const double wrong : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*q_proj"}, .alpha = wrong}); }),
               Contains("[Lora] 'model.layers.0.self_attn.q_proj': alpha "));
    CHECK_THAT(message_of([&] { adapters.attach("a", BottleneckOptions{.scale = wrong}); }), Contains("scale "));
  }
  for (const double wrong : {1.0, -0.1, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.targets = {"*q_proj"}, .dropout = wrong}); }),
               Contains("expected at least 0 and below 1"));
  CHECK_THAT(message_of([&] { adapters.attach("weight", kLora); }), Contains("already has a part named 'weight'"));
  CHECK_THAT(message_of([&] { adapters.activate("a"); }), Contains("no adapter 'a'"));
  CHECK_THAT(message_of([&] { adapters.merge(); }), Contains("no adapter is active"));
  CHECK(adapters.names().empty());
  CHECK(llama.model.parameters().size() == 21);
  adapters.attach("a", kLora);
  CHECK_THAT(message_of([&] { adapters.attach("a", kLora); }), Contains("there is an adapter 'a' already"));
  Adapters others(llama.model);
  CHECK_THAT(message_of([&] { others.attach("b", kLora); }), Contains("is taken by another adapter"));
  CHECK(others.names().empty());

  const test::Scratch scratch;
  adapters.save("a", scratch.path());
  shake(adapters.parameters("a"));
  adapters.merge();
  for (const auto& action : std::vector<std::function<void()>>{
           [&] { adapters.attach("b", kLora); }, [&] { adapters.detach("a"); }, [&] { adapters.activate("a"); },
           [&] { adapters.deactivate(); }, [&] { adapters.load("b", scratch.path()); }})
    CHECK_THAT(message_of(action), Contains("'a' is merged"));
  llama.model.parameter("model.layers.0.self_attn.q_proj.weight").set(zeros({8, 8}));
  CHECK_THAT(message_of([&] { llama(); }), Contains("written while merged"));
  adapters.unmerge();
}

TEST_CASE("a model may go before its adapters", "[adapters]") {
  auto llama = std::make_unique<LlamaCase>();
  auto adapters = std::make_unique<Adapters>(llama->model);
  adapters->attach("a", kLora);
  llama.reset();
  adapters.reset();
  SUCCEED();
}

TEST_CASE("an optimizer refuses to step when its adapter is gone", "[adapters][misuse]") {
  nn::Mlp model({4, 5, 3});
  auto adapters = std::make_unique<Adapters>(model);
  const LoraOptions options{.targets = {"*"}, .rank = 2};
  const auto train = [&](optim::Optimizer& optimizer) {
    sum(square(model(test::spread({2, 4}, -1, 1, 1, f32)))).backward();
    optimizer.step();
    optimizer.zero_grad();
  };
  adapters->attach("x", options);
  optim::AdamW optimizer(model.trainable_parameters());
  train(optimizer);
  adapters->detach("x");
  CHECK_THAT(message_of([&] { train(optimizer); }), Contains("[step] parameter 'fc1.x.lora_A' is gone"));
  CHECK_THAT(message_of([&] { optimizer.zero_grad(); }), Contains("[zero_grad] parameter 'fc1.x.lora_A' is gone"));

  adapters->attach("x", options);
  optim::AdamW careful(model.trainable_parameters());
  train(careful);
  careful.remove_parameters(adapters->parameters("x"));
  adapters.reset();
  train(careful);
  CHECK(careful.steps() == 2);
}
