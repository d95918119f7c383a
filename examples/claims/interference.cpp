// Claim: forgetting is gradient interference, the step that helps the new text hurts the old one. While a small GPT is
// fine-tuned on a technical manual, what is the cosine between the gradients of general and of technical text, part by
// part, and does the general loss rise where it is negative? Run: build/release/examples/claims/interference --text DIR
// [--help], where DIR is what examples/get_text.sh prepares.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "setting.h"

using namespace stet;
using namespace stet::continual;

namespace {

std::int64_t gradient_windows(const Arguments& arguments) { return arguments.quick ? 8 : 96; }

std::vector<int> stops(int steps) {
  std::vector<int> out;
  for (const double share : {0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0}) {
    const int at = static_cast<int>(std::lround(share * steps));
    if (out.empty() || at > out.back()) out.push_back(at);
  }
  return out;
}

std::vector<std::string> parts(std::int64_t blocks) {
  std::vector<std::string> out{"transformer.wte.*", "transformer.wpe.*"};
  for (std::int64_t i = 0; i < blocks; ++i) out.push_back("transformer.h." + std::to_string(i) + ".*");
  out.push_back("transformer.ln_f.*");
  out.push_back("*");
  return out;
}

/// What is known at one stop of one seed.
struct Stop {
  Losses losses;
  std::vector<double> cosine;  // of each part
  double first_order = 0;      // rise until the next stop that the general gradient here predicts: g . (change)
};

std::vector<Tensor> gradient(nn::Gpt2& model, const Tensor& windows) {
  const nn::EvalScope evaluation(model);
  std::vector<Tensor> values;
  for (const nn::Parameter* p : model.parameters()) values.push_back(p->value());
  return grad(nn::next_token_loss(model(windows), windows), values);
}

/// Measures a model at some steps of its training.
class Watch {
 public:
  Watch(nn::Gpt2& model, const Corpora& texts, std::vector<int> at, std::int64_t windows)
      : model_(model), texts_(texts), at_(std::move(at)), parts_(parts(model.config().n_layer)) {
    old_ = data::even_byte_windows(texts.general.train, windows, kLength);
    new_ = data::even_byte_windows(texts.domain.train, windows, kLength);
    look();
  }
  void stepped() {
    ++step_;
    if (std::find(at_.begin(), at_.end(), step_) != at_.end()) look();
  }
  std::vector<Stop> stops;

 private:
  void look() {
    const auto parameters = model_.parameters();
    if (!stops.empty())  // the way from the last stop, along the general gradient there
      for (std::size_t i = 0; i < parameters.size(); ++i)
        stops.back().first_order += sum(general_[i] * (parameters[i]->value().detach() - start_[i])).item();
    general_ = gradient(model_, old_);
    const auto domain = gradient(model_, new_);
    Stop now{measure(model_, texts_), {}, 0};
    for (const auto& glob : parts_) {
      std::vector<Tensor> a, b;
      for (std::size_t i = 0; i < parameters.size(); ++i)
        if (nn::glob_match(glob, parameters[i]->path())) a.push_back(general_[i]), b.push_back(domain[i]);
      now.cosine.push_back(gradient_cosine(a, b));
    }
    start_.clear();
    for (const nn::Parameter* p : parameters) start_.push_back(p->value().detach().clone());
    stops.push_back(std::move(now));
  }

  nn::Gpt2& model_;
  const Corpora& texts_;
  std::vector<int> at_;
  std::vector<std::string> parts_;
  Tensor old_, new_;
  int step_ = 0;
  std::vector<Tensor> general_, start_;
};

using Seeds = std::vector<std::vector<Stop>>;  // [seed][stop]

/// One number of each seed.
template <class F> std::vector<double> each(const Seeds& seeds, const F& of) {
  std::vector<double> out;
  for (const auto& seed : seeds) out.push_back(of(seed));
  return out;
}

double rise(const std::vector<Stop>& s, std::size_t i) { return s[i + 1].losses.general - s[i].losses.general; }

/// NaN below three points: a line goes through any two.
double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  if (x.size() < 3) return std::numeric_limits<double>::quiet_NaN();
  const Spread a = spread_of(x), b = spread_of(y);
  double product = 0;
  for (std::size_t i = 0; i < x.size(); ++i) product += (x[i] - a.mean) * (y[i] - b.mean);
  return product / (static_cast<double>(x.size() - 1) * a.deviation * b.deviation);
}

