// LoRA and DoRA of embeddings: by their definitions, tied to an output and not, and what else has to know of them.
#include <cmath>

#include <stet/autograd/engine.h>
#include <stet/autograd/squared.h>
#include <stet/continual/feature_cache.h>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

namespace {

Tensor indices() { return to(tensor(std::vector<std::int64_t>{3, 0, 3, 6, 1, 5}, {2, 3}), default_device()); }

/// An embedding of 7 vectors of 4 under an adapter of rank 2 and alpha 3.
struct Case {
  nn::Embedding layer{7, 4};
  Adapters adapters{layer};
  explicit Case(LoraOptions options = {}) {
    options.embeddings = {""};
    options.rank = 2;
    options.alpha = 3;
    adapters.attach("a", options);
    shake(adapters.parameters("a"));
  }
  Tensor part(const char* name) const { return layer.parameter(std::string("a.") + name); }
  Tensor low_rank(double scale) const {
    return matmul(part("lora_embedding_A"), transpose(part("lora_embedding_B"))) * scale;
  }
  Tensor plain() const { return layer.weight.value(); }
};

double distance(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item(); }

}  // namespace

TEST_CASE("LoRA of an embedding adds s A B^T to its rows; DoRA scales the columns", "[adapters]") {
  const NoGrad no_grad;
  const Case lora, rslora({.rslora = true}), dora({.dora = true});
  CHECK(distance(lora.layer(indices()), embedding(lora.plain() + lora.low_rank(1.5), indices())) < 1e-6);
  CHECK(distance(rslora.layer(indices()), embedding(rslora.plain() + rslora.low_rank(3 / std::sqrt(2.0)), indices())) <
        1e-6);
  const Tensor sum_of_both = dora.plain() + dora.low_rank(1.5);
  const Tensor norms = sqrt(sum(square(sum_of_both), {0}));
  CHECK(distance(dora.layer(indices()),
                 embedding(sum_of_both * (dora.part("lora_magnitude_vector") / norms), indices())) < 1e-6);
}

TEST_CASE("gradients of an embedding's LoRA are those of the sum of both tables", "[adapters]") {
  const Case c;
  const Tensor weights = test::spread({2, 3, 4}, -1, 1, 9, f32);
  const Tensor a = c.part("lora_embedding_A"), b = c.part("lora_embedding_B");
  const auto got = grad(sum(c.layer(indices()) * weights), {a, b});
  const auto expected = grad(sum(embedding(c.plain() + c.low_rank(1.5), indices()) * weights), {a, b});
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(distance(got[i], expected[i]) < 1e-6);
    CHECK(max(abs(got[i])).item() > 0.1);
  }
}

TEST_CASE("squared per-sample gradients of an embedding's LoRA equal a loop", "[adapters]") {
  const Case c({.dora = true});
  const std::vector<Tensor> parameters{c.part("lora_embedding_A"), c.part("lora_embedding_B"),
                                       c.part("lora_magnitude_vector")};
  const auto losses = [&](const Tensor& index) { return sum(square(c.layer(index)), {1, 2}); };
  const auto got = squared_gradients(losses(indices()), parameters);
  std::vector<Tensor> expected(parameters.size());
  for (std::int64_t i = 0; i < 2; ++i) {
    const auto g = grad(sum(losses(slice(indices(), 0, i, i + 1))), parameters);
    for (std::size_t k = 0; k < g.size(); ++k)
      expected[k] = expected[k].defined() ? expected[k] + square(g[k]) : square(g[k]);
  }
  for (std::size_t k = 0; k < got.size(); ++k)
    CHECK(distance(got[k], expected[k]) <= 1e-4 * max(abs(expected[k])).item());
}

