// Training and measuring one model. The step has the learner's order: batch, forward, loss, backward, masked update.
#include "training.h"

#include <algorithm>
#include <cmath>

#include <stet/autograd/squared.h>

using namespace stet;

namespace {

double held_out_loss(nn::Gpt2& model, const Tensor& windows) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model);
  double total = 0;
  for (std::int64_t at = 0; at < windows.shape()[0]; at += 32) {
    const Tensor part = contiguous(slice(windows, 0, at, std::min(at + 32, windows.shape()[0])));
    total += nn::next_token_loss(model(part), part, {.reduction = nn::Reduction::sum}).item();
  }
  return total / static_cast<double>(windows.shape()[0] * (windows.shape()[1] - 1));
}

/// Which block a parameter belongs to: 0 .. blocks - 1; -1 for the embeddings, `blocks` for the final norm.
int depth_of(const nn::Parameter& p, int blocks) {
  const std::string path = p.path(), head = "transformer.h.";
  if (path.starts_with(head)) return std::stoi(path.substr(head.size()));
  return path.starts_with("transformer.ln_f") ? blocks : -1;
}

}  // namespace

Tensor held_out_windows(const data::Text& text, std::int64_t count) {
  return data::even_byte_windows(text.held_out, count, kLength);
}

data::Text read_text(const std::filesystem::path& folder, const std::string& name) {
  const std::filesystem::path path = folder / (name + ".txt");
  data::Text out = data::load_text(path);
  check(std::min(out.train.size(), out.held_out.size()) >= kLength, "read_text", path.string(), ": its last tenth has ",
        out.held_out.size(), " bytes, a window needs ", kLength);
  return out;
}

Corpora read_texts(const std::filesystem::path& folder, const std::string& general, const std::string& domain) {
  Corpora out{read_text(folder, general), read_text(folder, domain), {}, {}};
  out.general_windows = held_out_windows(out.general);
  out.domain_windows = held_out_windows(out.domain);
  return out;
}

continual::LoraOptions lora(std::int64_t rank) {
  return {.targets = {"transformer.h.*"}, .rank = rank, .alpha = 2 * static_cast<double>(rank)};
}

void attach(continual::Adapters& adapters, const Method& method) {
  if (!method.adapter) return;
  adapters.attach("domain", *method.adapter);
  adapters.freeze_base();
}

Losses measure(nn::Gpt2& model, const Corpora& texts, bool others) {
  Losses out{held_out_loss(model, texts.general_windows), held_out_loss(model, texts.domain_windows)};
  if (others)
    for (const Tensor& windows : texts.other_windows) out.others.push_back(held_out_loss(model, windows));
  return out;
}

nn::State sampled_fisher(nn::Gpt2& model, const std::string& text, std::int64_t sequences, Generator& generator) {
  const nn::EvalScope evaluation(model);
  std::vector<Tensor> values, total;
  for (const nn::Parameter* p : model.parameters()) values.push_back(p->value());
  for (std::int64_t done = 0; done < sequences; done += 10) {
    const Tensor tokens = data::random_byte_windows(text, 10, kLength, generator), logits = model(tokens);
    Tensor labels;
    {
      const NoGrad no_grad;  // Gumbel: the largest of logits + noise is a draw from their softmax
      labels = argmax(logits - log(-log(clamp(rand(logits.shape(), generator), 1e-12, 1 - 1e-7))), -1);
      labels = cat({slice(tokens, 1, 0, 1), slice(labels, 1, 0, kLength - 1)}, 1);
    }
    const Tensor losses = sum(nn::next_token_loss(logits, labels, {.reduction = nn::Reduction::none}), {1});
    const auto part = squared_gradients(losses, values);
    for (std::size_t i = 0; i < part.size(); ++i)
      if (done == 0) total.push_back(part[i]);
      else total[i] = total[i] + part[i];
  }
  nn::State out;
  const auto parameters = model.parameters();
  const double scale = 1.0 / static_cast<double>(sequences * kLength);
  for (std::size_t i = 0; i < parameters.size(); ++i) out[parameters[i]->path()] = total[i] * scale;
  return out;
}

/// AdamW without decay, 20 steps of warm-up, a cosine to a tenth, gradients clipped at norm 1.
void train(nn::Gpt2& model, const Method& method, const std::string& text, const std::string& old, int steps,
           std::uint64_t seed, const nn::State& importance, const std::function<void(int)>& report) {
  const int blocks = static_cast<int>(model.config().n_layer);
  std::vector<optim::Group<optim::AdamWOptions>> groups;
  for (nn::Parameter* p : model.parameters()) {
    const int depth = depth_of(*p, blocks);
    if (!method.adapter) p->set_trainable(method.top == 0 || depth >= blocks - method.top);
    if (!p->trainable()) continue;
    groups.push_back({{p}, {.lr = method.rate * std::pow(method.decay, blocks - depth), .weight_decay = 0}});
  }
  optim::AdamW optimizer(groups);
  optimizer.clip_norm(1);
  optimizer.set_schedule(optim::warmup_schedule(20, optim::cosine_schedule(std::max(1, steps - 20), 0.1)));
  const nn::State start = model.state();
  if (method.l2 > 0) optimizer.set_penalty("l2-sp", {method.l2, {}, start});
  if (method.ewc > 0) optimizer.set_penalty("ewc", {method.ewc, importance, start});
  Generator windows = Generator(seed).fork("windows"), share = Generator(seed).fork("replay");
  for (int step = 0; step < steps; ++step) {
    std::int64_t again = 0;  // sequences of this batch that are replayed
    const RandomKey key = share.next();
    for (std::uint64_t i = 0; i < kBatch; ++i)
      again += randint(key, i, 0, 1000) < static_cast<std::int64_t>(1000 * method.replay);
    Tensor tokens = data::random_byte_windows(again == kBatch ? old : text, kBatch, kLength, windows);
    if (again > 0 && again < kBatch)
      tokens = cat({slice(tokens, 0, again, kBatch), data::random_byte_windows(old, again, kLength, windows)}, 0);
    optimizer.zero_grad();
    const Tensor loss = nn::next_token_loss(model(tokens), tokens);
    loss.backward();
    optimizer.step();
    continual::check_loss(loss.item(), "train", method.name, ' ', method.strength, ", step ", step + 1);
    report(step + 1);
  }
}

void blend(nn::Gpt2& model, const nn::State& from, const nn::State& to, double part) {
  nn::State mixed = from;
  for (auto& [name, value] : mixed) value = value + (to.at(name) - value) * part;
  model.load(mixed);
}
