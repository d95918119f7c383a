// Blocks: what they hold, and in which order it is called.
#include <stet/nn/transformer.h>

#include <stet/nn/checkpoint.h>
#include <stet/nn/init.h>
#include <stet/tensor/error.h>

namespace stet::nn {

Norm::Norm(Module* parent, const std::string& name, std::int64_t width, NormKind kind, double eps) {
  if (kind == NormKind::layer) layer_.emplace(parent, name, width, LayerNormOptions{.eps = eps});
  else rms_.emplace(parent, name, width, RMSNormOptions{.eps = eps});
}

TransformerBlock::TransformerBlock(Module* parent, std::string name, TransformerOptions options)
    : Module(parent, std::move(name)), options_(std::move(options)) {
  make_parts();
}

TransformerBlock::TransformerBlock(TransformerOptions options) : options_(std::move(options)) { make_parts(); }

void TransformerBlock::make_parts() {
  const TransformerNames& names = options_.names;
  check(options_.width > 0 && options_.hidden > 0, "TransformerBlock", "'", path(), "': width ", options_.width,
        ", hidden ", options_.hidden);
  const auto norm = [&](std::optional<Norm>& into, const std::string& path) {
    const auto [parent, name] = folders_(path);
    into.emplace(parent, name, options_.width, options_.norm, options_.eps);
  };
  const auto linear = [&](std::optional<Linear>& into, const std::string& path, std::int64_t in, std::int64_t out) {
    const auto [parent, name] = folders_(path);
    into.emplace(parent, name, in, out, LinearOptions{.bias = options_.mlp_bias});
  };
  const auto [parent, name] = folders_(names.attention);
  attention_.emplace(parent, name, options_.width, options_.heads, options_.attention);
  norm(norm1_, names.norm1);
  norm(norm2_, names.norm2);
  if (options_.mlp == MlpKind::swiglu) linear(gate_, names.gate, options_.width, options_.hidden);
  linear(up_, names.up, options_.width, options_.hidden);
  linear(down_, names.down, options_.hidden, options_.width);
  if (options_.dropout == 0) return;
  dropout1_.emplace(this, "dropout1", options_.dropout);
  dropout2_.emplace(this, "dropout2", options_.dropout);
}

Tensor TransformerBlock::mlp(const Tensor& x) const {
  switch (options_.mlp) {
    case MlpKind::relu: return (*down_)((*up_)(x, Activation::relu));
    case MlpKind::gelu: return (*down_)((*up_)(x, Activation::gelu));
    case MlpKind::gelu_tanh: return (*down_)(gelu_tanh((*up_)(x)));
    case MlpKind::swiglu: return (*down_)(silu((*gate_)(x)) * (*up_)(x));
  }
  fail("TransformerBlock", "unknown MLP ", static_cast<int>(options_.mlp));
}

Tensor TransformerBlock::attend(const Tensor& x, const AttentionContext& context, std::size_t layer) {
  const Tensor y = drop(dropout1_, (*attention_)(x, context, layer));
  return attention_slot ? (*attention_slot)(x, y) : y;
}

Tensor TransformerBlock::transform(const Tensor& x) {
  const Tensor y = drop(dropout2_, mlp(x));
  return mlp_slot ? (*mlp_slot)(x, y) : y;
}

Tensor TransformerBlock::operator()(const Tensor& x, const AttentionContext& context, std::size_t layer) {
  if (options_.pre_norm) {
    const Tensor h = x + attend((*norm1_)(x), context, layer);
    return h + transform((*norm2_)(h));
  }
  const Tensor h = (*norm1_)(x + attend(x, context, layer));
  return (*norm2_)(h + transform(h));
}

TransformerStack::TransformerStack(Module* parent, std::string name, std::int64_t count,
                                   const std::function<TransformerOptions(std::int64_t)>& options)
    : Module(parent, std::move(name)) {
  check(count >= 1, "TransformerStack", "'", path(), "': ", count, " blocks, expected at least 1");
  for (std::int64_t i = 0; i < count; ++i)
    blocks_.push_back(std::make_unique<TransformerBlock>(this, std::to_string(i), options(i)));
}

Tensor TransformerStack::run(const Tensor& x, const AttentionContext& context, std::size_t first, std::size_t last) {
  check(first <= last && last <= size(), "TransformerStack", "blocks ", first, " to ", last, ": expected a part of ",
        size());
  check(!context.hidden_states || !grad_enabled(), "TransformerStack", "'", path(),
        "': hidden states are kept inside NoGrad alone");
  // Those are for generating and looking inside, and say so where a gradient is wanted.
  const bool again = recompute && grad_enabled() && !context.cache && !context.attentions;
  const KvCache::Attempt attempt(context.cache);
  Tensor h = x;
  if (context.hidden_states) context.hidden_states->push_back(h);
  for (std::size_t i = first; i < last; ++i) {
    TransformerBlock& block = *blocks_[i];
    if (!again) h = block(h, context, i);
    else
      h = checkpoint(
          block, [&block, context, i](const Tensor& in) { return block(in, context, i); }, h);
    if (context.hidden_states) context.hidden_states->push_back(h);
  }
  return h;
}

namespace {
/// Whether `x` must be made anew to have `end` rows there; then with room to grow.
bool too_short(const Tensor& x, std::int64_t end, Options options) {
  return !x.defined() || x.shape()[0] < end || x.device() != options.device || x.dtype() != options.dtype;
}
std::int64_t room(std::int64_t end) {
  std::int64_t size = 64;
  while (size < end) size *= 2;
  return size;
}
}  // namespace

Tensor Positions::index(std::int64_t batch, std::int64_t first, std::int64_t length, Device device) {
  const std::int64_t end = first + length;
  if (too_short(index_, end, {DType::i64, device})) index_ = arange(room(end), {DType::i64, device});
  return expand(slice(index_, 0, first, end), {batch, length});
}

RotaryTable Positions::rotary(std::int64_t first, std::int64_t length, const std::vector<double>& frequencies,
                              double magnitude, Options options) {
  const std::int64_t end = first + length;
  if (too_short(table_.cos, end, options)) {
    table_ = rotary_table(0, room(end), frequencies, options);
    if (magnitude != 1) table_ = {table_.cos * magnitude, table_.sin * magnitude};
  }
  return {slice(table_.cos, 0, first, end), slice(table_.sin, 0, first, end)};
}

void initialize_transformer(Module& model, double deviation) {
  for (Parameter* p : model.parameters()) {
    if (p->shape().size() >= 2) init::apply(*p, init::normal(0, deviation));
    else if (p->name() == "bias") init::apply(*p, init::zeros());
  }
}

}  // namespace stet::nn
