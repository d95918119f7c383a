// BERT from the common parts.
#include <stet/nn/models/bert.h>

#include <cmath>

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
  if (config_.hidden_dropout_prob != 0) make(dropout_, "embeddings.dropout", config_.hidden_dropout_prob);
  make(layers, "encoder.layer", config_.num_hidden_layers, block(config_));
  if (config_.pooler) make(pooler_, "pooler.dense", width, width);
  initialize_transformer(*this, config_.initializer_range);
}

Tensor Bert::embed(const Tensor& tokens, const BertInput& input) {
  check(tokens.rank() == 2 && tokens.shape()[1] <= config_.max_position_embeddings, "Bert", "tokens ", tokens.shape(),
        ": expected (batch, T), T at most ", config_.max_position_embeddings);
  const Tensor positions = index_.index(tokens.shape()[0], 0, tokens.shape()[1], tokens.device());
  check(!input.token_types.defined() || input.token_types.shape() == tokens.shape(), "Bert", "token types ",
        input.token_types.defined() ? input.token_types.shape() : Shape{}, " for tokens ", tokens.shape(),
        ": expected one for each");
  const Tensor types =
      input.token_types.defined() ? input.token_types : zeros(tokens.shape(), {DType::i64, tokens.device()});
  const Tensor x = (*norm_)((*words_)(tokens) + (*types_)(types) + (*positions_)(positions));
  return dropout_ ? (*dropout_)(x) : x;
}

BertOutput Bert::operator()(const Tensor& tokens, const BertInput& input) {
  const Tensor hidden = (*layers)(embed(tokens, input), {.padding = input.padding});
  return {hidden, pooler_ ? (*pooler_)(select(hidden, 1, 0), Activation::tanh) : Tensor()};
}

std::vector<Module*> Bert::prefix(std::size_t blocks) const {
  check(blocks <= layers->size(), "Bert", "a prefix of ", blocks, " blocks, expected at most ", layers->size());
  std::vector<Module*> out{children().front()};  // "embeddings", the first that make_parts() makes
  const std::vector<Module*> all = layers->children();
  out.insert(out.end(), all.begin(), all.begin() + static_cast<std::ptrdiff_t>(blocks));
  return out;
}

Tensor mean_pooling(const Tensor& hidden, const Tensor& padding) {
  check(hidden.rank() == 3 && padding.shape() == Shape{hidden.shape()[0], hidden.shape()[1]}, "mean_pooling", "hidden ",
        hidden.shape(), " and padding ", padding.shape(), ": expected (batch, T, width) and (batch, T)");
  check(padding.dtype() == DType::boolean, "mean_pooling", "padding of ", padding.dtype(), ": expected bool");
  const Tensor mask = reshape(cast(padding, hidden.dtype()), {hidden.shape()[0], hidden.shape()[1], 1});
  return sum(hidden * mask, {1}) / clamp(sum(mask, {1}), 1, INFINITY);
}

BertClassifier::BertClassifier(BertConfig config, BertClassifierOptions options)
    : options_(std::move(options)),
      bert(this, "bert", config),
      classifier(this, "classifier", config.hidden_size, options_.num_labels) {
  check(config.pooler, "BertClassifier", "found a configuration without a pooler, expected one with it");
  check(options_.num_labels >= 1, "BertClassifier", "num_labels ", options_.num_labels, ": expected at least 1");
  check(options_.labels.empty() || std::ssize(options_.labels) == options_.num_labels, "BertClassifier", "found ",
        options_.labels.size(), " labels, expected num_labels ", options_.num_labels);
  const double dropout = options_.classifier_dropout.value_or(config.hidden_dropout_prob);
  if (dropout != 0) dropout_.emplace(this, "dropout", dropout);
  initialize_transformer(*this, config.initializer_range);
}

Tensor BertClassifier::operator()(const Tensor& tokens, const BertInput& input) {
  const Tensor pooled = bert(tokens, input).pooled;
  return classifier(dropout_ ? (*dropout_)(pooled) : pooled);
}

}  // namespace stet::nn
