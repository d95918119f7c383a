// Multi-head attention as a layer: projections around autograd's attention(), rotary positions, cached keys and values.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <stet/autograd/attention.h>
#include <stet/nn/layers.h>

namespace stet::nn {

/// Modules that hold others and do nothing, so that parameters get the dotted names of a released checkpoint:
/// of "self_attn.q_proj" the module "self_attn" is made, unless it is there, and "q_proj" is left to the caller.
class Folders {
 public:
  struct Place {
    Module* parent;
    std::string name;
  };
  explicit Folders(Module& root) : root_(root) {}
  Place operator()(const std::string& path);

 private:
  Module& root_;
  std::vector<std::unique_ptr<Module>> made_;
};

/// Keys and values of the tokens seen so far, for each layer of a model that generates. Used inside NoGrad.
class KvCache {
 public:
  /// Adds k and v (batch, kv_heads, T, d) of one layer and returns all of that layer's. Memory grows by doubling.
  std::pair<Tensor, Tensor> append(std::size_t layer, const Tensor& k, const Tensor& v);
  /// Tokens that layer 0 has.
  std::int64_t length() const { return layers_.empty() ? 0 : layers_.front().length; }
  void clear() { layers_.clear(); }

  /// Takes out what is appended during a scope that ends with an exception, so that the call can be tried again. Inside
  /// another such scope it leaves that to the outer one.
  class Attempt {
   public:
    /// `cache` may be null.
    explicit Attempt(KvCache* cache);
    ~Attempt();
    Attempt(const Attempt&) = delete;
    Attempt& operator=(const Attempt&) = delete;

   private:
    KvCache* cache_;
    int exceptions_;
    std::vector<std::int64_t> lengths_;
  };

 private:
  struct Layer {
    Tensor k, v;  // (batch, kv_heads, capacity, d)
    std::int64_t length = 0;
  };
  std::vector<Layer> layers_;
  bool attempted_ = false;
};

/// Dotted names of the projections below the layer; with `qkv` one weight makes q, k and v, in this order.
struct MultiHeadAttentionNames {
  std::string q = "q_proj", k = "k_proj", v = "v_proj", out = "o_proj", qkv = "";
};

struct MultiHeadAttentionOptions {
  std::int64_t kv_heads = 0;    ///< heads of keys and values; 0: as many as of queries
  std::int64_t head_width = 0;  ///< 0: width / heads
  bool causal = false;
  std::int64_t window = 0;  ///< as AttentionOptions::window
  bool qkv_bias = true, out_bias = true;
  double dropout = 0;        ///< of the probabilities, in training; below 1
  bool interleaved = false;  ///< rotary pairs are neighbours (rotary() in autograd/attention.h)
  MultiHeadAttentionNames names = {};
};

/// What comes with a sequence, the same for all layers.
struct AttentionContext {
  Tensor padding = {};       ///< (batch, S) bool: true where there is a token; S counts the cached ones
  Tensor mask = {};          ///< as AttentionOptions::mask
  RotaryTable rotary = {};   ///< of the T positions of x; undefined: no rotation
  KvCache* cache = nullptr;  ///< keys and values go there, and those before are seen
  /// For looking inside, under NoGrad: what goes into the first block and what each block gives (batch, T, width), and
  /// each attention's probabilities (batch, heads, T, S), which take memory quadratic in the length, are added here.
  std::vector<Tensor>*hidden_states = nullptr, *attentions = nullptr;
};

/// Multi-head attention (Vaswani et al. 2017, section 3.2.2) with grouped queries (Ainslie et al. 2023).
class MultiHeadAttention : public Module {
 public:
  MultiHeadAttention(Module* parent, std::string name, std::int64_t width, std::int64_t heads,
                     MultiHeadAttentionOptions options = {});
  MultiHeadAttention(std::int64_t width, std::int64_t heads, MultiHeadAttentionOptions options = {});

  /// x (batch, T, width) -> the same shape. `layer` is this layer's place in the cache.
  Tensor operator()(const Tensor& x, const AttentionContext& context = {}, std::size_t layer = 0);
  std::int64_t head_width() const { return head_width_; }

 private:
  void make_projections();
  AttentionOptions options(const AttentionContext& context) const;
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionContext& context);

  std::int64_t width_, heads_, kv_heads_, head_width_;
  MultiHeadAttentionOptions options_;
  Folders folders_{*this};
  std::optional<Linear> q_, k_, v_, qkv_, out_;
  std::optional<Buffer> generator_;  // (2,) i64: seed and number of draws, where there is dropout
  Generator draws_;
};

}  // namespace stet::nn
