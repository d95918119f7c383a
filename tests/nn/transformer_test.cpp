// Blocks and models: what they may not see, cached decoding, padding, sequence losses, names.
#include <cmath>
#include <limits>
#include <numbers>
#include <sstream>

#include <stet/autograd/engine.h>
#include <stet/autograd/squared.h>
#include <stet/nn/models/bert.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>
#include <stet/nn/sequence.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/models.h"
#include "support/samples.h"

using namespace stet;
using test::same_bits;
using test::small_gpt2;
using test::small_llama;
using test::spread;

namespace {

Tensor tokens(std::int64_t batch, std::int64_t length, std::uint64_t seed = 1) {
  Generator generator(seed);
  return randint({batch, length}, 0, 23, generator);
}

double distance(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item(); }

/// Logits of the model fed one token at a time, then in two pieces, equal those of the whole.
template <class Model> void check_cache(Model& model) {
  const NoGrad no_grad;
  const Tensor ids = tokens(2, 11), whole = model(ids);
  nn::KvCache one, two;
  for (std::int64_t t = 0; t < 11; ++t) {
    const Tensor step = model(slice(ids, 1, t, t + 1), {.cache = &one});
    CHECK(distance(select(step, 1, 0), select(whole, 1, t)) < 1e-5);
  }
  CHECK(one.length() == 11);
  const Tensor first = model(slice(ids, 1, 0, 7), {.cache = &two}), rest = model(slice(ids, 1, 7), {.cache = &two});
  CHECK(distance(cat({first, rest}, 1), whole) < 1e-5);
}

template <class Model> void check_causal(Model& model) {
  const NoGrad no_grad;
  const Tensor a = tokens(2, 11, 1), b = cat({slice(a, 1, 0, 6), slice(tokens(2, 11, 2), 1, 6)}, 1);
  const Tensor x = model(a), y = model(b);
  CHECK(same_bits(slice(x, 1, 0, 6), slice(y, 1, 0, 6)));
  CHECK_FALSE(same_bits(slice(x, 1, 6), slice(y, 1, 6)));
}

std::vector<std::string> names(const nn::Module& model) {
  std::vector<std::string> all;
  for (const auto* p : model.parameters()) all.push_back(p->path());
  return all;
}

}  // namespace

TEST_CASE("Gpt2: causal, and cached decoding equals the whole", "[transformer]") {
  nn::Gpt2 model(small_gpt2());
  check_causal(model);
  check_cache(model);
  CHECK(test::message_of([&] { model(zeros({1, 41}, i64)); }) == "[Gpt2] 41 tokens: n_positions is 40");
  CHECK(names(model)[2] == "transformer.h.0.attn.c_attn.weight");
  CHECK(model.count() == 23 * 16 + 40 * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 32);
}

TEST_CASE("Llama: causal, and cached decoding equals the whole", "[transformer]") {
  nn::Llama model(small_llama());
  check_causal(model);
  check_cache(model);
  nn::Llama tied([] {
    nn::LlamaConfig config = small_llama();
    config.tie_word_embeddings = true;
    return config;
  }());
  CHECK(model.count() - tied.count() == 23 * 16);
}

TEST_CASE("Bert: padding changes nothing, and both directions are seen", "[transformer]") {
  nn::Bert model({.vocab_size = 23,
                  .hidden_size = 16,
                  .num_hidden_layers = 2,
                  .num_attention_heads = 4,
                  .intermediate_size = 24,
                  .max_position_embeddings = 16,
                  .initializer_range = 0.2});
  model.eval();
  const NoGrad no_grad;
  const Tensor ids = tokens(1, 6), longer = cat({ids, tokens(1, 4, 3)}, 1);
  const Tensor padding = reshape(arange(10) < 6.0, {1, 10});
  const auto [hidden, pooled] = model(ids);
  const auto [padded_hidden, padded_pooled] = model(longer, {.padding = padding});
  CHECK(distance(hidden, slice(padded_hidden, 1, 0, 6)) < 1e-5);
  CHECK(distance(pooled, padded_pooled) < 1e-5);
  CHECK(distance(select(hidden, 1, 0), select(model(longer).hidden, 1, 0)) > 1e-3);
  CHECK(test::message_of([&] {
          model(ids, {.token_types = zeros({4, 6}, i64)});
        }) == "[Bert] token types (4, 6) for tokens (1, 6): expected one for each");
  CHECK(test::message_of([&] {
          nn::mean_pooling(padded_hidden, ones({1, 10}));
        }) == "[mean_pooling] padding of f32: expected bool");
}

