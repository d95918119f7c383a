// BERT (Devlin et al. 2019): bidirectional attention, post-norm blocks, learned positions and token types. Sentence
// encoders such as MiniLM are this model.
#pragma once

#include <stet/nn/transformer.h>

namespace stet::nn {

/// Fields of Hugging Face's BertConfig.
struct BertConfig {
  std::int64_t vocab_size = 30522, hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12;
  std::int64_t intermediate_size = 3072, max_position_embeddings = 512, type_vocab_size = 2;
  MlpKind hidden_act = MlpKind::gelu;
  double hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1, layer_norm_eps = 1e-12,
         initializer_range = 0.02;
};

struct BertInput {
  Tensor token_types = {};  ///< (batch, T) i64; undefined: all 0
  Tensor padding = {};      ///< (batch, T) bool: true where there is a token (transformers' attention_mask)
};

struct BertOutput {
  Tensor hidden;  ///< (batch, T, hidden_size)
  Tensor pooled;  ///< (batch, hidden_size): tanh of a linear layer on the first token
};

/// BertModel. Parameters carry its names.
class Bert : public Module {
 public:
  explicit Bert(BertConfig config);
  Bert(Module* parent, std::string name, BertConfig config);

  /// tokens (batch, T) i64.
  BertOutput operator()(const Tensor& tokens, const BertInput& input = {});
  const BertConfig& config() const { return config_; }

 private:
  void make_parts();
  BertConfig config_;
  Folders folders_{*this};
  std::optional<Embedding> words_, positions_, types_;
  std::optional<LayerNorm> norm_;
  std::optional<Dropout> dropout_;

 public:
  std::optional<TransformerStack> layers;

 private:
  std::optional<Linear> pooler_;
  Positions index_;
};

/// BertForSequenceClassification: classes from the pooled output.
class BertClassifier : public Module {
 public:
  BertClassifier(BertConfig config, std::int64_t num_labels);

  /// tokens (batch, T) i64 -> logits (batch, num_labels).
  Tensor operator()(const Tensor& tokens, const BertInput& input = {});

  Bert bert;

 private:
  std::optional<Dropout> dropout_;

 public:
  Linear classifier;
};

}  // namespace stet::nn
