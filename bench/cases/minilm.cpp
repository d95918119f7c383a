// Case 10: fine-tuning a BERT of MiniLM's shape. Full and LoRA: one step. Top layer and head: whole runs of kEpochs
// over the file's batches, the pass through the frozen prefix included; the loss is the last batch's.
#include "case.h"

using namespace stet;

namespace bench {
namespace {

constexpr int kEpochs = 5;
constexpr std::int64_t kWidth = 384, kClasses = 150;

struct Encoder : nn::Module {
  nn::Bert bert{this,
                "bert",
                {.vocab_size = 30522,
                 .hidden_size = kWidth,
                 .num_hidden_layers = 6,
                 .num_attention_heads = 12,
                 .intermediate_size = 1536,
                 .hidden_dropout_prob = 0,
                 .attention_probs_dropout_prob = 0,
                 .pooler = false}};
  nn::Linear head{this, "head", kWidth, kClasses};

  Tensor logits(const Tensor& hidden) { return head(mean(hidden, {1})); }
};

struct Data {
  Tensor x, y;  // (batches, batch, T), (batches, batch)
  std::int64_t batches() const { return x.shape()[0]; }
  Tensor tokens(std::int64_t i) const { return select(x, 0, i % batches()); }
  Tensor labels(std::int64_t i) const { return select(y, 0, i % batches()); }
};

struct Training {
  Encoder model;
  continual::Adapters adapters{model};
  Data data;
  nn::State start;

  explicit Training(const nn::State& file) : data{file.at("x"), file.at("y")} {
    nn::State weights;
    for (const auto& [name, value] : file)
      if (name.starts_with("bert.") || name.starts_with("head.")) weights[name] = value;
    model.load(weights);
    start = weights;
  }

  double update(optim::AdamW& optimizer, const Tensor& logits, std::int64_t i) {
    const Tensor loss = nn::cross_entropy(logits, data.labels(i));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    return loss.item();
  }
};

/// A whole run from the start's weights. `blocks` run once for each sequence.
double whole_run(Training& t, std::size_t blocks) {
  const std::size_t all = t.model.bert.layers->size();
  t.model.load(t.start);
  optim::AdamW optimizer(t.model.trainable_parameters(), {.lr = 1e-3, .weight_decay = 0});
  const bool head_alone = blocks == all;
  continual::FeatureCache cache(t.model.bert.prefix(blocks), [&](const Tensor& tokens) {
    const Tensor hidden = t.model.bert.layers->run(t.model.bert.embed(tokens), {}, 0, blocks);
    return head_alone ? mean(hidden, {1}) : hidden;
  });
  const std::int64_t batch = t.data.x.shape()[1];
  double loss = 0;
  for (int epoch = 0; epoch < kEpochs; ++epoch)
    for (std::int64_t i = 0; i < t.data.batches(); ++i) {
      std::vector<std::int64_t> indices;
      for (std::int64_t b = 0; b < batch; ++b) indices.push_back(i * batch + b);
      const Tensor features = cache(indices, [&](const auto&) { return t.data.tokens(i); });
      const Tensor logits =
          head_alone ? t.model.head(features) : t.model.logits(t.model.bert.layers->run(features, {}, blocks, all));
      loss = t.update(optimizer, logits, i);
    }
  return loss;
}

}  // namespace

Case minilm_case(const std::string& name, const nn::State& file) {
  auto training = std::make_shared<Training>(file);
  Encoder& model = training->model;
  if (name == "10c" || name == "10d") {  // top layer, head
    const std::size_t blocks = model.bert.layers->size() - (name == "10c" ? 1 : 0);
    for (nn::Module* part : model.bert.prefix(blocks)) part->freeze();
    return {[=](std::int64_t) { return whole_run(*training, blocks); }};
  }
  if (name == "10b") {
    training->adapters.attach("a", continual::LoraOptions{.targets = {"*.query", "*.value"}, .rank = 8, .alpha = 16});
    training->adapters.freeze_base();
    model.head.unfreeze();
    for (nn::Parameter* p : training->adapters.parameters("a"))  // LoRA's A is drawn: take the file's
      if (p->path().ends_with("lora_A")) p->set(file.at("lora_A"));
  }
  auto optimizer =
      std::make_shared<optim::AdamW>(model.trainable_parameters(), optim::AdamWOptions{.lr = 1e-4, .weight_decay = 0});
  return {[=](std::int64_t i) {
    const Tensor hidden = training->model.bert(training->data.tokens(i)).hidden;
    return training->update(*optimizer, training->model.logits(hidden), i);
  }};
}

}  // namespace bench