TEST_CASE("an attention layer with one weight for q, k and v equals one with three", "[transformer]") {
  nn::MultiHeadAttention apart(12, 4, {.kv_heads = 2}), fused(12, 4, {.kv_heads = 2, .names = {.qkv = "qkv"}});
  const NoGrad no_grad;
  for (const char* kind : {"weight", "bias"}) {
    const auto of = [&](const std::string& name) -> Tensor { return apart.parameter(name + "." + kind); };
    fused.parameter(std::string("qkv.") + kind).set(cat({of("q_proj"), of("k_proj"), of("v_proj")}, 0));
    fused.parameter(std::string("o_proj.") + kind).set(of("o_proj"));
  }
  const Tensor x = spread({2, 5, 12}, -1, 1, 1, f32);
  CHECK(distance(apart(x), fused(x)) < 1e-6);
  CHECK(test::message_of([&] {
          apart(spread({2, 5, 11}, -1, 1, 1, f32));
        }) == "[MultiHeadAttention] '' got (2, 5, 11): expected (batch, T, 12)");
}

TEST_CASE("rotary pairs that are neighbours are those half a head apart, of weights whose rows change places",
          "[transformer]") {
  nn::MultiHeadAttention halves(8, 2), neighbours(8, 2, {.interleaved = true});
  const NoGrad no_grad;
  neighbours.load(halves.state());
  const Tensor places = to(tensor(std::vector<std::int64_t>{0, 2, 1, 3, 4, 6, 5, 7}), default_device());
  for (const char* name : {"q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"})
    neighbours.parameter(name).set(index_select(halves.parameter(name), 0, places));
  const Tensor x = spread({2, 5, 8}, -1, 1, 1, f32);
  const RotaryTable table = rotary_table(0, 5, rotary_frequencies(4, 100), x.options());
  CHECK(distance(halves(x, {.rotary = table}), neighbours(x, {.rotary = table})) < 1e-6);
  CHECK(distance(halves(x, {.rotary = table}), halves(x)) > 1e-4);
}

TEST_CASE("a cache that grows keeps what it has", "[transformer]") {
  const NoGrad no_grad;
  const Tensor k = spread({2, 3, 150, 4}, -1, 1, 1, f32), v = spread({2, 3, 150, 4}, -1, 1, 2, f32);
  nn::KvCache cache;
  std::int64_t at = 0;
  for (const std::int64_t size : {60, 10, 1, 79}) {  // room for 64 at first
    const auto [all_k, all_v] = cache.append(0, slice(k, 2, at, at + size), slice(v, 2, at, at + size));
    at += size;
    CHECK(distance(all_k, slice(k, 2, 0, at)) == 0);
    CHECK(distance(all_v, slice(v, 2, 0, at)) == 0);
    CHECK(cache.length() == at);
  }
}

