// Recomputed blocks: the same gradients to the bit, and an Error where backward would compute another function.
#include <memory>

#include <stet/autograd/engine.h>
#include <stet/continual/adapters/adapters.h>
#include <stet/nn/checkpoint.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/sequence.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/models.h"
#include "support/samples.h"

using namespace stet;
using test::same_bits;
using test::small_gpt2;
using test::spread;

namespace {

Tensor tokens(std::int64_t batch, std::int64_t length) {
  Generator generator(1);
  return randint({batch, length}, 0, 23, generator);
}

std::vector<Tensor> gradients(const nn::Module& model) {
  std::vector<Tensor> all;
  for (const auto* p : model.trainable_parameters()) all.push_back(p->grad());
  return all;
}

}  // namespace

TEST_CASE("Recomputation gives the same gradients to the bit, with dropout") {
  const Tensor ids = tokens(2, 9);
  std::vector<Tensor> first;
  for (const bool recompute : {false, true}) {
    nn::Gpt2 model(small_gpt2(0.2));
    model.h.recompute = recompute;
    for (int step = 0; step < 3; ++step) nn::next_token_loss(model(ids), ids).backward();
    std::vector<Tensor> now;
    for (const auto* p : model.parameters()) now.push_back(p->grad());
    for (const auto* b : model.buffers()) now.push_back(b->value());
    if (first.empty()) first = now;
    REQUIRE(first.size() == now.size());
    for (std::size_t i = 0; i < now.size(); ++i) CHECK(same_bits(first[i], now[i]));
  }
}

TEST_CASE("Recomputation: inputs without gradients, frozen blocks, second derivatives") {
  nn::Linear layer(4, 4);
  const auto run = [&](const Tensor& x) { return tanh(layer(x)); };
  const Tensor x = spread({3, 4}, -1, 1, 1, f32);
  sum(square(nn::checkpoint(layer, run, x))).backward();
  const Tensor kept = layer.weight.grad();
  layer.zero_grad();
  sum(square(run(x))).backward();
  CHECK(same_bits(kept, layer.weight.grad()));
  layer.freeze();
  CHECK_FALSE(nn::checkpoint(layer, run, x).requires_grad());
  const Tensor leaf = x.clone().set_requires_grad();
  CHECK(same_bits(grad(sum(nn::checkpoint(layer, run, leaf)), {leaf})[0], grad(sum(run(leaf)), {leaf})[0]));
  const std::string message =
      test::message_of([&] { grad(sum(nn::checkpoint(layer, run, leaf)), {leaf}, {.create_graph = true}); });
  CHECK(message.find("[checkpoint]") == 0);
}

TEST_CASE("Recomputation leaves the default generator where it was") {
  nn::Linear layer(4, 4);
  const auto run = [&](const Tensor& x) { return layer(x) * bernoulli({3, 4}, 0.5); };
  const Tensor loss = sum(nn::checkpoint(layer, run, spread({3, 4}, -1, 1, 1, f32)));
  bernoulli({3, 4}, 0.5);
  const GeneratorState before = default_generator().state();
  loss.backward();
  CHECK(default_generator().state().draw == before.draw);
}

TEST_CASE("Recomputation repeats the mode of the forward pass, whatever it is in backward") {
  const Tensor ids = tokens(2, 9);
  std::vector<Tensor> first;
  for (const bool recompute : {false, true}) {
    nn::Gpt2 model(small_gpt2(0.2));
    model.h.recompute = recompute;
    model.h.children()[1]->eval();  // a mode of its own
    const Tensor loss = nn::next_token_loss(model(ids), ids);
    model.eval();
    loss.backward();
    for (const nn::Module* block : model.h.children()) CHECK_FALSE(block->is_training());
    if (first.empty()) first = gradients(model);
    const auto now = gradients(model);
    REQUIRE(first.size() == now.size());
    for (std::size_t i = 0; i < now.size(); ++i) CHECK(same_bits(first[i], now[i]));
  }
}

TEST_CASE("Recomputation refuses parameters that were written since the forward pass, frozen ones too") {
  nn::Gpt2 model(small_gpt2());
  model.h.recompute = true;
  model.freeze("*.c_fc.weight");
  const Tensor ids = tokens(2, 9);
  for (const char* name : {"transformer.h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_proj.weight"}) {
    const Tensor loss = nn::next_token_loss(model(ids), ids);
    nn::Parameter& written = model.parameter(name);
    written.set(written.value().detach() * 2);
    CHECK(test::message_of([&] { loss.backward(); }).find("was modified in place") != std::string::npos);
  }
}

TEST_CASE("Recomputation refuses other adapters than in the forward pass") {
  nn::Gpt2 model(small_gpt2());
  model.h.recompute = true;
  continual::Adapters adapters(model);
  adapters.attach("one", continual::LoraOptions{.targets = {"*c_attn"}});
  adapters.attach("two", continual::LoraOptions{.targets = {"*c_attn"}});
  adapters.freeze_base();
  const Tensor ids = tokens(2, 9);
  const auto switched = [&](const auto& change) {
    const Tensor loss = nn::next_token_loss(model(ids), ids);
    change();
    return test::message_of([&] { loss.backward(); });
  };
  const std::string expected = "' has other parts than in the forward pass";
  CHECK(switched([&] { adapters.activate("one"); }).find(expected) != std::string::npos);
  CHECK(switched([&] { adapters.merge(); }).find(expected) != std::string::npos);
  adapters.unmerge();
  CHECK(switched([&] { adapters.deactivate(); }).find(expected) != std::string::npos);
  adapters.activate("two");
  CHECK(switched([&] {
          adapters.activate("one");
          adapters.activate("two");
        }) == "no error");
  adapters.detach("two");
  adapters.attach("norms", continual::LoraOptions{.modules_to_save = {"*ln_1"}});  // in no slot
  CHECK(switched([&] { adapters.deactivate(); }).find(expected) != std::string::npos);
}

TEST_CASE("Recomputation refuses a block that has ended") {
  auto layer = std::make_unique<nn::Linear>(4, 4);
  const auto run = [at = layer.get()](const Tensor& x) { return tanh((*at)(x)); };
  const Tensor x = spread({3, 4}, -1, 1, 1, f32).set_requires_grad();
  const Tensor loss = sum(nn::checkpoint(*layer, run, x));
  layer.reset();
  CHECK(test::message_of([&] { loss.backward(); }) ==
        "[checkpoint] the block ended before backward, which computes it again");
}

TEST_CASE("A recomputed model asked for a gradient refuses a cache and attentions as another does") {
  nn::Gpt2 model(small_gpt2());
  model.h.recompute = true;
  const Tensor ids = tokens(1, 6);
  nn::KvCache cache;
  CHECK(test::message_of([&] { model(ids, {.cache = &cache}); }).find("NoGrad") != std::string::npos);
  CHECK(cache.length() == 0);
  std::vector<Tensor> attentions;
  CHECK(test::message_of([&] { model(ids, {.attentions = &attentions}); }).find("NoGrad") != std::string::npos);
  model.freeze();
  const Tensor cached = model(ids, {.cache = &cache});
  CHECK(cache.length() == 6);
  CHECK(same_bits(cached, model(ids)));
}
