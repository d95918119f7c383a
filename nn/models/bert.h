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
  bool pooler = true;  ///< no field of config.json: whether the weights have one
};

struct BertInput {
  Tensor token_types = {};  ///< (batch, T) i64; undefined: all 0
  Tensor padding = {};      ///< (batch, T) bool: true where there is a token (transformers' attention_mask)
};

struct BertOutput {
  Tensor hidden;  ///< (batch, T, hidden_size)
  Tensor pooled;  ///< (batch, hidden_size): tanh of a linear layer on the first token; undefined without a pooler
};

/// Mean over the tokens of each sequence, how sentence encoders such as MiniLM make one vector of a text:
/// hidden (batch, T, width), padding (batch, T) bool, true where there is a token -> (batch, width). A sequence without
/// a token is 0. (Reimers & Gurevych 2019)
Tensor mean_pooling(const Tensor& hidden, const Tensor& padding);

/// BertModel. Parameters carry its names.
class Bert : public Module {
 public:
  explicit Bert(BertConfig config);
  Bert(Module* parent, std::string name, BertConfig config);

  /// tokens (batch, T) i64.
  BertOutput operator()(const Tensor& tokens, const BertInput& input = {});
  /// What the first block gets: tokens (batch, T) i64 -> (batch, T, hidden_size).
  Tensor embed(const Tensor& tokens, const BertInput& input = {});
  /// The modules that embed() and `layers->run(x, context, 0, blocks)` use, for a continual::FeatureCache.
  std::vector<Module*> prefix(std::size_t blocks) const;
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

/// Which loss the logits are meant for: cross_entropy, bce_with_logits or mse.
enum class ProblemType { single_label, multi_label, regression };

/// Fields of Hugging Face's configuration that concern the classifier alone.
struct BertClassifierOptions {
  std::int64_t num_labels = 2;
  std::vector<std::string> labels = {};           ///< id2label; empty: LABEL_0, LABEL_1, ...
  std::optional<double> classifier_dropout = {};  ///< of the pooled output; none: hidden_dropout_prob
  std::optional<ProblemType> problem_type = {};   ///< kept for config.json: the forward pass is the same
};

/// BertForSequenceClassification: classes from the pooled output.
class BertClassifier : public Module {
 public:
  /// An Error without a pooler, or where there are labels and not `num_labels` of them.
  BertClassifier(BertConfig config, BertClassifierOptions options);

  /// tokens (batch, T) i64 -> logits (batch, num_labels).
  Tensor operator()(const Tensor& tokens, const BertInput& input = {});
  const BertClassifierOptions& options() const { return options_; }

 private:
  BertClassifierOptions options_;

 public:
  Bert bert;

 private:
  std::optional<Dropout> dropout_;

 public:
  Linear classifier;
};

}  // namespace stet::nn