TEST_CASE("A call that fails leaves the cache as it was") {
  nn::Llama model(small_llama());
  const NoGrad no_grad;
  const Tensor ids = tokens(1, 5), whole = model(ids);
  nn::KvCache cache;
  model(slice(ids, 1, 0, 2), {.cache = &cache});
  const Tensor rest = slice(ids, 1, 2);
  const auto fails = [&](const nn::AttentionContext& context) {
    CHECK_THROWS_AS(model(rest, context), Error);
    CHECK(cache.length() == 2);
  };
  fails({.padding = ones({1, 4}, boolean), .cache = &cache});
  fails({.mask = zeros({3, 4}), .cache = &cache});
  struct Fails final : nn::SublayerSlot {
    Tensor operator()(const Tensor&, const Tensor&) override { throw Error("a later block"); }
  } later;
  auto* block = dynamic_cast<nn::TransformerBlock*>(model.layers.children()[1]);
  REQUIRE(block);
  block->mlp_slot = &later;
  fails({.cache = &cache});
  block->mlp_slot = nullptr;
  CHECK(distance(model(rest, {.cache = &cache}), slice(whole, 1, 2)) < 1e-5);
  CHECK(cache.length() == 5);
  nn::MultiHeadAttention layer(8, 2);
  nn::KvCache alone;
  CHECK_THROWS_AS(layer(zeros({1, 3, 8}), {.padding = ones({1, 4}, boolean), .cache = &alone}), Error);
  CHECK(alone.length() == 0);
}

TEST_CASE("A cache refuses keys and values that do not go with each other or with those before") {
  const NoGrad no_grad;
  nn::KvCache cache;
  const Tensor k = zeros({1, 2, 3, 4});
  const auto message = [&](const Tensor& keys, const Tensor& values) {
    return test::message_of([&] { cache.append(0, keys, values); });
  };
  for (const auto& [keys, values] : {std::pair(zeros({2, 3, 4}), zeros({2, 3, 4})), std::pair(k, zeros({1, 2, 4, 4})),
                                     std::pair(k, zeros({1, 2, 3, 4}, f64))})
    CHECK(message(keys, values).starts_with("[KvCache] k "));
  cache.append(0, k, k);
  for (const Tensor& other : {zeros({2, 2, 3, 4}), zeros({1, 1, 3, 4}), zeros({1, 2, 3, 5}), zeros({1, 2, 3, 4}, f64)})
    CHECK(message(other, other).starts_with("[KvCache] layer 0: "));
  CHECK(cache.length() == 3);
}

TEST_CASE("kept positions are made anew for another dtype and for more of them", "[transformer]") {
  nn::Positions positions;
  const std::vector<double> frequencies{1};
  const Device device = default_device();
  for (const DType dtype : {f32, f64})
    CHECK(positions.rotary(0, 3, frequencies, 2, {dtype, device}).cos.dtype() == dtype);
  const RotaryTable table = positions.rotary(70, 3, frequencies, 2, {f64, device});
  CHECK(distance(table.cos, 2.0 * cos(to(tensor({{70.0}, {71.0}, {72.0}}), device))) < 1e-12);
  CHECK(distance(table.sin, 2.0 * sin(to(tensor({{70.0}, {71.0}, {72.0}}), device))) < 1e-12);
}

