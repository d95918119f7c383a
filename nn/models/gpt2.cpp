// GPT-2 from the common parts.
#include <stet/nn/models/gpt2.h>

#include <cmath>

#include <stet/nn/init.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

TransformerOptions block(const Gpt2Config& c) {
  return {.width = c.n_embd,
          .heads = c.n_head,
          .hidden = c.n_inner ? c.n_inner : 4 * c.n_embd,
          .eps = c.layer_norm_epsilon,
          .mlp = c.activation_function,
          .dropout = c.resid_pdrop,
          .attention = {.causal = true, .dropout = c.attn_pdrop, .names = {.out = "c_proj", .qkv = "c_attn"}},
          .names = {.norm1 = "ln_1", .norm2 = "ln_2", .attention = "attn", .up = "mlp.c_fc", .down = "mlp.c_proj"}};
}

}  // namespace

Gpt2::Gpt2(Gpt2Config config)
    : config_(config),
      wte_(&transformer_, "wte", config.vocab_size, config.n_embd),
      wpe_(&transformer_, "wpe", config.n_positions, config.n_embd),
      h(&transformer_, "h", config.n_layer, block(config)),
      ln_f_(&transformer_, "ln_f", config.n_embd, {.eps = config.layer_norm_epsilon}),
      lm_head_(this, "lm_head", wte_) {
  if (config.embd_pdrop != 0) drop_.emplace(&transformer_, "drop", config.embd_pdrop);
  initialize_transformer(*this, config.initializer_range);
  const double residual = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.n_layer));
  for (Parameter* p : parameters())
    if (p->path().ends_with("c_proj.weight")) init::apply(*p, init::normal(0, residual));
}

Tensor Gpt2::operator()(const Tensor& tokens, AttentionContext context) {
  check(tokens.rank() == 2, "Gpt2", "tokens ", tokens.shape(), ": expected (batch, T)");
  const std::int64_t past = context.cache ? context.cache->length() : 0, end = past + tokens.shape()[1];
  check(end <= config_.n_positions, "Gpt2", end, " tokens: n_positions is ", config_.n_positions);
  const Tensor positions = positions_.index(tokens.shape()[0], past, tokens.shape()[1], tokens.device());
  Tensor x = wte_(tokens) + wpe_(positions);
  if (drop_) x = (*drop_)(x);
  return lm_head_(ln_f_(h(x, context)));
}

State Gpt2::transposed(State state) {
  for (auto& [name, value] : state)
    for (const std::string_view conv1d : {"c_attn.weight", "c_proj.weight", "c_fc.weight"})
      if (name.ends_with(conv1d)) value = transpose(value);
  return state;
}

}  // namespace stet::nn
