// Text from a language model, token by token.
#pragma once

#include <functional>
#include <span>

#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>

namespace stet::nn {

struct GenerateOptions {
  std::int64_t max_new_tokens = 100;
  double temperature = 0;                      ///< divides the logits; 0: the most probable token (the first of equals)
  std::int64_t top_k = 0;                      ///< draws from the k most probable alone; 0: from all
  double top_p = 1;                            ///< then from the fewest whose probabilities add up to p (Holtzman 2020)
  std::int64_t vocab_size = 0;                 ///< draws ids below it alone, not rows of padding; 0: all rows
  std::vector<std::int64_t> stop_tokens = {};  ///< ends before one of these
  std::uint64_t seed = Generator::default_seed;
  std::function<bool(std::int64_t token)> on_token = {};  ///< sees each token as it comes; false ends
};

/// The tokens that follow the prompt, at most max_new_tokens. Runs in evaluation mode and without a graph, with keys
/// and values cached; the modules' modes are put back. Throws an Error for an empty prompt, ids outside the vocabulary,
/// prompt and max_new_tokens beyond the model's positions, and options out of range.
std::vector<std::int64_t> generate(Gpt2& model, std::span<const std::int64_t> prompt,
                                   const GenerateOptions& options = {});
std::vector<std::int64_t> generate(Llama& model, std::span<const std::int64_t> prompt,
                                   const GenerateOptions& options = {});

/// One token by the options' temperature, top_k, top_p and seed; draw `number` is a function of these alone. Throws
/// an Error where a logit is NaN or +infinity, or all are -infinity.
std::int64_t sample_token(std::span<const double> logits, const GenerateOptions& options, std::uint64_t number);

}  // namespace stet::nn