TEST_CASE("Rotary angles are not stretched by a factor that is no positive number") {
  for (const double wrong : {0.0, -2.0, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_AS(nn::scaled_frequencies(8, 10, {.kind = nn::RopeScaling::Kind::linear, .factor = wrong}), Error);
}

TEST_CASE("YaRN's ramp over the pairs stays within the head", "[transformer]") {
  // Heads of 8 and base 10: pair i has the frequency 10^(-i/4), and the pair that turns t times over 100 positions is
  // 4 log10(100 / (2 pi t)).
  const auto kept = [](double fast_pair, double slow_pair, bool truncate = false) {
    const auto turns = [](double pair) { return 100 / (2 * std::numbers::pi) / std::pow(10, pair / 4); };
    const auto found = nn::scaled_frequencies(8, 10,
                                              {.kind = nn::RopeScaling::Kind::yarn,
                                               .factor = 2,
                                               .beta_fast = turns(fast_pair),
                                               .beta_slow = turns(slow_pair),
                                               .truncate = truncate,
                                               .original_max_position_embeddings = 100});
    std::vector<double> out;  // share of the frequency that is not divided by the factor
    for (std::size_t i = 0; i < found.size(); ++i)
      out.push_back(2 * found[i] / std::pow(10, -static_cast<double>(i) / 4) - 1);
    return out;
  };
  const auto near = [](const std::vector<double>& got, const std::vector<double>& wanted) {
    REQUIRE(got.size() == wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(wanted[i]).margin(1e-9));
  };
  near(kept(0, 2), {1, 0.5, 0, 0});
  near(kept(-4, 4), {1, 0.75, 0.5, 0.25});           // from pair 0 at the earliest
  near(kept(0, 8), {1, 6 / 7.0, 5 / 7.0, 4 / 7.0});  // to number 7, the head's last, at the latest
  near(kept(0.3, 1.7, true), {1, 0.5, 0, 0});
  near(kept(-0.7, -0.3, true), {1, 0, 0, 0});  // a step, where both ends are pair 0
}

TEST_CASE("squared per-sample gradients of a language model equal a loop", "[transformer]") {
  nn::Gpt2 model(small_gpt2());
  const Tensor ids = tokens(3, 6);
  const auto losses = [&](const Tensor& batch) {
    return mean(nn::next_token_loss(model(batch), batch, {.reduction = nn::Reduction::none}), {1});
  };
  std::vector<Tensor> parameters, expected;
  for (const auto* p : model.parameters()) parameters.push_back(p->value());
  const auto got = squared_gradients(losses(ids), parameters);
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto g = grad(sum(losses(slice(ids, 0, i, i + 1))), parameters);
    for (std::size_t k = 0; k < g.size(); ++k)
      if (i == 0) expected.push_back(square(g[k]));
      else expected[k] = expected[k] + square(g[k]);
  }
  for (std::size_t k = 0; k < got.size(); ++k) {
    INFO(model.parameters()[k]->path());
    CHECK(distance(got[k], expected[k]) <= 1e-4 * max(abs(expected[k])).item() + 1e-10);
  }
}

TEST_CASE("sequence loss: ignored labels, micro-batches, perplexity", "[transformer]") {
  const Tensor logits = spread({2, 4, 5}, -1, 1, 1, f32);
  const Tensor labels = tensor(std::vector<std::int64_t>{1, 2, -100, 3, 0, 4, 4, -100}, {2, 4});
  const Tensor each = nn::next_token_loss(logits, labels, {.reduction = nn::Reduction::none});
  CHECK(each.shape() == Shape({2, 3}));
  CHECK(nn::count_labels(labels) == 4);
  CHECK(std::abs(sum(each).item() / 4 - nn::next_token_loss(logits, labels).item()) < 1e-6);
  double total = 0;
  for (std::int64_t i = 0; i < 2; ++i)
    total +=
        nn::next_token_loss(slice(logits, 0, i, i + 1), slice(labels, 0, i, i + 1), {.reduction = nn::Reduction::sum})
            .item();
  CHECK(std::abs(total / 4 - nn::next_token_loss(logits, labels).item()) < 1e-6);
  CHECK(std::abs(nn::perplexity(nn::next_token_loss(zeros({2, 4, 5}), labels)) - 5) < 1e-5);
}

namespace {

/// Hidden states and attentions of a small model are kept without changing its logits. The last hidden state.
template <class Model> Tensor check_looking_inside(Model& model) {
  const Tensor ids = tokens(2, 11);
  std::vector<Tensor> hidden, attentions;
  const Tensor logits = model(ids, {.hidden_states = &hidden, .attentions = &attentions});
  CHECK(same_bits(logits, model(ids)));
  REQUIRE(hidden.size() == 3);
  REQUIRE(attentions.size() == 2);
  CHECK(distance(hidden[0], hidden[1]) > 1e-3);
  CHECK(distance(hidden[1], hidden[2]) > 1e-3);
  for (const Tensor& p : attentions) {
    CHECK(p.shape() == Shape({2, 4, 11, 11}));
    CHECK(distance(sum(p, {-1}), ones({2, 4, 11})) < 1e-5);
    CHECK(distance(select(select(p, 2, 0), 2, 0), ones({2, 4})) == 0);  // the first query sees one key
    CHECK(max(slice(select(p, 2, 4), -1, 5)).item() == 0);              // and none what comes later
  }
  return hidden[2];
}

}  // namespace

TEST_CASE("Hidden states and attentions can be looked at") {
  nn::Gpt2 gpt2(small_gpt2());
  nn::Llama llama(small_llama());
  {
    const NoGrad no_grad;
    check_looking_inside(llama);
    const Tensor last = check_looking_inside(gpt2), logits = gpt2(tokens(2, 11));
    const auto part = [&](const char* name) { return gpt2.parameter(std::string("transformer.") + name).value(); };
    CHECK(distance(linear(layer_norm(last, part("ln_f.weight"), part("ln_f.bias"), 1e-5), part("wte.weight")), logits) <
          1e-5);
  }
  std::vector<Tensor> kept;
  CHECK(test::message_of([&] { gpt2(tokens(1, 4), {.hidden_states = &kept}); }).find("NoGrad") != std::string::npos);
  CHECK(test::message_of([&] { gpt2(tokens(1, 4), {.attentions = &kept}); }).find("NoGrad") != std::string::npos);
}

TEST_CASE("Dropout that is no probability and a stack without blocks are refused when the model is made") {
  const auto message = [](auto make) { return test::message_of([&] { make(); }); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double wrong : {nan, -0.1, 1.5}) {
    INFO(wrong);
    std::ostringstream value;
    value << wrong;
    const std::string dropout = "with p " + value.str() + ": expected 0 to 1";
    const std::string attention = ": dropout " + value.str() + ", expected at least 0 and below 1";
    nn::Gpt2Config gpt2 = small_gpt2();
    gpt2.embd_pdrop = wrong;
    CHECK(message([&] { nn::Gpt2 model(gpt2); }) == "[Dropout] 'transformer.drop' " + dropout);
    gpt2 = small_gpt2();
    gpt2.resid_pdrop = wrong;
    CHECK(message([&] { nn::Gpt2 model(gpt2); }) == "[Dropout] 'transformer.h.0.dropout1' " + dropout);
    gpt2 = small_gpt2();
    gpt2.attn_pdrop = wrong;
    CHECK(message([&] { nn::Gpt2 model(gpt2); }) == "[MultiHeadAttention] 'transformer.h.0.attn'" + attention);
    nn::BertConfig bert{
        .vocab_size = 11, .hidden_size = 8, .num_hidden_layers = 1, .num_attention_heads = 2, .intermediate_size = 8};
    CHECK(message([&] { nn::BertClassifier model(bert, {.classifier_dropout = wrong}); }) ==
          "[Dropout] 'dropout' " + dropout);
    bert.hidden_dropout_prob = wrong;
    CHECK(message([&] { nn::Bert model(bert); }) == "[Dropout] 'embeddings.dropout' " + dropout);
    nn::LlamaConfig llama = small_llama();
    llama.attention_dropout = wrong;
    CHECK(message([&] { nn::Llama model(llama); }) == "[MultiHeadAttention] 'model.layers.0.self_attn'" + attention);
  }
  CHECK(message([] {
          nn::BertClassifier model({.vocab_size = 11, .hidden_size = 8, .num_attention_heads = 2}, {.num_labels = 0});
        }) == "[BertClassifier] num_labels 0: expected at least 1");
  CHECK(message([] { nn::MultiHeadAttention(8, 2, {.dropout = 1}); }) ==
        "[MultiHeadAttention] '': dropout 1, expected at least 0 and below 1");
  for (const std::int64_t count : {-1, 0}) {
    nn::Gpt2Config config = small_gpt2();
    config.n_layer = count;
    CHECK(message([&] { nn::Gpt2 model(config); }) ==
          "[TransformerStack] 'transformer.h': " + std::to_string(count) + " blocks, expected at least 1");
  }
}
