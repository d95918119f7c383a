// LoRA (Hu et al. 2022), rank-stabilised LoRA (Kalajdzievski 2023) and DoRA (Liu et al. 2024).
#pragma once

#include <stet/continual/adapters/adapter.h>

namespace stet::continual {

/// Of several globs that match, the first counts.
template <class T> using ByGlob = std::vector<std::pair<std::string, T>>;

/// Which biases of the model are trained, in copies.
enum class LoraBias {
  none,
  all,        ///< those of every module, norms and layers without LoRA included
  lora_only,  ///< those of the layers that have LoRA
};

/// The defaults and meanings are PEFT's.
struct LoraOptions {
  std::vector<std::string> targets = {};     ///< globs over paths of linear layers: "*q_proj"
  std::vector<std::string> embeddings = {};  ///< the same of embeddings: "*embed_tokens"; of tied ones the input alone
  std::int64_t rank = 8;
  double alpha = 8;
  double dropout = 0;           ///< of the low-rank path's input, in training; below 1
  bool rslora = false;          ///< scale alpha / sqrt(rank) instead of alpha / rank
  bool dora = false;            ///< learn the norm of each row of the weight apart from its direction
  bool fan_in_fan_out = false;  ///< only written to files: PEFT's base stores its weights as (in, out), as in GPT-2
  ByGlob<std::int64_t> rank_pattern = {};  ///< ranks of layers that have another
  ByGlob<double> alpha_pattern = {};       ///< the same for alpha
  /// Globs over modules that are trained whole, as a head is: every parameter of a Linear, Embedding or norm. With tied
  /// embeddings the table's copy is the input's alone, and "lm_head" a copy for the output alone.
  std::vector<std::string> modules_to_save = {};
  LoraBias bias = LoraBias::none;
  bool ensure_weight_tying = false;  ///< one copy for both ends of tied embeddings, where either is trained whole
};

/// Of one place: what `options` say of it, checked.
struct LoraNumbers {
  LoraNumbers(const nn::Module& base, const std::string& place, const LoraOptions& options);
  std::int64_t rank;
  double alpha;
  bool rslora, dora;
  /// s: alpha / rank, or alpha / sqrt(rank).
  double scale() const;
  Piece::Settings settings() const;
};

/// y = x W^T + b + s (drop(x) A^T) B^T. A starts as U(-1/sqrt(in), 1/sqrt(in)), B as 0. With DoRA
/// y = (x W^T + s (drop(x) A^T) B^T) m / ||W + s B A|| + b, the norm taken over rows and held constant in backward
/// (section 4.3 of the paper); m starts as the norm of W's rows.
class Lora final : public LinearPiece {
 public:
  /// The patterns of `options` hold for `place`.
  Lora(nn::Linear& base, std::string name, std::string place, const LoraOptions& options);
  Merged merged() const override;
  Settings settings() const override { return numbers_.settings(); }

 private:
  LoraNumbers numbers_;

 public:
  nn::Parameter lora_A;                                ///< (rank, in)
  nn::Parameter lora_B;                                ///< (out, rank)
  std::optional<nn::Parameter> lora_magnitude_vector;  ///< (out,), with DoRA

 protected:
  Tensor adapted(const Tensor& x) override;

 private:
  Tensor row_norms() const;
  std::optional<nn::Dropout> lora_dropout_;
};

/// y = E[i] + s A[i] B^T for an embedding E. A starts as 0, B as N(0, 1). DoRA as of a linear layer of weight E^T: y =
/// (E[i] + s A[i] B^T) m / ||E + s A B^T||, the norm taken over columns. There is no dropout, as in PEFT.
class LoraEmbedding final : public Piece, public nn::EmbeddingSlot {
 public:
  /// `head`: the output layer that shares the table, or null. It goes on with the table as it is.
  LoraEmbedding(nn::Embedding& base, std::string name, std::string place, const LoraOptions& options,
                const nn::TiedLinear* head);
  Tensor operator()(const nn::Embedding& base, const Tensor& index) override;
  void plug(bool on) override;
  void merge(bool on) override;
  /// An Error where an output layer shares the table.
  void fold(nn::State& state) const override;
  Settings settings() const override { return numbers_.settings(); }
  std::vector<const void*> plugged() const override { return {merged_ ? &*merged_ : nullptr}; }
  const nn::Embedding& base() const { return base_; }

 private:
  Tensor table() const;
  Tensor column_norms() const;
  Tensor merged() const;

  nn::Embedding& base_;
  const nn::TiedLinear* head_;
  LoraNumbers numbers_;
  std::optional<Tensor> merged_;
  std::vector<Stamp> merged_from_;

 public:
  nn::Parameter lora_embedding_A;                      ///< (count, rank); PEFT's files have (rank, count)
  nn::Parameter lora_embedding_B;                      ///< (width, rank)
  std::optional<nn::Parameter> lora_magnitude_vector;  ///< (width,), with DoRA
};

}  // namespace stet::continual
