// Cases 9 and 11 to 13: training steps of GPT-2, greedy decoding, attention.
#include "case.h"

using namespace stet;

namespace bench {
namespace {

std::int64_t number(const nn::State& file, const char* name) { return static_cast<std::int64_t>(file.at(name).item()); }

nn::State weights(const nn::State& file, const std::string& prefix) {
  nn::State out;
  for (const auto& [name, value] : file)
    if (name.starts_with(prefix)) out[name.substr(name.find('/') + 1)] = value;
  return out;
}

/// Cases 9 and 11: zero, forward, loss, backward, AdamW.
Case training(const nn::State& file) {
  auto model = std::make_shared<nn::Gpt2>(nn::Gpt2Config{.vocab_size = number(file, "vocab"),
                                                         .n_positions = number(file, "positions"),
                                                         .n_embd = number(file, "width"),
                                                         .n_layer = number(file, "blocks"),
                                                         .n_head = number(file, "heads"),
                                                         .resid_pdrop = 0,
                                                         .embd_pdrop = 0,
                                                         .attn_pdrop = 0});
  model->load(weights(file, "model/"));
  auto optimizer =
      std::make_shared<optim::AdamW>(model->parameters(), optim::AdamWOptions{.lr = 1e-4, .weight_decay = 0});
  const Tensor batches = file.at("tokens");
  return {[=](std::int64_t i) {
    const Tensor tokens = select(batches, 0, i % batches.shape()[0]);
    optimizer->zero_grad();
    const Tensor loss = nn::next_token_loss((*model)(tokens), tokens);
    loss.backward();
    optimizer->step();
    return loss.item();
  }};
}

/// Case 12: `length` greedy tokens after the first; each number is the token at that place.
Case decoding(const nn::State& file) {
  auto model = std::make_shared<nn::Llama>(nn::LlamaConfig{.vocab_size = number(file, "vocab"),
                                                           .hidden_size = number(file, "width"),
                                                           .intermediate_size = number(file, "hidden"),
                                                           .num_hidden_layers = number(file, "blocks"),
                                                           .num_attention_heads = number(file, "heads"),
                                                           .num_key_value_heads = number(file, "kv_heads"),
                                                           .max_position_embeddings = number(file, "positions"),
                                                           .rms_norm_eps = 1e-5,
                                                           .tie_word_embeddings = true});
  model->load(weights(file, "model/"));
  const std::int64_t length = number(file, "length");
  const auto generate = [=] {
    const std::vector<std::int64_t> prompt{1};
    return nn::generate(*model, prompt, {.max_new_tokens = length});
  };
  return {[=](std::int64_t) { return static_cast<double>(generate().back()); },
          [=](std::int64_t i) { return static_cast<double>(generate().at(static_cast<std::size_t>(i))); }};
}

/// Case 13: forward and backward of one attention.
Case attention_case(const nn::State& file, bool causal) {
  const Tensor q = file.at("q").set_requires_grad(), k = file.at("k").set_requires_grad(),
               v = file.at("v").set_requires_grad(), g = file.at("g");
  const auto work = [=] {
    for (Tensor x : {q, k, v}) x.set_grad(Tensor());
    sum(attention(q, k, v, {.causal = causal}) * g).backward();
  };
  return {[=](std::int64_t) {
            work();
            return 0.0;
          },
          [=](std::int64_t i) {
            work();
            return sum(abs(std::vector{q, k, v}[static_cast<std::size_t>(i % 3)].grad())).item();
          }};
}

}  // namespace

Case transformer_case(const std::string& name, const nn::State& file) {
  if (name == "9" || name == "11") return training(file);
  if (name.starts_with("12")) return decoding(file);
  if (name.starts_with("13")) return attention_case(file, name == "13b");
  fail("cases", "no case '", name, "'");
}

}  // namespace bench
