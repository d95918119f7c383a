// GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks with tanh-GELU, an output that shares the embedding.
#pragma once

#include <stet/nn/transformer.h>

namespace stet::nn {

/// Fields of Hugging Face's GPT2Config.
struct Gpt2Config {
  std::int64_t vocab_size = 50257, n_positions = 1024, n_embd = 768, n_layer = 12, n_head = 12;
  std::int64_t n_inner = 0;                          ///< 0: 4 n_embd
  MlpKind activation_function = MlpKind::gelu_tanh;  ///< "gelu_new"
  double resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1, layer_norm_epsilon = 1e-5, initializer_range = 0.02;
};

/// GPT2LMHeadModel. Parameters carry its names; lm_head.weight is transformer.wte.weight and has no name of its own.
class Gpt2 : public Module {
 public:
  explicit Gpt2(Gpt2Config config);

  /// tokens (batch, T) i64 -> logits (batch, T, vocab_size). With a cache, the tokens follow those in it.
  Tensor operator()(const Tensor& tokens, AttentionContext context = {});
  const Gpt2Config& config() const { return config_; }
  /// A state of transformers' model under stet's conventions, and back: its c_attn, c_proj and c_fc weights stand
  /// there as (in, out). Those become views of the given tensors.
  static State transposed(State state);

 private:
  Gpt2Config config_;
  Module transformer_{this, "transformer"};
  Embedding wte_, wpe_;
  std::optional<Dropout> drop_;

 public:
  TransformerStack h;

 private:
  LayerNorm ln_f_;
  TiedLinear lm_head_;
  Positions positions_;
};

}  // namespace stet::nn
