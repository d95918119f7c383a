// Claim: a model that knows French and then learns Japanese loses its French, unless something is done about it. A
// small byte-level GPT learns French manual pages, then Japanese ones. Run: build/release/examples/claims/polyglot
// --text DIR
// [--help], where DIR is what examples/get_text.sh prepares.
#include <cmath>
#include <cstdio>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

std::vector<Method> methods() {
  return {{.name = "full, lr 1e-3", .strength = ""},
          {.name = "full, lr 1e-4", .strength = "", .rate = 1e-4},
          {.name = "replay of 10 % French", .strength = "", .replay = 0.1},
          {.name = "LoRA r 8, lr 3e-3", .strength = "", .rate = 3e-3, .adapter = lora(8)}};
}

void conclude(const Comparison& c) {
  const Outcome& plain = c.outcomes[0];
  std::vector<double> left;
  for (std::size_t i = 0; i < c.general.size(); ++i) {
    const double unknown = std::log(256.0) - c.general[i];  // to equal chances for all bytes
    left.push_back(100 * plain.forgotten[i] / unknown);
  }
  std::printf(
      "Learning Japanese %s French: the loss rises by %s nats a byte, %s %% of the way to ln 256, a model that knows "
      "nothing.\n",
      clearly_positive(plain.forgotten) ? "costs" : "does not clearly cost", cell(plain.forgotten).c_str(),
      cell(left, 0, false).c_str());
  for (std::size_t i = 1; i < c.outcomes.size(); ++i) {
    const Outcome& o = c.outcomes[i];
    const bool keeps = clearly_positive(minus(plain.forgotten, o.forgotten));
    std::printf("%s: %.0f %% of the forgetting for %.0f %% of the gain%s.\n", o.method.name.c_str(),
                100 * mean_of(o.forgotten) / mean_of(plain.forgotten),
                100 * mean_of(o.learned) / mean_of(plain.learned),
                keeps ? "" : ", which is not clearly less than plain fine-tuning forgets");
    for (const Outcome& other : c.outcomes)
      if (mean_of(other.learned) >= mean_of(o.learned) && clearly_positive(minus(o.forgotten, other.forgotten)))
        std::printf("  At no less gain, '%s' forgets clearly less.\n", other.method.name.c_str());
  }
}

void compare(const Arguments& arguments) {
  const Corpora texts = read_texts(arguments.text, "french_manual", "japanese_manual");
  const Comparison c = compare_methods(arguments, texts, methods());
  std::printf(
      "Pretrained on french_manual, fine-tuned on japanese_manual for %d steps; held-out loss in nats a byte, mean ± "
      "deviation over seeds 1 to %d.\nBefore: French %s, Japanese %s.\n\n",
      arguments.steps, arguments.seeds, cell(c.general, 3, false).c_str(), cell(c.domain, 3, false).c_str());
  Table table({"method", "French after", "rise: forgotten", "Japanese after", "fall: learned"});
  for (const Outcome& o : c.outcomes) {
    std::vector<double> french, japanese = minus(c.domain, o.learned);
    for (std::size_t i = 0; i < c.general.size(); ++i) french.push_back(c.general[i] + o.forgotten[i]);
    table.add({o.method.name, cell(french, 3, false), cell(o.forgotten), cell(japanese, 3, false), cell(o.learned)});
  }
  table.print();
  if (enough_seeds(arguments)) conclude(c);
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "French, then Japanese: is the French overwritten?", true, compare);
}
