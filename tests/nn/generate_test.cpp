// Generation: the cache changes nothing, options mean what they say, draws follow their probabilities.
#include <algorithm>
#include <cmath>
#include <set>

#include <stet/autograd/ops.h>
#include <stet/nn/generate.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/models.h"

using namespace stet;
using test::message_of;
using Ids = std::vector<std::int64_t>;

namespace {

const Ids kPrompt{3, 1, 4, 1, 5};

/// Weights large enough that a greedy text wanders.
template <class Config> Config wild(Config config) {
  config.initializer_range = 0.5;
  return config;
}
nn::Gpt2Config gpt2() { return wild(test::small_gpt2()); }
nn::LlamaConfig llama() { return wild(test::small_llama()); }

/// The whole text again for each token.
template <class Model> Ids without_cache(Model& model, Ids tokens, int count) {
  const NoGrad no_grad;
  const nn::EvalScope eval(model);
  for (int i = 0; i < count; ++i) {
    const Tensor input = to(tensor(tokens, {1, std::ssize(tokens)}), default_device());
    const auto logits = select(select(model(input), 0, 0), 0, -1).template to_vector<double>();
    tokens.push_back(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  return Ids(tokens.end() - count, tokens.end());
}

template <class Model> void check_greedy(Model&& model) {
  const Ids greedy = nn::generate(model, kPrompt, {.max_new_tokens = 35});
  CHECK(greedy == without_cache(model, kPrompt, 35));
  CHECK(std::set<std::int64_t>(greedy.begin(), greedy.end()).size() > 3);  // not one token over and over
  CHECK(nn::generate(model, kPrompt, {.max_new_tokens = 35, .temperature = 1, .top_k = 1}) == greedy);
  CHECK(nn::generate(model, kPrompt, {.max_new_tokens = 35, .temperature = 1, .top_p = 1e-9}) == greedy);
  CHECK(model.is_training());
}

}  // namespace

TEST_CASE("Greedy generation with a cache is that without; so are top_k 1 and a tiny top_p") {
  manual_seed(31);  // whatever tests have drawn before
  check_greedy(nn::Gpt2(gpt2()));
  check_greedy(nn::Llama(llama()));
}

TEST_CASE("A seed repeats its text, another gives another") {
  nn::Llama model(llama());
  const auto with = [&](std::uint64_t seed) {
    return nn::generate(model, kPrompt, {.max_new_tokens = 30, .temperature = 2, .seed = seed});
  };
  CHECK(with(1) == with(1));
  CHECK(with(1) != with(2));
}

TEST_CASE("Each token is a draw of its own, from what the model gives in evaluation mode") {
  nn::Gpt2 model(wild(test::small_gpt2(0.5)));
  const nn::GenerateOptions options{.max_new_tokens = 20, .temperature = 2, .seed = 5};
  const Ids made = nn::generate(model, kPrompt, options);
  const NoGrad no_grad;
  const nn::EvalScope eval(model);
  Ids tokens = kPrompt;
  for (std::uint64_t number = 0; number < 20; ++number) {
    const Tensor input = to(tensor(tokens, {1, std::ssize(tokens)}), default_device());
    const Tensor logits = select(select(model(input), 0, 0), 0, -1);
    tokens.push_back(nn::sample_token(logits.to_vector<double>(), options, number));
  }
  CHECK(made == Ids(tokens.begin() + std::ssize(kPrompt), tokens.end()));
}

TEST_CASE("Generation ends before a stop token, and where the caller says so") {
  nn::Gpt2 model(gpt2());
  const Ids all = nn::generate(model, kPrompt, {.max_new_tokens = 35});
  const auto first = std::find(all.begin(), all.end(), all[10]);
  CHECK(nn::generate(model, kPrompt, {.max_new_tokens = 35, .stop_tokens = {all[10]}}) == Ids(all.begin(), first));
  Ids seen;
  const Ids made = nn::generate(model, kPrompt, {.max_new_tokens = 35, .on_token = [&](std::int64_t token) {
                                                   seen.push_back(token);
                                                   return seen.size() < 3;
                                                 }});
  CHECK(made == Ids(all.begin(), all.begin() + 3));
  CHECK(seen == made);
  CHECK(nn::generate(model, kPrompt, {.max_new_tokens = 0}).empty());
}

TEST_CASE("Draws follow the probabilities that temperature, top_k, top_p and vocab_size leave") {
  const std::vector<double> logits{std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)};
  struct Case {
    nn::GenerateOptions options;
    std::vector<double> expected;
  };
  const double half = std::sqrt(0.1) + std::sqrt(0.4) + std::sqrt(0.2) + std::sqrt(0.3);
  const Case cases[] = {{{.temperature = 1}, {0.1, 0.4, 0.2, 0.3}},
                        {{.temperature = 2},
                         {std::sqrt(0.1) / half, std::sqrt(0.4) / half, std::sqrt(0.2) / half, std::sqrt(0.3) / half}},
                        {{.temperature = 1, .top_k = 2}, {0, 4 / 7., 0, 3 / 7.}},
                        {{.temperature = 1, .top_p = 0.65}, {0, 4 / 7., 0, 3 / 7.}},
                        {{.temperature = 1, .top_k = 3, .top_p = 0.8}, {0, 4 / 9., 2 / 9., 3 / 9.}},
                        {{.temperature = 1, .vocab_size = 2}, {0.2, 0.8, 0, 0}},
                        {{.temperature = 0, .vocab_size = 1}, {1, 0, 0, 0}},
                        {{.temperature = 0, .vocab_size = 9}, {0, 1, 0, 0}},
                        {{.temperature = 0}, {0, 1, 0, 0}}};
  constexpr int kDraws = 20'000;
  for (const Case& c : cases) {
    INFO(c.options.temperature << ' ' << c.options.top_k << ' ' << c.options.top_p);
    std::vector<double> found(4);
    for (std::uint64_t i = 0; i < kDraws; ++i)
      found[static_cast<std::size_t>(nn::sample_token(logits, c.options, i))] += 1;
    for (std::size_t i = 0; i < 4; ++i) {
      const double p = c.expected[i];
      CHECK(std::fabs(found[i] / kDraws - p) <= 4 * std::sqrt(p * (1 - p) / kDraws));  // exact where p is 0 or 1
    }
  }
}

TEST_CASE("What cannot be generated is an error") {
  nn::Gpt2 model(gpt2());
  const auto message = [&](const Ids& prompt, const nn::GenerateOptions& o) {
    return message_of([&] { nn::generate(model, prompt, o); });
  };
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  CHECK(message({}, {}) == "[generate] the prompt is empty: expected at least one token");
  CHECK(message({3, 23}, {}) == "[generate] prompt token 1 is 23: expected 0 to 22");
  CHECK(message({-1}, {}) == "[generate] prompt token 0 is -1: expected 0 to 22");
  CHECK(message({1, 2}, {.max_new_tokens = 39}) ==
        "[generate] 2 tokens of the prompt and 39 new ones: the model has 40 positions");
  CHECK(message({1}, {.max_new_tokens = -1}) == "[generate] max_new_tokens -1: expected 0 or more");
  for (const double t : {-1.0, inf, nan})
    CHECK(message({1}, {.max_new_tokens = 1, .temperature = t}).starts_with("[generate] temperature"));
  CHECK(message({1}, {.max_new_tokens = 1, .top_k = -1}).starts_with("[generate] top_k"));
  CHECK(message({1}, {.max_new_tokens = 1, .vocab_size = -1}).starts_with("[generate] vocab_size"));
  for (const double p : {0.0, 1.1, nan})
    CHECK(message({1}, {.max_new_tokens = 1, .top_p = p}).starts_with("[generate] top_p"));
  const auto draw = [](std::vector<double> logits) { return message_of([&] { nn::sample_token(logits, {}, 0); }); };
  CHECK(draw({0, nan}).starts_with("[generate] the logit of token 1 is nan"));
  CHECK(draw({inf, 0}).starts_with("[generate] the logit of token 0 is inf"));
  CHECK(draw({-inf}).starts_with("[generate] every logit is -infinity"));
  CHECK(draw({}).starts_with("[generate] no logits"));
}
