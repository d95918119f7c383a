// Claim: fine-tuning does not have to forget; a low rate, replay or PEFT keep most of the old while most of the new is
// learned, and freezing is not the only way. A small GPT learns general prose, then a technical manual. The whole
// plane, with more methods and strengths, is finetune_domain's. Run: build/release/examples/claims/not_inevitable
// --text DIR
// [--help], where DIR is what examples/get_text.sh prepares.
#include <cstdio>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

std::vector<Method> methods() {
  return {{.name = "full, lr 1e-3", .strength = ""},
          {.name = "full, lr 3e-4", .strength = "", .rate = 3e-4},
          {.name = "full, lr 1e-4", .strength = "", .rate = 1e-4},
          {.name = "replay 10 %", .strength = "", .replay = 0.1},
          {.name = "EWC, λ 100", .strength = "", .ewc = 100},
          {.name = "LoRA r 8, lr 3e-3", .strength = "", .rate = 3e-3, .adapter = lora(8)},
          {.name = "frozen but for the top block", .strength = "", .top = 1}};
}

/// Gain kept and forgetting left, in percent of plain fine-tuning at 1e-3, seed by seed.
std::vector<double> shares(const std::vector<double>& of, const std::vector<double>& whole) {
  std::vector<double> out;
  for (std::size_t i = 0; i < of.size(); ++i) out.push_back(100 * of[i] / whole[i]);
  return out;
}

/// What lower rates alone forget where they have learned as much.
std::optional<double> by_rate(const Comparison& c, double learned) {
  TradeoffCurve curve{"rate", {{"0", {0, 0}, {0, 0}}}};  // no step: nothing learned, nothing forgotten
  for (const std::size_t i : {2u, 1u, 0u})
    curve.points.push_back({"", spread_of(c.outcomes[i].learned), spread_of(c.outcomes[i].forgotten)});
  return forgotten_at(curve, learned);
}

void conclude(const Comparison& c) {
  const Outcome &plain = c.outcomes[0], &frozen = c.outcomes.back();
  if (!clearly_positive(plain.forgotten) || !clearly_positive(plain.learned)) {
    std::printf("Plain fine-tuning does not clearly learn and forget here: nothing to compare with.\n");
    return;
  }
  std::string most, cheaper, dearer, beside;
  const auto name = [](std::string& list, const Outcome& o) { list += (list.empty() ? "" : "; ") + o.method.name; };
  for (const Outcome& o : c.outcomes) {
    const double gain = mean_of(shares(o.learned, plain.learned)), left = mean_of(shares(o.forgotten, plain.forgotten));
    if (gain >= 75 && left <= 50) name(most, o);
    const bool keeps_more = clearly_positive(minus(frozen.forgotten, o.forgotten));
    if (keeps_more && mean_of(o.learned) >= mean_of(frozen.learned)) name(beside, o);
    const auto rate = by_rate(c, mean_of(o.learned));
    if (&o - c.outcomes.data() < 3 || !rate) continue;
    name(mean_of(o.forgotten) < *rate ? cheaper : dearer, o);
  }
  std::printf("At least three quarters of the gain for at most half of the forgetting: %s.\n",
              most.empty() ? "no method, so that this does not show here" : most.c_str());
  std::printf("Less forgotten than a lower rate alone would forget at the same gain: %s. More: %s.\n",
              cheaper.empty() ? "no method" : cheaper.c_str(), dearer.empty() ? "no method" : dearer.c_str());
  std::printf("At least as much learned as with frozen blocks, and clearly less forgotten: %s.\n",
              beside.empty() ? "no method, so that another way than freezing does not show here" : beside.c_str());
}

void compare(const Arguments& arguments) {
  const std::string general = "general_fortunes", domain = "technical_manual";
  const Corpora texts = read_texts(arguments.text, general, domain);
  const Comparison c = compare_methods(arguments, texts, methods());
  std::printf(
      "Pretrained on %s, fine-tuned on %s for %d steps; held-out loss in nats a byte, mean ± deviation over seeds 1 to "
      "%d.\nBefore: general %s, domain %s. Learned: fall of the domain's loss; forgotten: rise of the general loss.\n"
      "Lower rate: what a lower learning rate alone forgets at the same gain, between the rates of the first rows.\n\n",
      general.c_str(), domain.c_str(), arguments.steps, arguments.seeds, cell(c.general, 3, false).c_str(),
      cell(c.domain, 3, false).c_str());
  Table table({"method", "learned", "forgotten", "% of the gain", "% of the forgetting", "lower rate"});
  for (const Outcome& o : c.outcomes) {
    const auto rate = by_rate(c, mean_of(o.learned));
    table.add({o.method.name, cell(o.learned), cell(o.forgotten),
               cell(shares(o.learned, c.outcomes[0].learned), 0, false),
               cell(shares(o.forgotten, c.outcomes[0].forgotten), 0, false), rate ? number(*rate) : "–"});
  }
  table.print();
  if (enough_seeds(arguments)) conclude(c);
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "Forgetting is a risk of fine-tuning, and not inevitable.", true, compare);
}
