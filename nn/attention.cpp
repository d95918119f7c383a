// Projections, rotation, cache; the arithmetic is autograd's.
#include <stet/nn/attention.h>

#include <algorithm>
#include <bit>
#include <tuple>

#include <stet/nn/init.h>
#include <stet/tensor/error.h>
#include <stet/tensor/kernels.h>

namespace stet::nn {
namespace {

Tensor state_of(const Module& owner) {
  const DefaultDevice host(Device::cpu());
  const GeneratorState state = init::generator(owner, "generator").state();
  return tensor<std::int64_t>({std::bit_cast<std::int64_t>(state.seed), std::bit_cast<std::int64_t>(state.draw)});
}

/// A buffer with room for `length` along axis 2 that starts with what `old` has.
Tensor grown(const Tensor& old, const Tensor& like, std::int64_t used, std::int64_t length) {
  if (old.defined() && old.shape()[2] >= length) return old;
  Shape shape = like.shape();
  shape[2] = std::max<std::int64_t>({64, length, old.defined() ? 2 * old.shape()[2] : 0});
  const Tensor fresh = empty(shape, like.options());
  if (used > 0) slice(fresh, 2, 0, used).copy_(slice(old, 2, 0, used));
  return fresh;
}

/// A tensor in an error: (1, 2, 8, 4) f32 cpu.
struct Kind {
  const Tensor& of;
  friend std::ostream& operator<<(std::ostream& out, const Kind& kind) {
    return out << kind.of.shape() << ' ' << kind.of.dtype() << ' ' << kind.of.device();
  }
};

/// Of the same batch, heads, dtype and device.
bool alike(const Tensor& a, const Tensor& b) {
  return a.shape()[0] == b.shape()[0] && a.shape()[1] == b.shape()[1] && a.dtype() == b.dtype() &&
         a.device() == b.device();
}

}  // namespace

Folders::Place Folders::operator()(const std::string& path) {
  Module* at = &root_;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    const std::string name = path.substr(begin, dot - begin);
    const std::string whole = at->path().empty() ? name : at->path() + "." + name;
    const auto children = at->children();
    const auto found = std::find_if(children.begin(), children.end(), [&](Module* m) { return m->path() == whole; });
    if (found == children.end()) made_.push_back(std::make_unique<Module>(at, name));
    at = found == children.end() ? made_.back().get() : *found;
    begin = dot + 1;
  }
  return {at, path.substr(begin)};
}

std::pair<Tensor, Tensor> KvCache::append(std::size_t layer, const Tensor& k, const Tensor& v) {
  check(!k.requires_grad() && !v.requires_grad(), "KvCache", "k ", k.shape(),
        " asks for a gradient: generate inside NoGrad");
  check(k.rank() == 4 && v.rank() == 4 && alike(k, v) && k.shape()[2] == v.shape()[2], "KvCache", "k ", Kind{k},
        " and v ", Kind{v},
        ": expected (batch, kv_heads, T, d) of one dtype and device, with the same batch, heads and T");
  if (layers_.size() <= layer) layers_.resize(layer + 1);
  Layer& at = layers_[layer];
  const std::int64_t length = at.length + k.shape()[2];
  for (const auto& [before, now] : {std::pair(&at.k, &k), std::pair(&at.v, &v)})
    check(!before->defined() || (alike(*before, *now) && before->shape()[3] == now->shape()[3]), "KvCache", "layer ",
          layer, ": ", Kind{*now}, " after ", Kind{*before}, ": expected the same but for T");
  at.k = grown(at.k, k, at.length, length);
  at.v = grown(at.v, v, at.length, length);
  slice(at.k, 2, at.length, length).copy_(k);
  slice(at.v, 2, at.length, length).copy_(v);
  at.length = length;
  return {slice(at.k, 2, 0, length), slice(at.v, 2, 0, length)};
}

KvCache::Attempt::Attempt(KvCache* cache)
    : cache_(cache && !cache->attempted_ ? cache : nullptr), exceptions_(std::uncaught_exceptions()) {
  if (!cache_) return;
  cache_->attempted_ = true;
  for (const Layer& layer : cache_->layers_) lengths_.push_back(layer.length);
}

KvCache::Attempt::~Attempt() {
  if (!cache_) return;
  cache_->attempted_ = false;
  if (std::uncaught_exceptions() == exceptions_) return;
  cache_->layers_.resize(lengths_.size());
  for (std::size_t i = 0; i < lengths_.size(); ++i) cache_->layers_[i].length = lengths_[i];
}

MultiHeadAttention::MultiHeadAttention(Module* parent, std::string name, std::int64_t width, std::int64_t heads,
                                       MultiHeadAttentionOptions options)
    : Module(parent, std::move(name)), width_(width), heads_(heads), options_(std::move(options)) {
  make_projections();
}

