// The setting of the claims.
#include "setting.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include "../checks.h"

using namespace stet;
using namespace stet::continual;

namespace {

void describe(CLI::App& app, Arguments& a, bool texts) {
  app.option_defaults()->always_capture_default();
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(CLI::Range(1, 256));
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_flag("--quick", a.quick, "few steps, and one seed unless --seeds: shows that it runs, not what it shows");
  if (!texts) {
    app.add_option("--data", a.data, "data set by name, or a folder with IDX files");
    return;
  }
  app.add_option("--text", a.text, "folder with NAME.txt for each text (bash examples/get_text.sh DIR makes one)")
      ->required();
  app.add_option("--cache", a.cache, "folder for pretrained models, which the programs share; none: pretrain anew");
  app.add_option("--pretrain", a.pretrain, "steps on the first text")->check(at_least(1));
  app.add_option("--steps", a.steps, "steps on what is learned second")->check(at_least(1));
}

/// Named after all that decides the result; a generator forked by the text stands for the text.
std::filesystem::path cached(const data::Text& text, const Arguments& a, std::uint64_t seed,
                             const nn::Gpt2Config& config) {
  char name[200];
  std::snprintf(name, sizeof name, "%s-%016llx-%lldx%lld-steps%d-seed%llu.safetensors", text.name.c_str(),
                static_cast<unsigned long long>(Generator(0).fork(text.train).state().seed),
                static_cast<long long>(config.n_layer), static_cast<long long>(config.n_embd), a.pretrain,
                static_cast<unsigned long long>(seed));
  return std::filesystem::path(a.cache) / name;
}

}  // namespace

int run_claim(int count, char** words, const std::string& about, bool texts,
              const std::function<void(const Arguments&)>& claim) {
  CLI::App app(about);
  Arguments arguments;
  describe(app, arguments, texts);
  CLI11_PARSE(app, count, words);
  if (arguments.quick) {
    if (app.get_option("--seeds")->count() == 0) arguments.seeds = 1;
    arguments.pretrain = std::min(arguments.pretrain, 40);
    arguments.steps = std::min(arguments.steps, 10);
  }
  try {
    if (arguments.threads > 0) set_threads(arguments.threads);
    make_folder(arguments.cache);
    claim(arguments);
    return finished();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}

nn::Gpt2Config small_gpt(const Arguments& arguments) {
  return {.vocab_size = 256,
          .n_positions = kLength,
          .n_embd = arguments.quick ? 32 : 96,
          .n_layer = arguments.quick ? 3 : 4,
          .n_head = 4,
          .resid_pdrop = 0,
          .embd_pdrop = 0,
          .attn_pdrop = 0};
}

void pretrain(nn::Gpt2& model, const data::Text& text, const Arguments& arguments, std::uint64_t seed,
              const std::function<void()>& report) {
  const auto file = cached(text, arguments, seed, model.config());
  if (!arguments.cache.empty() && std::filesystem::exists(file)) {
    model.load(nn::load_safetensors(file));
    for (int step = 0; step < arguments.pretrain; ++step) report();
    return;
  }
  train(model, {.name = "pretraining", .strength = "", .rate = 3e-3}, text.train, "", arguments.pretrain, 1000 + seed,
        {}, [&](int) { report(); });
  if (arguments.cache.empty()) return;
  nn::save_safetensors(file, model.state());
}

void each_pretrained(const Arguments& arguments, const data::Text& text, StepCounter& counter,
                     const std::function<void(nn::Gpt2& model, std::uint64_t seed)>& then) {
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(arguments.seeds); ++seed) {
    manual_seed(seed);
    nn::Gpt2 model(small_gpt(arguments));
    pretrain(model, text, arguments, seed, counter.of("seed " + std::to_string(seed) + ", pretraining"));
    then(model, seed);
  }
}

Losses fine_tune(nn::Gpt2& model, const Method& method, const Corpora& texts, const Arguments& arguments,
                 std::uint64_t seed, const nn::State& fisher, const std::function<void()>& report) {
  model.unfreeze();
  Adapters adapters(model);  // detached at the end
  attach(adapters, method);
  train(model, method, texts.domain.train, texts.general.train, arguments.steps, seed, fisher, [&](int) { report(); });
  return measure(model, texts);
}

Comparison compare_methods(const Arguments& arguments, const Corpora& texts, const std::vector<Method>& methods) {
  Comparison out;
  for (const Method& method : methods) out.outcomes.push_back({method, {}, {}});
  const auto runs = static_cast<double>(methods.size());
  StepCounter counter(arguments.seeds * (arguments.pretrain + runs * arguments.steps));
  each_pretrained(arguments, texts.general, counter, [&](nn::Gpt2& model, std::uint64_t seed) {
    const nn::State pretrained = model.state();
    const Losses before = measure(model, texts);
    out.general.push_back(before.general);
    out.domain.push_back(before.domain);
    nn::State fisher;
    for (Outcome& o : out.outcomes) {
      model.load(pretrained);
      if (o.method.ewc > 0 && fisher.empty()) {
        model.unfreeze();
        Generator generator = Generator(seed).fork("fisher");
        fisher = sampled_fisher(model, texts.general.train, arguments.quick ? 10 : 150, generator);
      }
      const Losses after = fine_tune(model, o.method, texts, arguments, seed, fisher,
                                     counter.of("seed " + std::to_string(seed) + ", " + o.method.name));
      o.learned.push_back(before.domain - after.domain);
      o.forgotten.push_back(after.general - before.general);
    }
  });
  return out;
}

std::function<void()> StepCounter::of(std::string what) {
  return [this, what = std::move(what)] { line_.update(++done_ / all_, what); };
}

std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out;
  for (std::size_t i = 0; i < a.size(); ++i) out.push_back(a[i] - b.at(i));
  return out;
}

bool clearly_positive(const std::vector<double>& values) {
  const Spread s = spread_of(values);
  return std::isfinite(s.deviation) && s.mean > s.deviation;
}

bool enough_seeds(const Arguments& arguments) {
  if (arguments.seeds > 1) return true;
  std::printf("One seed has no spread, so nothing is concluded from it: --seeds 3 does.\n");
  return false;
}
