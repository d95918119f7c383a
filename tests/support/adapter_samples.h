// A tiny Llama and a tiny GPT-2 to adapt, and adapters for them.
#pragma once

#include <stet/continual/adapters/adapters.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>

#include "support/samples.h"

namespace stet::test {

/// Values of a trained adapter's kind instead of those at the start.
inline void shake(const std::vector<nn::Parameter*>& parameters) {
  int seed = 40;
  for (nn::Parameter* p : parameters)
    p->set(p->value().detach() + spread(p->shape(), -0.4, 0.4, ++seed, p->value().options()));
}

/// A model and two rows of seven tokens for it.
template <class Model> struct TinyCase {
  Model model;
  Tensor tokens;
  template <class Config> explicit TinyCase(const Config& config) : model(config) {
    Generator generator(4);
    tokens = randint({2, 7}, 0, config.vocab_size, generator);
  }
  Tensor operator()() {
    const NoGrad no_grad;
    const nn::EvalScope evaluation(model);
    return model(tokens);
  }
};

struct LlamaCase : TinyCase<nn::Llama> {
  explicit LlamaCase(bool tied = false)
      : TinyCase(nn::LlamaConfig{.vocab_size = 19,
                                 .hidden_size = 8,
                                 .intermediate_size = 12,
                                 .num_hidden_layers = 2,
                                 .num_attention_heads = 4,
                                 .num_key_value_heads = 2,
                                 .max_position_embeddings = 16,
                                 .rms_norm_eps = 1e-5,
                                 .rope_theta = 10000,
                                 .tie_word_embeddings = tied}) {}
};

struct Gpt2Case : TinyCase<nn::Gpt2> {
  Gpt2Case()
      : TinyCase(nn::Gpt2Config{.vocab_size = 19,
                                .n_positions = 9,
                                .n_embd = 8,
                                .n_layer = 2,
                                .n_head = 2,
                                .resid_pdrop = 0,
                                .embd_pdrop = 0,
                                .attn_pdrop = 0}) {}
};

inline const continual::LoraOptions kLora{.targets = {"*q_proj", "*v_proj", "*down_proj"}, .rank = 2, .alpha = 3};
inline continual::LoraOptions dora() {
  continual::LoraOptions options = kLora;
  options.dora = true;
  return options;
}

}  // namespace stet::test