MultiHeadAttention::MultiHeadAttention(std::int64_t width, std::int64_t heads, MultiHeadAttentionOptions options)
    : width_(width), heads_(heads), options_(std::move(options)) {
  make_projections();
}

void MultiHeadAttention::make_projections() {
  kv_heads_ = options_.kv_heads ? options_.kv_heads : heads_;
  check(options_.dropout >= 0 && options_.dropout < 1, "MultiHeadAttention", "'", path(), "': dropout ",
        options_.dropout, ", expected at least 0 and below 1");
  check(heads_ >= 1 && kv_heads_ >= 1 && heads_ % kv_heads_ == 0, "MultiHeadAttention", "'", path(), "' of ", heads_,
        " heads, ", kv_heads_, " of keys: expected a multiple");
  check(options_.head_width > 0 || (width_ > 0 && width_ % heads_ == 0), "MultiHeadAttention", "'", path(), "': width ",
        width_, " must be a multiple of ", heads_, " heads");
  head_width_ = options_.head_width ? options_.head_width : width_ / heads_;
  const auto make = [&](std::optional<Linear>& into, const std::string& path, std::int64_t in, std::int64_t out,
                        bool bias) {
    const auto [parent, name] = folders_(path);
    into.emplace(parent, name, in, out, LinearOptions{.bias = bias});
  };
  const MultiHeadAttentionNames& names = options_.names;
  const std::int64_t wide = heads_ * head_width_, kv_wide = kv_heads_ * head_width_;
  if (!names.qkv.empty()) {
    make(qkv_, names.qkv, width_, wide + 2 * kv_wide, options_.qkv_bias);
  } else {
    make(q_, names.q, width_, wide, options_.qkv_bias);
    make(k_, names.k, width_, kv_wide, options_.qkv_bias);
    make(v_, names.v, width_, kv_wide, options_.qkv_bias);
  }
  make(out_, names.out, wide, width_, options_.out_bias);
  if (options_.dropout > 0) generator_.emplace(this, "generator", state_of(*this));
}

Tensor MultiHeadAttention::operator()(const Tensor& x, const AttentionContext& context, std::size_t layer) {
  check(x.rank() == 3 && x.shape()[2] == width_, "MultiHeadAttention", "'", path(), "' got ", x.shape(),
        ": expected (batch, T, ", width_, ")");
  const std::int64_t batch = x.shape()[0], length = x.shape()[1];
  const int axis = length == 1 ? 1 : 2;  // of one token alone T and heads change places by name
  const auto apart = [&](const Tensor& y) {
    const std::int64_t all = y.shape()[2] / head_width_;
    return reshape(y, axis == 1 ? Shape{batch, all, 1, head_width_} : Shape{batch, length, all, head_width_});
  };
  const auto heads = [&](const Tensor& y) { return axis == 1 ? y : transpose(y, 1, 2); };  // (batch, heads, T, d)
  Tensor q, k, v;
  if (qkv_) {
    const auto parts = split(apart((*qkv_)(x)), {heads_, kv_heads_, kv_heads_}, axis);
    q = heads(parts[0]);
    k = heads(parts[1]);
    v = heads(parts[2]);
  } else {
    q = heads(apart((*q_)(x)));
    k = heads(apart((*k_)(x)));
    v = heads(apart((*v_)(x)));
  }
  if (context.rotary.cos.defined()) {
    q = rotary(q, context.rotary, options_.interleaved);
    k = rotary(k, context.rotary, options_.interleaved);
  }
  const KvCache::Attempt attempt(context.cache);
  if (context.cache) std::tie(k, v) = context.cache->append(layer, k, v);
  if (context.attentions) {
    check(!grad_enabled(), "MultiHeadAttention", "'", path(), "': attentions are kept inside NoGrad alone");
    context.attentions->push_back(attention_probabilities(q, k, options(context)));
  }
  const Tensor each = attend(q, k, v, context);
  const Tensor joined = reshape(length == 1 ? each : transpose(each, 1, 2), {batch, length, heads_ * head_width_});
  return (*out_)(joined);
}

AttentionOptions MultiHeadAttention::options(const AttentionContext& context) const {
  return {.causal = options_.causal, .window = options_.window, .mask = context.mask, .padding = context.padding};
}

Tensor MultiHeadAttention::attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionContext& context) {
  AttentionOptions options = this->options(context);
  if (!generator_ || !is_training()) return attention(q, k, v, options);
  const auto state = [this] { return generator_->value().mutable_data<std::int64_t>(); };
  each_replay(q.device(), [=, this] {
    draws_.set_state({std::bit_cast<std::uint64_t>(state()[0]), std::bit_cast<std::uint64_t>(state()[1])});
  });
  options.dropout = options_.dropout;
  options.generator = &draws_;
  const Tensor y = attention(q, k, v, options);
  each_replay(q.device(), [=, this] { state()[1] = std::bit_cast<std::int64_t>(draws_.state().draw); });
  return y;
}

}  // namespace stet::nn
