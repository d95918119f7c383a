// BERT from the common parts.
#include <stet/nn/models/bert.h>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

TransformerOptions block(const BertConfig& c) {
  return {.width = c.hidden_size,
          .heads = c.num_attention_heads,
          .hidden = c.intermediate_size,
          .pre_norm = false,
          .eps = c.layer_norm_eps,
          .mlp = c.hidden_act,
          .dropout = c.hidden_dropout_prob,
          .attention = {.dropout = c.attention_probs_dropout_prob,
                        .names = {.q = "self.query", .k = "self.key", .v = "self.value", .out = "output.dense"}},
          .names = {.norm1 = "attention.output.LayerNorm",
                    .norm2 = "output.LayerNorm",
                    .attention = "attention",
                    .up = "intermediate.dense",
                    .down = "output.dense"}};
}

}  // namespace

Bert::Bert(BertConfig config) : config_(config) { make_parts(); }
Bert::Bert(Module* parent, std::string name, BertConfig config) : Module(parent, std::move(name)), config_(config) {
  make_parts();
}

void Bert::make_parts() {
  const std::int64_t width = config_.hidden_size;
  const auto make = [&](auto& part, const std::string& path, const auto&... arguments) {
    const auto [parent, name] = folders_(path);
    part.emplace(parent, name, arguments...);
  };
  make(words_, "embeddings.word_embeddings", config_.vocab_size, width);
  make(positions_, "embeddings.position_embeddings", config_.max_position_embeddings, width);
  make(types_, "embeddings.token_type_embeddings", config_.type_vocab_size, width);
  make(norm_, "embeddings.LayerNorm", width, LayerNormOptions{.eps = config_.layer_norm_eps});
  if (config_.hidden_dropout_prob > 0) make(dropout_, "embeddings.dropout", config_.hidden_dropout_prob);
  make(layers, "encoder.layer", config_.num_hidden_layers, block(config_));
  make(pooler_, "pooler.dense", width, width);
  initialize_transformer(*this, config_.initializer_range);
}

BertOutput Bert::operator()(const Tensor& tokens, const BertInput& input) {
  check(tokens.rank() == 2 && tokens.shape()[1] <= config_.max_position_embeddings, "Bert", "tokens ", tokens.shape(),
        ": expected (batch, T), T at most ", config_.max_position_embeddings);
  const Tensor positions = index_.index(tokens.shape()[0], 0, tokens.shape()[1], tokens.device());
  const Tensor types =
      input.token_types.defined() ? input.token_types : zeros(tokens.shape(), {DType::i64, tokens.device()});
  Tensor x = (*norm_)((*words_)(tokens) + (*types_)(types) + (*positions_)(positions));
  if (dropout_) x = (*dropout_)(x);
  const Tensor hidden = (*layers)(x, {.padding = input.padding});
  return {hidden, (*pooler_)(select(hidden, 1, 0), Activation::tanh)};
}

BertClassifier::BertClassifier(BertConfig config, std::int64_t num_labels)
    : bert(this, "bert", config), classifier(this, "classifier", config.hidden_size, num_labels) {
  if (config.hidden_dropout_prob > 0) dropout_.emplace(this, "dropout", config.hidden_dropout_prob);
  initialize_transformer(*this, config.initializer_range);
}

Tensor BertClassifier::operator()(const Tensor& tokens, const BertInput& input) {
  const Tensor pooled = bert(tokens, input).pooled;
  return classifier(dropout_ ? (*dropout_)(pooled) : pooled);
}

}  // namespace stet::nn
