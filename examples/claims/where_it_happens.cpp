// Claim: forgetting is not a matter of the last layer alone. A small GPT learns general prose, then a technical manual.
// How far has each part's weights moved, how much have the activations behind it changed on general text, and how much
// of what was forgotten comes back when this part alone is put back to its pretrained weights? Run:
// build/release/examples/claims/where_it_happens --text DIR [--help], where DIR is what examples/get_text.sh prepares.
#include <algorithm>
#include <cstdio>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

/// Parameters that are put back together, and which hidden state they make (none: -1).
struct Part {
  std::string name, glob;
  int hidden;
  std::vector<double> drift, cka, undone, alone, kept;  // of each seed; the last three are shares in percent
};

std::vector<Part> parts(std::int64_t blocks) {
  std::vector<Part> out{{"token embedding and output", "transformer.wte.*", 0, {}, {}, {}, {}, {}},
                        {"position embedding", "transformer.wpe.*", 0, {}, {}, {}, {}, {}}};
  for (std::int64_t i = 0; i < blocks; ++i)
    out.push_back({"block " + std::to_string(i),
                   "transformer.h." + std::to_string(i) + ".*",
                   static_cast<int>(i + 1),
                   {},
                   {},
                   {},
                   {},
                   {}});
  out.push_back({"final norm", "transformer.ln_f.*", -1, {}, {}, {}, {}, {}});
  return out;
}

/// `into` with the weights of one part taken from `from`.
nn::State with(const nn::State& into, const nn::State& from, const std::string& glob) {
  nn::State out = into;
  for (auto& [name, value] : out)
    if (nn::glob_match(glob, name)) value = from.at(name);
  return out;
}

/// What goes into the first block and what each block gives, a row for each token of the windows.
std::vector<Tensor> hidden_states(nn::Gpt2& model, const Tensor& windows) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model);
  std::vector<Tensor> out;
  model(windows, {.hidden_states = &out});
  for (Tensor& h : out) h = reshape(h, {-1, h.shape()[2]});
  return out;
}

std::vector<Part> look(const Arguments& arguments, const Corpora& texts, std::vector<double>& learned,
                       std::vector<double>& forgotten) {
  std::vector<Part> out = parts(small_gpt(arguments).n_layer);
  StepCounter counter(static_cast<double>(arguments.seeds) * (arguments.pretrain + arguments.steps));
  each_pretrained(arguments, texts.general, counter, [&](nn::Gpt2& model, std::uint64_t seed) {
    const nn::State before = model.state();
    const Losses first = measure(model, texts);
    const auto seen_before = hidden_states(model, texts.general_windows);
    const Losses last = fine_tune(model, {.name = "full", .strength = ""}, texts, arguments, seed, {},
                                  counter.of("seed " + std::to_string(seed) + ", fine-tuning"));
    const nn::State after = model.state();
    const auto seen_after = hidden_states(model, texts.general_windows);
    const double rise = last.general - first.general, gain = first.domain - last.domain;
    learned.push_back(gain);
    forgotten.push_back(rise);
    for (Part& part : out) {
      part.drift.push_back(100 * weight_drift(before, after, part.glob));
      const auto h = static_cast<std::size_t>(std::max(part.hidden, 0));
      if (part.hidden >= 0) part.cka.push_back(linear_cka(seen_before[h], seen_after[h]));
      model.load(with(after, before, part.glob));
      const Losses back = measure(model, texts);
      part.undone.push_back(100 * (last.general - back.general) / rise);
      part.kept.push_back(100 * (first.domain - back.domain) / gain);
      model.load(with(before, after, part.glob));
      part.alone.push_back(100 * (measure(model, texts).general - first.general) / rise);
    }
  });
  return out;
}

void conclude(const std::vector<Part>& all, const std::vector<double>& forgotten) {
  if (!clearly_positive(forgotten)) {
    std::printf("The general loss does not clearly rise here: there is no forgetting to look for.\n");
    return;
  }
  const auto undone = [](const Part& a, const Part& b) { return mean_of(a.undone) < mean_of(b.undone); };
  const Part& top = *std::max_element(all.begin(), all.end(), undone);
  const Part& last = all[all.size() - 2];
  // The token embedding does not count as a part before the last: its table is the output's, too.
  const bool early =
      std::any_of(all.begin() + 1, all.end() - 2, [](const Part& p) { return clearly_positive(p.undone); });
  std::printf("Putting the last block back undoes %.0f %% of the forgetting, %s (%s) the most, %.0f %%. ",
              mean_of(last.undone), top.name == last.name ? "which is" : "another part", top.name.c_str(),
              mean_of(top.undone));
  std::printf(mean_of(last.undone) < 50 && early ? "Forgetting is not in the last layer alone: most of it is left, and "
                                                   "parts before it carry some of their own.\n"
                                                 : "That forgetting lies outside the last layer does not show here.\n");
  const auto cka = [](const Part& a, const Part& b) {
    return (a.cka.empty() ? 2 : mean_of(a.cka)) < (b.cka.empty() ? 2 : mean_of(b.cka));
  };
  const Part& changed = *std::min_element(all.begin(), all.end(), cka);
  std::printf("Activations on general text changed most behind %s (CKA %.3f).\n", changed.name.c_str(),
              mean_of(changed.cka));
}

void compare(const Arguments& arguments) {
  const std::string general = "general_fortunes", domain = "technical_manual";
  const Corpora texts = read_texts(arguments.text, general, domain);
  std::vector<double> learned, forgotten;
  const auto all = look(arguments, texts, learned, forgotten);
  std::printf(
      "Pretrained on %s, fine-tuned on %s, full, lr 1e-3, %d steps; mean ± deviation over seeds 1 to %d.\nThe domain's "
      "loss falls by %s nats a byte, the general loss rises by %s: the forgetting.\n"
      "Drift: relative change of the weights. CKA: of the activations behind the part on general text, before and "
      "after.\nUndone: share of the forgetting that goes when this part alone is put back; kept: share of the gain "
      "that "
      "stays.\nAlone: share of the forgetting that is there when this part alone is fine-tuned and all others are put "
      "back.\n\n",
      general.c_str(), domain.c_str(), arguments.steps, arguments.seeds, cell(learned, 3, false).c_str(),
      cell(forgotten, 3, false).c_str());
  Table table({"part", "drift %", "CKA", "undone %", "kept %", "alone %"});
  for (const Part& p : all)
    table.add({p.name, cell(p.drift, 1, false), p.cka.empty() ? "–" : cell(p.cka, 3, false), cell(p.undone, 1),
               cell(p.kept, 1, false), cell(p.alone, 1)});
  table.print();
  if (enough_seeds(arguments)) conclude(all, forgotten);
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "Where in a model forgetting happens, part by part.", true, compare);
}
