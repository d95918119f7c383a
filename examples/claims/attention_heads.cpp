// Claim: fine-tuning on technical text changes what attention heads look at in conversation. A small GPT learns
// conversational text, then a technical manual, or, as the control, as many steps more of the first text. How widely
// (entropy) and how far back (distance) does each head look in conversational text, before and after? Run:
// build/release/examples/claims/attention_heads --text DIR [--help], where DIR is what examples/get_text.sh prepares.
#include <cmath>
#include <cstdio>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

/// Of each head, layer after layer: [head].
struct Heads {
  std::vector<double> entropy, distance;
};

Heads look(nn::Gpt2& model, const Tensor& windows) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model);
  std::vector<Tensor> attentions;
  model(windows, {.attentions = &attentions});
  Heads out;
  for (const Tensor& p : attentions) {
    const auto entropy = attention_entropy(p).to_vector<double>(), distance = attention_distance(p).to_vector<double>();
    out.entropy.insert(out.entropy.end(), entropy.begin(), entropy.end());
    out.distance.insert(out.distance.end(), distance.begin(), distance.end());
  }
  return out;
}

/// One number of a head, at the three checkpoints, of each seed.
struct Measure {
  std::vector<std::vector<double>> before, technical, general;  // [seed][head]

  std::vector<double> start(std::size_t head) const { return column(before, head); }
  std::vector<double> change(std::size_t head, bool domain) const {
    return minus(column(domain ? technical : general, head), start(head));
  }
  /// Mean size of the change over heads `from` to `to`, of each seed.
  std::vector<double> size(std::size_t from, std::size_t to, bool domain) const {
    std::vector<double> out(before.size());
    for (std::size_t head = from; head < to; ++head) {
      const auto moved = change(head, domain);
      for (std::size_t s = 0; s < out.size(); ++s) out[s] += std::abs(moved[s]) / static_cast<double>(to - from);
    }
    return out;
  }

 private:
  static std::vector<double> column(const std::vector<std::vector<double>>& rows, std::size_t head) {
    std::vector<double> out;
    for (const auto& row : rows) out.push_back(row[head]);
    return out;
  }
};

void note(Measure& entropy, Measure& distance, std::vector<std::vector<double>> Measure::*when, const Heads& heads) {
  (entropy.*when).push_back(heads.entropy);
  (distance.*when).push_back(heads.distance);
}

/// Of the first seed alone: a head of one model has nothing to do with the head of that number in another.
void print_heads(const Measure& entropy, const Measure& distance, std::size_t heads, std::size_t layers) {
  Table table(
      {"seed 1, layer.head", "entropy before", "technical", "general", "distance before", "technical", "general"});
  for (std::size_t h = 0; h < heads * layers; ++h)
    table.add({std::to_string(h / heads) + "." + std::to_string(h % heads), number(entropy.start(h)[0], 2, false),
               number(entropy.change(h, true)[0], 2), number(entropy.change(h, false)[0], 2),
               number(distance.start(h)[0], 1, false), number(distance.change(h, true)[0], 1),
               number(distance.change(h, false)[0], 1)});
  table.print();
}

void print_layers(const Measure& entropy, const Measure& distance, std::size_t heads, std::size_t layers) {
  Table table({"size of the change, mean of heads", "entropy: technical", "general", "distance: technical", "general"});
  for (std::size_t l = 0; l <= layers; ++l) {
    const std::size_t from = l < layers ? l * heads : 0, to = l < layers ? from + heads : heads * layers;
    table.add({l < layers ? "layer " + std::to_string(l) : "all", cell(entropy.size(from, to, true), 3, false),
               cell(entropy.size(from, to, false), 3, false), cell(distance.size(from, to, true), 2, false),
               cell(distance.size(from, to, false), 2, false)});
  }
  table.print();
}

void conclude(const std::string& what, const Measure& m, std::size_t all) {
  const auto technical = m.size(0, all, true), general = m.size(0, all, false);
  const bool more = clearly_positive(minus(technical, general));
  std::vector<double> signed_change(technical.size());
  for (std::size_t h = 0; h < all; ++h)
    for (std::size_t s = 0; s < signed_change.size(); ++s)
      signed_change[s] += m.change(h, true)[s] / static_cast<double>(all);
  std::vector<double> fall = signed_change;
  for (double& value : fall) value = -value;
  std::printf(
      "The %s of heads on conversational text changes %s after technical fine-tuning (%s) than after as much more "
      "general training (%s)%s; on the whole it %s (%s).\n",
      what.c_str(), more ? "more" : "not clearly more", cell(technical, 3, false).c_str(),
      cell(general, 3, false).c_str(), more ? "" : ": that heads are changed by it does not show here",
      clearly_positive(fall)            ? "falls"
      : clearly_positive(signed_change) ? "grows"
                                        : "moves in no clear direction",
      cell(signed_change).c_str());
}

void compare(const Arguments& arguments) {
  const std::string general = "general_fortunes", domain = "technical_manual";
  const Corpora texts = read_texts(arguments.text, general, domain);
  Corpora more = texts;  // the control: as many steps more of the first text
  more.domain = texts.general;
  Measure entropy, distance;
  std::vector<double> forgotten, drifted;
  StepCounter counter(static_cast<double>(arguments.seeds) * (arguments.pretrain + 2 * arguments.steps));
  each_pretrained(arguments, texts.general, counter, [&](nn::Gpt2& model, std::uint64_t seed) {
    const nn::State start = model.state();
    const Losses before = measure(model, texts);
    note(entropy, distance, &Measure::before, look(model, texts.general_windows));
    const auto count = counter.of("seed " + std::to_string(seed) + ", fine-tuning");
    const Method full{.name = "full", .strength = ""};
    forgotten.push_back(fine_tune(model, full, texts, arguments, seed, {}, count).general - before.general);
    note(entropy, distance, &Measure::technical, look(model, texts.general_windows));
    model.load(start);
    drifted.push_back(fine_tune(model, full, more, arguments, seed, {}, count).general - before.general);
    note(entropy, distance, &Measure::general, look(model, texts.general_windows));
  });
  const nn::Gpt2Config config = small_gpt(arguments);
  const auto heads = static_cast<std::size_t>(config.n_head), layers = static_cast<std::size_t>(config.n_layer);
  std::printf(
      "Pretrained on %s, then %d steps of %s, or of the first text again; full, lr 1e-3; mean ± deviation over seeds 1 "
      "to %d.\nOn held-out %s: entropy in nats, distance in bytes. General loss %s after technical text, %s after "
      "more of the first.\n\n",
      general.c_str(), arguments.steps, domain.c_str(), arguments.seeds, general.c_str(), cell(forgotten).c_str(),
      cell(drifted).c_str());
  print_heads(entropy, distance, heads, layers);
  print_layers(entropy, distance, heads, layers);
  if (!enough_seeds(arguments)) return;
  conclude("entropy", entropy, heads * layers);
  conclude("distance", distance, heads * layers);
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "What attention heads look at, before and after fine-tuning.", true, compare);
}
