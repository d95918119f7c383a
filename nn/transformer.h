// The Transformer block of every family: attention and an MLP, each with a norm and a residual connection.
#pragma once

#include <stet/nn/attention.h>

namespace stet::nn {

enum class NormKind { layer, rms };
/// Two linear layers with an activation between them, or SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020).
enum class MlpKind { relu, gelu, gelu_tanh, swiglu };

/// Dotted names below the block; `gate` is used by SwiGLU alone. The attention's are relative to the block, too.
struct TransformerNames {
  std::string norm1 = "input_layernorm", norm2 = "post_attention_layernorm";
  std::string attention = "self_attn";
  std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
};

struct TransformerOptions {
  std::int64_t width, heads, hidden;  ///< of the residual stream; of queries; of the MLP
  bool pre_norm = true;               ///< x + f(norm(x)) (GPT-2, Llama); else norm(x + f(x)) (BERT)
  NormKind norm = NormKind::layer;
  double eps = 1e-5;
  MlpKind mlp = MlpKind::gelu;
  bool mlp_bias = true;
  double dropout = 0;  ///< of what attention and MLP add, in training
  MultiHeadAttentionOptions attention = {};
  TransformerNames names = {};
};

/// LayerNorm or RMSNorm.
class Norm {
 public:
  Norm(Module* parent, const std::string& name, std::int64_t width, NormKind kind, double eps);
  Tensor operator()(const Tensor& x) const { return layer_ ? (*layer_)(x) : (*rms_)(x); }

 private:
  std::optional<LayerNorm> layer_;
  std::optional<RMSNorm> rms_;
};

/// What is added to a sublayer of a block (attention or MLP): adapters (continual/adapters/) implement it.
struct SublayerSlot {
  virtual ~SublayerSlot() = default;
  /// The sublayer's input x and its output y (batch, T, width), after dropout -> what goes to the residual sum.
  virtual Tensor operator()(const Tensor& x, const Tensor& y) = 0;
};

class TransformerBlock : public Module {
 public:
  TransformerBlock(Module* parent, std::string name, TransformerOptions options);
  explicit TransformerBlock(TransformerOptions options);

  /// x (batch, T, width) -> the same shape. `layer` is this block's place in the cache.
  Tensor operator()(const Tensor& x, const AttentionContext& context = {}, std::size_t layer = 0);
  std::int64_t width() const { return options_.width; }
  std::vector<const void*> plugged() const override { return {attention_slot, mlp_slot}; }

  SublayerSlot* attention_slot = nullptr;  ///< not owned
  SublayerSlot* mlp_slot = nullptr;        ///< not owned

 private:
  void make_parts();
  Tensor attend(const Tensor& x, const AttentionContext& context, std::size_t layer);
  Tensor transform(const Tensor& x);
  Tensor mlp(const Tensor& x) const;
  Tensor drop(std::optional<Dropout>& dropout, const Tensor& x) { return dropout ? (*dropout)(x) : x; }

  TransformerOptions options_;
  Folders folders_{*this};
  std::optional<Norm> norm1_, norm2_;
  std::optional<MultiHeadAttention> attention_;
  std::optional<Linear> gate_, up_, down_;
  std::optional<Dropout> dropout1_, dropout2_;
};

/// The blocks "0", "1", ... of a stack, one at least, as a module.
class TransformerStack : public Module {
 public:
  TransformerStack(Module* parent, std::string name, std::int64_t count, const TransformerOptions& options)
      : TransformerStack(parent, std::move(name), count, [&](std::int64_t) { return options; }) {}
  /// With options(i) of block i.
  TransformerStack(Module* parent, std::string name, std::int64_t count,
                   const std::function<TransformerOptions(std::int64_t)>& options);
  Tensor operator()(const Tensor& x, const AttentionContext& context = {}) { return run(x, context, 0, size()); }
  /// The blocks first .. last - 1 alone.
  Tensor run(const Tensor& x, const AttentionContext& context, std::size_t first, std::size_t last);
  std::size_t size() const { return blocks_.size(); }
  /// Keeps each block's input alone and computes its activations again in backward (checkpoint.h).
  bool recompute = false;

 private:
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
};

/// What depends on positions alone, made once and kept on the device, so that a recorded step uploads nothing.
class Positions {
 public:
  /// first, ..., first + length - 1 for each sequence: (batch, length) i64.
  Tensor index(std::int64_t batch, std::int64_t first, std::int64_t length, Device device);
  /// Angles of the same positions, their cosines and sines times `magnitude`. Frequencies and magnitude must be those
  /// of the first call.
  RotaryTable rotary(std::int64_t first, std::int64_t length, const std::vector<double>& frequencies, double magnitude,
                     Options options);

 private:
  Tensor index_;
  RotaryTable table_;
};

/// Weights N(0, deviation^2), biases 0, norms 1: how GPT-2, Llama and BERT start.
void initialize_transformer(Module& model, double deviation);

}  // namespace stet::nn