TEST_CASE("merging an embedding's LoRA leaves the base as it is, and a write while merged is an error", "[adapters]") {
  const NoGrad no_grad;
  Case c({.dora = true});
  const Tensor base = c.plain().clone(), before = c.layer(indices());
  c.adapters.merge();
  CHECK(distance(c.layer(indices()), before) < 1e-6);
  CHECK(same_bits(c.plain(), base));
  c.adapters.unmerge();
  CHECK(same_bits(c.layer(indices()), before));
  CHECK(distance(embedding(c.adapters.merged_state().at("weight"), indices()), before) < 1e-6);
  c.adapters.merge();
  c.layer.parameter("a.lora_embedding_B").set(zeros({4, 2}));
  CHECK_THAT(message_of([&] { c.layer(indices()); }), Contains("was written while merged"));
  c.adapters.unmerge();
  c.adapters.deactivate();
  CHECK(same_bits(c.layer(indices()), embedding(base, indices())));
}

TEST_CASE("of tied embeddings LoRA adapts the input alone", "[adapters]") {
  LlamaCase tied(true);
  const Tensor table = tied.model.parameter("model.embed_tokens.weight").value().clone();
  Adapters adapters(tied.model);
  adapters.attach("a", LoraOptions{.embeddings = {"*embed_tokens"}, .rank = 2});
  shake(adapters.parameters("a"));
  const Tensor adapted = tied();
  CHECK_THAT(message_of([&] { adapters.merged_state(); }), Contains("unties 'model.embed_tokens' and 'lm_head'"));
  adapters.merge();
  CHECK(distance(tied(), adapted) < 1e-4);
  adapters.unmerge();
  adapters.detach("a");
  // The same with two tables: the output's is the original.
  LlamaCase apart;
  nn::State state = tied.model.state();
  state["lm_head.weight"] = table;
  apart.model.load(state);
  Adapters others(apart.model);
  others.attach("a", LoraOptions{.embeddings = {"*embed_tokens"}, .rank = 2});
  shake(others.parameters("a"));
  CHECK(same_bits(apart(), adapted));
  CHECK(others.merged_state().size() == state.size());
}

TEST_CASE("an embedding that is no target, or has another adapter, is refused by name", "[adapters][misuse]") {
  LlamaCase llama;
  Adapters adapters(llama.model), others(llama.model);
  CHECK(message_of([&] { adapters.attach("a", LoraOptions{.embeddings = {"*wte"}}); }) ==
        "[attach] no embedding matches '*wte'; known: model.embed_tokens");
  CHECK(adapters.attach("a", LoraOptions{.targets = {"*"}}) == 15);  // "*" means linear layers, as it did
  adapters.detach("a");
  CHECK(adapters.attach("a", LoraOptions{.embeddings = {"*"}, .modules_to_save = {"*embed_tokens"}}) == 1);
  adapters.detach("a");
  adapters.attach("a", LoraOptions{.embeddings = {"*"}});
  CHECK_THAT(message_of([&] { others.attach("b", LoraOptions{.embeddings = {"*"}}); }),
             Contains("the slot of 'model.embed_tokens' is taken"));
  CHECK(others.names().empty());
  adapters.detach("a");
  CHECK_THAT(message_of([&] { adapters.attach("a", LoraOptions{.embeddings = {"*"}, .rank = 0}); }),
             Contains("rank 0, expected at least 1"));
}

TEST_CASE("cached features notice an embedding's adapter", "[adapters]") {
  LlamaCase llama;
  nn::Module& body = *llama.model.children()[0];
  Adapters adapters(llama.model);
  adapters.attach("a", LoraOptions{.embeddings = {"*"}, .rank = 2});
  shake(adapters.parameters("a"));
  llama.model.freeze();
  llama.model.eval();
  FeatureCache cache({&body}, [&](const Tensor& x) { return llama.model(x); });
  const auto features = [&] {
    return cache({0, 1}, [&](const FeatureCache::Indices& missing) {
      std::vector<Tensor> rows;
      for (const std::int64_t i : missing) rows.push_back(slice(llama.tokens, 0, i, i + 1));
      return cat(rows, 0);
    });
  };
  const Tensor adapted = features();
  CHECK(cache.computed() == 2);
  adapters.deactivate();
  CHECK_FALSE(same_bits(features(), adapted));
  adapters.activate("a");
  adapters.merge();
  CHECK(distance(features(), adapted) < 1e-4);
  CHECK(cache.computed() == 6);
}