void print_stops(const Seeds& seeds, const std::vector<int>& at) {
  Table table({"steps", "general loss rises by", "a step, x 1000", "g · change", "cosine", "lowest of a part"});
  for (std::size_t i = 0; i + 1 < at.size(); ++i) {
    const double steps = at[i + 1] - at[i];
    const auto lowest = [&](const auto& s) { return *std::min_element(s[i].cosine.begin(), s[i].cosine.end() - 1); };
    table.add({std::to_string(at[i]) + " to " + std::to_string(at[i + 1]),
               cell(each(seeds, [&](const auto& s) { return rise(s, i); })),
               cell(each(seeds, [&](const auto& s) { return 1000 * rise(s, i) / steps; }), 2),
               cell(each(seeds, [&](const auto& s) { return s[i].first_order; })),
               cell(each(seeds, [&](const auto& s) { return s[i].cosine.back(); })), cell(each(seeds, lowest))});
  }
  table.print();
}

void print_parts(const Seeds& seeds, const std::vector<std::string>& names, std::size_t stops) {
  Table table({"part", "cosine before the first step", "mean over fine-tuning", "intervals below 0"});
  for (std::size_t p = 0; p < names.size(); ++p) {
    const auto mean = [&](const auto& s) {
      double total = 0;
      for (std::size_t i = 0; i < stops; ++i) total += s[i].cosine[p] / static_cast<double>(stops);
      return total;
    };
    const auto below = [&](const auto& s) {
      return static_cast<double>(
          std::count_if(s.begin(), s.end() - 1, [&](const Stop& stop) { return stop.cosine[p] < 0; }));
    };
    table.add({names[p] == "*" ? "all" : names[p], cell(each(seeds, [&](const auto& s) { return s[0].cosine[p]; })),
               cell(each(seeds, mean)),
               number(mean_of(each(seeds, below)), 1, false) + " of " + std::to_string(stops)});
  }
  table.print();
}

void conclude(const Seeds& seeds, const std::vector<int>& at) {
  double rises = 0, negative = 0;
  std::vector<double> related, predicted;
  for (const auto& s : seeds) {
    std::vector<double> cosine, slope, first, actual;
    for (std::size_t i = 0; i + 1 < at.size(); ++i) {
      const bool up = rise(s, i) > 0;
      rises += up;
      negative += up && s[i].cosine.back() < 0;
      cosine.push_back(s[i].cosine.back());
      slope.push_back(rise(s, i) / (at[i + 1] - at[i]));
      first.push_back(s[i].first_order);
      actual.push_back(rise(s, i));
    }
    related.push_back(correlation(cosine, slope));
    predicted.push_back(correlation(first, actual));
  }
  std::printf(
      "The general loss rises in %.0f intervals of all seeds, in %.0f of them the cosine at their start is "
      "negative: that forgetting needs opposed gradients %s here.\n",
      rises, negative, negative > 0.8 * rises ? "shows" : "does not show");
  std::vector<double> opposed;
  for (const double r : related) opposed.push_back(-r);
  const char* verdict = clearly_positive(opposed) ? "forgetting is faster where gradients agree less"
                                                  : "forgetting is not clearly faster where gradients agree less";
  std::printf("Between cosine and rise a step the correlation over intervals is %s: %s.\n", cell(related, 2).c_str(),
              at.size() < 4 ? "fewer than three have none" : verdict);
  std::printf("The first-order rise g · change, along what was really done, has a correlation of %s with the rise.\n",
              cell(predicted, 2).c_str());
}

void compare(const Arguments& arguments) {
  const std::string general = "general_fortunes", domain = "technical_manual";
  const Corpora texts = read_texts(arguments.text, general, domain);
  const auto at = stops(arguments.steps);
  Seeds seeds;
  StepCounter counter(static_cast<double>(arguments.seeds) * (arguments.pretrain + arguments.steps));
  each_pretrained(arguments, texts.general, counter, [&](nn::Gpt2& model, std::uint64_t seed) {
    Watch watch(model, texts, at, gradient_windows(arguments));
    const auto count = counter.of("seed " + std::to_string(seed) + ", fine-tuning");
    fine_tune(model, {.name = "full", .strength = ""}, texts, arguments, seed, {}, [&] {
      count();
      watch.stepped();
    });
    seeds.push_back(std::move(watch.stops));
  });
  std::printf(
      "Pretrained on %s, fine-tuned on %s, full, lr 1e-3 after 20 steps of warm-up; mean ± deviation over seeds 1 to "
      "%d.\nCosine: between the gradients of %lld windows of general and of domain text, at the start of the "
      "interval.\n"
      "g · change: the general gradient at the start times the change of the weights until the end, the rise to first "
      "order.\n\n",
      general.c_str(), domain.c_str(), arguments.seeds, static_cast<long long>(gradient_windows(arguments)));
  print_stops(seeds, at);
  print_parts(seeds, parts(small_gpt(arguments).n_layer), at.size() - 1);
  if (enough_seeds(arguments)) conclude(seeds, at);
}

}  // namespace

int main(int count, char** words) {
  return run_claim(count, words, "Gradients of old and new text during fine-tuning, against forgetting.", true,
                   compare);
}
