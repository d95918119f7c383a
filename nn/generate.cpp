// The loop over tokens, and the draw of one.
#include <stet/nn/generate.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

constexpr std::string_view kOp = "generate";

void check_options(const GenerateOptions& o) {
  check(o.max_new_tokens >= 0, kOp, "max_new_tokens ", o.max_new_tokens, ": expected 0 or more");
  check(o.temperature >= 0 && std::isfinite(o.temperature), kOp, "temperature ", o.temperature,
        ": expected 0 (greedy) or a positive number");
  check(o.top_k >= 0, kOp, "top_k ", o.top_k, ": expected 0 (all) or more");
  check(o.vocab_size >= 0, kOp, "vocab_size ", o.vocab_size, ": expected 0 (all) or more");
  check(o.top_p > 0 && o.top_p <= 1, kOp, "top_p ", o.top_p, ": expected a number above 0, at most 1");
}

void check_prompt(std::span<const std::int64_t> prompt, const GenerateOptions& o, std::int64_t vocabulary,
                  std::int64_t positions) {
  check(!prompt.empty(), kOp, "the prompt is empty: expected at least one token");
  for (std::size_t i = 0; i < prompt.size(); ++i)
    check(prompt[i] >= 0 && prompt[i] < vocabulary, kOp, "prompt token ", i, " is ", prompt[i], ": expected 0 to ",
          vocabulary - 1);
  check(std::ssize(prompt) <= positions && o.max_new_tokens <= positions - std::ssize(prompt), kOp, prompt.size(),
        " tokens of the prompt and ", o.max_new_tokens, " new ones: the model has ", positions, " positions");
}

template <class Model> std::vector<std::int64_t> run(Model& model, std::span<const std::int64_t> prompt,
                                                     const GenerateOptions& options, std::int64_t positions) {
  check_options(options);
  check_prompt(prompt, options, model.config().vocab_size, positions);
  const NoGrad no_grad;
  const EvalScope eval(model);
  KvCache cache;
  std::vector<std::int64_t> made, next(prompt.begin(), prompt.end());
  while (std::ssize(made) < options.max_new_tokens) {
    const Tensor tokens = to(tensor(next, {1, std::ssize(next)}), model.device());
    const Tensor logits = select(select(model(tokens, {.cache = &cache}), 0, 0), 0, -1);
    const std::int64_t token = sample_token(logits.template to_vector<double>(), options, made.size());
    const auto& stops = options.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;
    made.push_back(token);
    if (options.on_token && !options.on_token(token)) break;
    next = {token};
  }
  return made;
}

}  // namespace

std::int64_t sample_token(std::span<const double> logits, const GenerateOptions& options, std::uint64_t number) {
  check_options(options);
  check(!logits.empty(), kOp, "no logits: expected one for each token");
  if (options.vocab_size > 0 && options.vocab_size < std::ssize(logits))
    logits = logits.first(static_cast<std::size_t>(options.vocab_size));
  for (std::size_t i = 0; i < logits.size(); ++i)
    check(logits[i] < std::numeric_limits<double>::infinity(), kOp, "the logit of token ", i, " is ", logits[i],
          ": expected a finite one");
  const auto best = std::max_element(logits.begin(), logits.end());
  check(*best > -std::numeric_limits<double>::infinity(), kOp, "every logit is -infinity: expected a finite one");
  if (options.temperature == 0) return best - logits.begin();
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.top_k > 0 && options.top_k < std::ssize(order)) order.resize(static_cast<std::size_t>(options.top_k));
  std::vector<double> weights;
  for (const std::int64_t i : order)
    weights.push_back(std::exp((logits[static_cast<std::size_t>(i)] - *best) / options.temperature));
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    double kept = 0;
    std::size_t count = 0;
    while (count < weights.size() && kept < options.top_p * total) kept += weights[count++];
    weights.resize(count);
    total = kept;
  }
  double rest = uniform<double>({options.seed, number}, 0) * total;
  for (std::size_t i = 0; i < weights.size(); ++i)
    if ((rest -= weights[i]) < 0) return order[i];
  return order[weights.size() - 1];  // rounding: the draw lies at the very end
}

std::vector<std::int64_t> generate(Gpt2& model, std::span<const std::int64_t> prompt, const GenerateOptions& options) {
  return run(model, prompt, options, model.config().n_positions);
}

std::vector<std::int64_t> generate(Llama& model, std::span<const std::int64_t> prompt, const GenerateOptions& options) {
  return run(model, prompt, options, model.config().max_position_embeddings);
}

}  // namespace stet::nn
