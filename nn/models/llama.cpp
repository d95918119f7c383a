// Llama from the common parts.
#include <stet/nn/models/llama.h>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

TransformerOptions block(const LlamaConfig& c) {
  return {.width = c.hidden_size,
          .heads = c.num_attention_heads,
          .hidden = c.intermediate_size,
          .norm = NormKind::rms,
          .eps = c.rms_norm_eps,
          .mlp = MlpKind::swiglu,
          .mlp_bias = c.mlp_bias,
          .attention = {.kv_heads = c.num_key_value_heads,
                        .head_width = c.head_dim,
                        .causal = true,
                        .qkv_bias = c.attention_bias,
                        .out_bias = c.output_bias.value_or(c.attention_bias),
                        .dropout = c.attention_dropout}};
}

}  // namespace

Llama::Llama(LlamaConfig config)
    : config_(config),
      embed_tokens_(&model_, "embed_tokens", config.vocab_size, config.hidden_size),
      layers(&model_, "layers", config.num_hidden_layers, block(config)),
      norm_(&model_, "norm", config.hidden_size, {.eps = config.rms_norm_eps}) {
  if (!config.tie_word_embeddings)
    lm_head_.emplace(this, "lm_head", config.hidden_size, config.vocab_size, LinearOptions{.bias = false});
  initialize_transformer(*this, config.initializer_range);
}

Tensor Llama::operator()(const Tensor& tokens, AttentionContext context) {
  check(tokens.rank() == 2, "Llama", "tokens ", tokens.shape(), ": expected (batch, T)");
  const std::int64_t past = context.cache ? context.cache->length() : 0, length = tokens.shape()[1];
  check(past + length <= config_.max_position_embeddings, "Llama", past + length,
        " tokens: max_position_embeddings is ", config_.max_position_embeddings);
  const std::int64_t width = config_.head_dim ? config_.head_dim : config_.hidden_size / config_.num_attention_heads;
  const Tensor x = embed_tokens_(tokens);
  context.rotary = positions_.rotary(past, length, width, config_.rope_theta, x.options());
  const Tensor y = norm_(layers(x, context));
  return lm_head_ ? (*lm_head_)(y) : linear(y, embed_tokens_.weight);
}

}  // namespace stet::nn
