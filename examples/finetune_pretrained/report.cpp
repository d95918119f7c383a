// Numbers for people, and the same for programs.
#include "report.h"

#include <cmath>
#include <cstdio>
#include <sstream>

#include <stet/tensor/json_file.h>

using namespace stet;

void print_sizes(const Arguments& a, const TokenText& domain, const TokenText& general) {
  const auto count = [](std::int64_t n) { return nn::with_commas(n); };
  for (const auto& [name, text] : {std::pair("domain", &domain), std::pair("general", &general)})
    std::printf("%s: %s tokens to learn from, %s held out\n", name, count(std::ssize(text->train)).c_str(),
                count(text->held_out_tokens).c_str());
  const double drawn = static_cast<double>(a.steps * a.batch * a.length) * (1 - a.replay);
  std::printf("%s steps of %s sequences are %.2g passes over the domain's\n", count(a.steps).c_str(),
              count(a.batch).c_str(), drawn / static_cast<double>(domain.train.size()));
}

void print(const Arguments& a, const Result& r) {
  std::printf(
      "nats a token on held-out text (perplexity); ±: standard error of the change, over %zu and %zu windows of %lld "
      "tokens\n",
      r.domain_before.size(), r.general_before.size(), static_cast<long long>(a.length));
  const auto row = [](const char* name, const auto& before, const auto& after, const char* word, double sign) {
    const Change change = change_of(before, after);
    std::printf("%-8s before %.4f (%.2f)   after %.4f (%.2f)   %s %+.4f", name, mean_of(before),
                std::exp(mean_of(before)), mean_of(after), std::exp(mean_of(after)), word, sign * change.mean);
    if (std::isfinite(change.error)) std::printf(" ± %.4f", change.error);
    std::printf("%s\n", change.clear() ? "" : ": not clearly");
    return change;
  };
  row("domain", r.domain_before, r.domain_after, "learned", -1);
  const Change general = row("general", r.general_before, r.general_after, "forgotten", 1);
  if (general.clear() && general.mean > 0 && a.replay == 0)
    std::printf("--replay 0.1 would mix a tenth of the general text into the training, against forgetting it\n");
}

std::string record_of(const Arguments& a, const Result& r) {
  std::ostringstream out;
  out.precision(8);
  const auto change = [&](const char* name, const auto& before, const auto& after) {
    const Change c = change_of(before, after);
    out << ",\n \"" << name << "\": {\"before\": " << mean_of(before) << ", \"after\": " << mean_of(after)
        << ", \"change\": " << c.mean << ", \"standard error\": ";
    if (std::isfinite(c.error)) out << c.error;
    else out << "null";
    out << '}';
  };
  const auto quoted = [](const std::string& text) { return stet::quoted(text, false); };
  out << "{\"model\": " << quoted(a.model) << ", \"text\": " << quoted(a.text)
      << ", \"general text\": " << quoted(a.general) << ",\n \"method\": " << quoted(a.method);
  if (a.method == "lora") out << ", \"rank\": " << a.rank << ", \"merged\": " << (a.merge ? "true" : "false");
  if (a.method == "top") out << ", \"top\": " << a.top;
  out << ", \"rate\": " << a.learning_rate() << ", \"replay\": " << a.replay << ", \"steps\": " << a.steps
      << ", \"batch\": " << a.batch << ", \"length\": " << a.length << ", \"windows\": " << a.windows
      << ", \"seed\": " << a.seed << ",\n \"unit\": \"nats a token on held-out text\"";
  change("domain", r.domain_before, r.domain_after);
  change("general", r.general_before, r.general_after);
  out << "}\n";
  return out.str();
}
