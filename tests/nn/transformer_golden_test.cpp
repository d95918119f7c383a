// Tiny models of each family against transformers: logits, loss and every gradient, from the library's own state
// dicts. The file is written by tests/golden/make_transformer_goldens.py.
#include <iostream>

#include <stet/nn/models/bert.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>
#include <stet/nn/sequence.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/goldens.h"

using namespace stet;
using test::GoldenCase;

namespace {

double worst_out = 0, worst_grad = 0;

nn::State part(const GoldenCase& c, const std::string& prefix) {
  nn::State state;
  for (const auto& [name, value] : c.tensors)
    if (name.compare(0, prefix.size(), prefix) == 0) state[name.substr(prefix.size())] = value;
  return state;
}

void check_gradients(nn::Module& model, const nn::State& expected) {
  for (nn::Parameter* p : model.parameters()) {
    INFO(p->path());
    REQUIRE(expected.contains(p->path()));
    REQUIRE(p->grad().defined());
    const double error = test::golden_error(p->grad(), expected.at(p->path()));
    // A bias of keys shifts all scores of a row: its gradient is zero but for rounding.
    const double largest = max(abs(expected.at(p->path()))).item();
    if (largest < 1e-7) CHECK(max(abs(p->grad())).item() < 1e-6);
    else CHECK(error <= 1e-4);
    if (largest >= 1e-7) worst_grad = std::max(worst_grad, error);
  }
}

void check_output(const Tensor& logits, const Tensor& loss, const GoldenCase& c) {
  const double error = test::golden_error(logits.detach(), c.at("out"));
  CHECK(error <= 1e-5);
  worst_out = std::max(worst_out, error);
  CHECK(std::fabs(loss.item() - c.at("loss").item()) <= 1e-5 * c.at("loss").item());
}

void check_gpt2(const GoldenCase& c) {
  nn::Gpt2 model({.vocab_size = 19,
                  .n_positions = 9,
                  .n_embd = 8,
                  .n_layer = 2,
                  .n_head = 2,
                  .n_inner = static_cast<std::int64_t>(c.option(1)),
                  .activation_function = c.option(0) == 0 ? nn::MlpKind::gelu_tanh : nn::MlpKind::relu,
                  .resid_pdrop = 0,
                  .embd_pdrop = 0,
                  .attn_pdrop = 0});
  model.load(nn::Gpt2::transposed(part(c, "state.")));
  model.eval();
  const Tensor logits = model(c.at("in.tokens")), loss = nn::next_token_loss(logits, c.at("in.labels"));
  check_output(logits, loss, c);
  loss.backward();
  check_gradients(model, nn::Gpt2::transposed(part(c, "grad.")));
}

void check_llama(const GoldenCase& c) {
  const auto number = [&](std::size_t i) { return static_cast<std::int64_t>(c.option(i)); };
  const bool qwen = c.operation == "qwen2";
  nn::LlamaConfig config{.vocab_size = 19,
                         .hidden_size = 8,
                         .intermediate_size = 12,
                         .num_hidden_layers = 2,
                         .num_attention_heads = 4,
                         .num_key_value_heads = number(0),
                         .head_dim = number(1),
                         .max_position_embeddings = 16,
                         .rms_norm_eps = qwen ? 1e-6 : 1e-5,
                         .rope_theta = c.option(5),
                         .attention_bias = number(2) == 1,
                         .mlp_bias = number(3) == 1,
                         .tie_word_embeddings = number(4) == 1};
  if (qwen) config.output_bias = false;
  nn::Llama model(config);
  model.load(part(c, "state."));
  const Tensor logits = model(c.at("in.tokens")), loss = nn::next_token_loss(logits, c.at("in.labels"));
  check_output(logits, loss, c);
  loss.backward();
  check_gradients(model, part(c, "grad."));
}

void check_bert(const GoldenCase& c) {
  nn::BertClassifier model({.vocab_size = 19,
                            .hidden_size = 8,
                            .num_hidden_layers = 2,
                            .num_attention_heads = 2,
                            .intermediate_size = 12,
                            .max_position_embeddings = 9,
                            .hidden_dropout_prob = 0,
                            .attention_probs_dropout_prob = 0},
                           {.num_labels = 3});
  model.load(part(c, "state."));
  const Tensor logits = model(c.at("in.tokens"), {.token_types = c.at("in.types"), .padding = c.at("in.padding")});
  const Tensor loss = nn::cross_entropy(logits, c.at("in.labels"));
  check_output(logits, loss, c);
  loss.backward();
  check_gradients(model, part(c, "grad."));
}

}  // namespace

TEST_CASE("tiny models agree with transformers", "[golden]") {
  int cases = 0;
  for (const GoldenCase& c : test::golden_cases("transformers.safetensors")) {
    INFO(c.name);
    if (c.operation == "gpt2") check_gpt2(c);
    else if (c.operation == "bert") check_bert(c);
    else check_llama(c);
    ++cases;
  }
  CHECK(cases == 7);
  std::cout << "transformers: " << cases << " models, worst relative error of logits " << worst_out << ", of gradients "
            << worst_grad << '\n';
}
