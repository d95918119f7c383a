// Language models small enough for any test.
#pragma once

#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>

namespace stet::test {

inline nn::Gpt2Config small_gpt2(double dropout = 0) {
  return {.vocab_size = 23,
          .n_positions = 40,
          .n_embd = 16,
          .n_layer = 2,
          .n_head = 4,
          .resid_pdrop = dropout,
          .embd_pdrop = dropout,
          .attn_pdrop = dropout,
          .initializer_range = 0.2};
}

inline nn::LlamaConfig small_llama() {
  return {.vocab_size = 23,
          .hidden_size = 16,
          .intermediate_size = 24,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .max_position_embeddings = 40,
          .initializer_range = 0.2};
}

}  // namespace stet::test
