// Llama from the common parts.
#include <stet/nn/models/llama.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

TransformerOptions block(const LlamaConfig& c, std::int64_t layer) {
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
                        .window = layer < c.max_window_layers ? 0 : c.sliding_window,
                        .qkv_bias = c.attention_bias,
                        .out_bias = c.output_bias.value_or(c.attention_bias),
                        .dropout = c.attention_dropout}};
}

}  // namespace

std::int64_t head_width(const LlamaConfig& c) {
  check(c.head_dim || c.num_attention_heads >= 1, "Llama", c.num_attention_heads, " heads: expected at least 1");
  return c.head_dim ? c.head_dim : c.hidden_size / c.num_attention_heads;
}

namespace {

/// How much of each pair's frequency stays as it was under llama3 and yarn.
double kept_of_llama3(double frequency, const RopeScaling& s) {
  const double turns = static_cast<double>(s.original_max_position_embeddings) * frequency / (2 * std::numbers::pi);
  return std::clamp((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
}
double kept_of_yarn(std::size_t pair, double width, double base, const RopeScaling& s) {
  const auto pair_turning = [&](double times) {
    const auto positions = static_cast<double>(s.original_max_position_embeddings);
    return width * std::log(positions / (times * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double first = pair_turning(s.beta_fast), last = pair_turning(s.beta_slow);
  if (s.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, width - 1);
  if (first == last) last += 0.001;
  return 1 - std::clamp((static_cast<double>(pair) - first) / (last - first), 0.0, 1.0);
}

}  // namespace

std::vector<double> scaled_frequencies(std::int64_t width, double base, const RopeScaling& s) {
  std::vector<double> out = rotary_frequencies(width, base);
  if (s.kind == RopeScaling::Kind::none || s.kind == RopeScaling::Kind::dynamic) return out;
  check(std::isfinite(s.factor) && s.factor > 0, "Llama", "rope_scaling with factor ", s.factor,
        ", expected a positive number");
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double kept = s.kind == RopeScaling::Kind::llama3 ? kept_of_llama3(out[i], s)
                        : s.kind == RopeScaling::Kind::yarn ? kept_of_yarn(i, static_cast<double>(width), base, s)
                                                            : 0.0;
    out[i] *= kept + (1 - kept) / s.factor;
  }
  return out;
}

double rotary_magnitude(const RopeScaling& s) {
  if (s.kind != RopeScaling::Kind::yarn) return 1;
  return s.attention_factor.value_or(s.factor > 1 ? 0.1 * std::log(s.factor) + 1 : 1.0);
}

Llama::Llama(LlamaConfig config)
    : config_(config),
      embed_tokens_(&model_, "embed_tokens", config.vocab_size, config.hidden_size),
      layers(&model_, "layers", config.num_hidden_layers, [&](std::int64_t layer) { return block(config, layer); }),
      norm_(&model_, "norm", config.hidden_size, {.eps = config.rms_norm_eps}),
      frequencies_(scaled_frequencies(head_width(config), config.rope_theta, config.rope_scaling)),
      magnitude_(rotary_magnitude(config.rope_scaling)) {
  if (config.tie_word_embeddings) tied_head_.emplace(this, "lm_head", embed_tokens_);
  else lm_head_.emplace(this, "lm_head", config.hidden_size, config.vocab_size, LinearOptions{.bias = false});
  initialize_transformer(*this, config.initializer_range);
}

Tensor Llama::operator()(const Tensor& tokens, AttentionContext context) {
  check(tokens.rank() == 2, "Llama", "tokens ", tokens.shape(), ": expected (batch, T)");
  const std::int64_t past = context.cache ? context.cache->length() : 0, length = tokens.shape()[1];
  check(past + length <= config_.max_position_embeddings, "Llama", past + length,
        " tokens: max_position_embeddings is ", config_.max_position_embeddings);
  const Tensor x = embed_tokens_(tokens);
  context.rotary = positions_.rotary(past, length, frequencies_, magnitude_, x.options());
  const Tensor y = norm_(layers(x, context));
  return lm_head_ ? (*lm_head_)(y) : (*tied_head_)(y);
}

}  // namespace stet::nn
