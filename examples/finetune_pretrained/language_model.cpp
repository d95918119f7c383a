// What differs between the families is their configuration's names.
#include "language_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

using namespace stet;

LanguageModel::LanguageModel(const std::filesystem::path& path) : pretrained(nn::load_pretrained(path)) {
  if (auto* gpt2 = std::get_if<std::unique_ptr<nn::Gpt2>>(&pretrained.model)) {
    const nn::Gpt2Config& c = (*gpt2)->config();
    take(**gpt2, c.n_layer, c.n_positions, c.vocab_size, "transformer.h.");
  } else if (auto* llama = std::get_if<std::unique_ptr<nn::Llama>>(&pretrained.model)) {
    const nn::LlamaConfig& c = (*llama)->config();
    take(**llama, c.num_hidden_layers, c.max_position_embeddings, c.vocab_size, "model.layers.");
  } else {
    fail("finetune_pretrained", path.string(), ": a ", pretrained.model_type, " model predicts no next token");
  }
}

template <class M>
void LanguageModel::take(M& model, std::int64_t count, std::int64_t longest, std::int64_t tokens, std::string path) {
  forward = [&model](const Tensor& ids) { return model(ids); };
  blocks = count;
  positions = longest;
  vocabulary = tokens;
  stack = std::move(path);
}

TokenText read_text(const std::filesystem::path& path, const data::Tokenizer& tokenizer, std::int64_t windows,
                    std::int64_t length, std::int64_t vocabulary) {
  const data::Text text = data::load_text(path);
  const data::EncodeOptions plain{.add_special_tokens = false, .parse_special_tokens = false};
  TokenText out;
  out.train = tokenizer.encode(text.train, plain);
  const std::vector<std::int64_t> held_out = tokenizer.encode(text.held_out, plain);
  for (const auto& [part, name] : {std::pair(&std::as_const(out.train), "the part to learn from"),
                                   std::pair(&held_out, "the tenth at its end that is held out")}) {
    check(std::ssize(*part) >= length, "finetune_pretrained", path.string(), ": ", name, " has ", part->size(),
          " tokens, expected ", length, " at least, one sequence (--length)");
    const std::int64_t most = *std::max_element(part->begin(), part->end());
    check(most < vocabulary, "finetune_pretrained", path.string(), ": the tokenizer made id ", most,
          ", the model knows ", vocabulary);
  }
  out.held_out_tokens = std::ssize(held_out);
  const std::int64_t apart = out.held_out_tokens / length;
  out.held_out = data::even_token_windows(held_out, std::min(windows, apart), length);
  return out;
}

std::vector<double> losses_on(const LanguageModel& model, const Tensor& windows, std::int64_t batch) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model.module());
  std::vector<double> out;
  for (std::int64_t at = 0, all = windows.shape()[0]; at < all; at += batch) {
    const Tensor part = contiguous(slice(windows, 0, at, std::min(at + batch, all)));
    const Tensor each = nn::next_token_loss(model.forward(part), part, {.reduction = nn::Reduction::none});
    const Tensor of_window = to(cast(mean(each, {1}), DType::f64), Device::cpu());
    for (const double loss : of_window.values<double>()) out.push_back(loss);
  }
  return out;
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Change change_of(const std::vector<double>& before, const std::vector<double>& after) {
  std::vector<double> changes;
  for (std::size_t i = 0; i < before.size(); ++i) changes.push_back(after[i] - before[i]);
  const double mean = mean_of(changes), n = static_cast<double>(changes.size());
  double squares = 0;
  for (const double c : changes) squares += (c - mean) * (c - mean);
  return {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN()};
}
