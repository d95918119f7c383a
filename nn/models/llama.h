// Llama (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, grouped queries. The same architecture carries
// Mistral, Qwen2 (biases on q, k, v) and SmolLM2.
#pragma once

#include <stet/nn/transformer.h>

namespace stet::nn {

/// How the rotary angles were stretched for texts longer than those of pretraining: Hugging Face's rope_type. `linear`
/// divides every frequency by `factor`; `llama3` those of pairs that turn less than low_freq_factor times over the
/// original positions, leaves those that turn more than high_freq_factor times, and goes over from one to the other
/// in between. `yarn` (Peng et al. 2023, section 3.2) goes over between the pairs that turn beta_fast and beta_slow
/// times, found as whole numbers unless `truncate` is off, evenly by the pair's number; cosines and sines are
/// multiplied by attention_factor, 0.1 ln(factor) + 1 where none is given. `dynamic` changes nothing within
/// max_position_embeddings, which is as far as a Llama goes here.
struct RopeScaling {
  enum class Kind { none, linear, llama3, yarn, dynamic } kind = Kind::none;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;
  std::optional<double> attention_factor = {};
  std::int64_t original_max_position_embeddings = 8192;
  bool operator==(const RopeScaling&) const = default;
};
/// The frequencies of rotary_frequencies(width, base), scaled.
std::vector<double> scaled_frequencies(std::int64_t width, double base, const RopeScaling& scaling);
/// What cosines and sines are multiplied by: 1 except for `yarn`.
double rotary_magnitude(const RopeScaling& scaling);

/// Fields of Hugging Face's LlamaConfig.
struct LlamaConfig {
  std::int64_t vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008, num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32, num_key_value_heads = 0;  ///< 0: as many as heads
  std::int64_t head_dim = 0;                                       ///< 0: hidden_size / num_attention_heads
  std::int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6, rope_theta = 10000, attention_dropout = 0, initializer_range = 0.02;
  bool attention_bias = false, mlp_bias = false, tie_word_embeddings = false;
  std::optional<bool> output_bias = {};  ///< of o_proj where it differs from attention_bias, as in Qwen2
  std::int64_t sliding_window = 0;       ///< keys that a token sees, itself included, as in Mistral; 0: all before it
  std::int64_t max_window_layers = 0;    ///< the first blocks, which have no window, as in Qwen2
  RopeScaling rope_scaling = {};
};
/// Width of one head: head_dim, or the heads' even share of hidden_size.
std::int64_t head_width(const LlamaConfig& config);

/// LlamaForCausalLM. Parameters carry its names; with tie_word_embeddings lm_head.weight is model.embed_tokens.weight
/// and has no name of its own.
class Llama : public Module {
 public:
  explicit Llama(LlamaConfig config);

  /// tokens (batch, T) i64 -> logits (batch, T, vocab_size). With a cache, the tokens follow those in it.
  Tensor operator()(const Tensor& tokens, AttentionContext context = {});
  const LlamaConfig& config() const { return config_; }

 private:
  LlamaConfig config_;
  Module model_{this, "model"};
  Embedding embed_tokens_;

 public:
  TransformerStack layers;

 private:
  RMSNorm norm_;
  std::optional<Linear> lm_head_;
  std::optional<TiedLinear> tied_head_;
  std::vector<double> frequencies_;
  double magnitude_;  // of the angles' cosines and sines
  Positions positions_;
};

}  // namespace stet::nn
