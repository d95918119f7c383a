// Adapts a released language model to documents of one's own, and shows what it learns and what it forgets. Run:
//   build/release/examples/finetune_pretrained MODEL_DIR --text DOCUMENTS.txt --general GENERAL.txt --out DIR
//     [--method lora|full|top] [--replay 0.1] [--merge] [--help]
// MODEL_DIR is what examples/generate reads. DOCUMENTS.txt is to be learned, as it stands; GENERAL.txt is what the
// model shall still know: it is measured, and with --replay a share of every batch. The last tenth of both is held out.
// --out receives an adapter in PEFT's format (LoRA), or with --merge, full or top a model folder, which `generate` and
// transformers read, and finetune.json, a record of settings and losses. The same command goes on with a run that was
// stopped, from its last measurement, and ends with the bits of a run without a break.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../checks.h"
#include "report.h"
#include "unfinished.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

/// Decides what is trainable: by the method, and for nothing else.
void choose(const Arguments& a, const LanguageModel& model, continual::Adapters& adapters) {
  if (a.method == "lora") {
    adapters.attach("domain", continual::LoraOptions{.targets = {model.stack + "*"},
                                                     .rank = a.rank,
                                                     .alpha = 2 * static_cast<double>(a.rank),
                                                     .fan_in_fan_out = model.pretrained.model_type == "gpt2"});
    adapters.freeze_base();
  } else if (a.method == "top") {
    check(a.top <= model.blocks, kProgram, "--top ", a.top, " of ", model.blocks, " blocks");
    model.module().freeze();
    for (std::int64_t i = model.blocks - a.top; i < model.blocks; ++i)
      model.module().unfreeze(model.stack + std::to_string(i) + ".*");
  }
}

struct Run {
  const Arguments& arguments;
  const LanguageModel& model;
  const TokenText &domain, &general;
  Unfinished unfinished;
};

/// The tokens of one step. The share of the general text adds up over the steps, so that a twentieth of eight sequences
/// is two in five steps.
Tensor draw(const Run& run, std::int64_t step, Generator& windows) {
  const Arguments& a = run.arguments;
  const auto upto = [&](std::int64_t s) { return std::llround(a.replay * static_cast<double>(s * a.batch)); };
  const std::int64_t again = upto(step + 1) - upto(step);
  std::vector<Tensor> parts;
  if (again < a.batch)
    parts.push_back(data::random_token_windows(run.domain.train, a.batch - again, a.length, windows));
  if (again > 0) parts.push_back(data::random_token_windows(run.general.train, again, a.length, windows));
  return cat(parts, 0);
}

Progress start(const Run& run, optim::Optimizer& optimizer, const Generator& windows) {
  const Arguments& a = run.arguments;
  if (run.unfinished.exists()) {
    const Progress progress = run.unfinished.load(run.model.module(), optimizer);
    std::printf("goes on after %lld of %lld steps\n", static_cast<long long>(progress.step),
                static_cast<long long>(a.steps));
    return progress;
  }
  Progress progress{0, windows.state(), losses_on(run.model, run.domain.held_out, a.batch),
                    losses_on(run.model, run.general.held_out, a.batch)};
  const double domain = mean_of(progress.domain_before), general = mean_of(progress.general_before);
  check(std::isfinite(domain + general), kProgram, a.model, ": before any training the loss is ", domain,
        " on the documents and ", general, " on the general text, expected finite numbers");
  return progress;
}

/// Trains up to the end, or to --stop-after. Returns the losses before training and the step that was reached.
Progress train(const Run& run) {
  const Arguments& a = run.arguments;
  const double rate = a.learning_rate();
  optim::AdamW optimizer(run.model.module().trainable_parameters(), {.lr = rate, .weight_decay = 0});
  optimizer.clip_norm(1);
  const std::int64_t warm = std::min<std::int64_t>(20, a.steps / 10);
  optimizer.set_schedule(
      optim::warmup_schedule(warm, optim::cosine_schedule(std::max<std::int64_t>(1, a.steps - warm), 0.1)));
  Generator windows = Generator(a.seed).fork("windows");
  Progress progress = start(run, optimizer, windows);
  windows.set_state(progress.windows);
  continual::ProgressLine line;
  const std::int64_t end = a.stop_after > 0 ? std::min(a.stop_after, a.steps) : a.steps;
  while (progress.step < end) {
    const Tensor tokens = draw(run, progress.step, windows);
    optimizer.zero_grad();
    const Tensor loss = nn::next_token_loss(run.model.forward(tokens), tokens);
    loss.backward();
    optimizer.step();
    const std::int64_t step = ++progress.step;
    progress.windows = windows.state();
    continual::check_loss(loss.item(), kProgram, "step ", step, ", learning rate ", rate, " (--rate)");
    char words[64];
    std::snprintf(words, sizeof words, "step %lld, loss %.3f", static_cast<long long>(step), loss.item());
    line.update(static_cast<double>(step) / static_cast<double>(a.steps), words);
    const bool measured = step < a.steps && step * a.measure / a.steps != (step - 1) * a.measure / a.steps;
    if (measured) {
      const double domain = mean_of(losses_on(run.model, run.domain.held_out, a.batch));
      const double general = mean_of(losses_on(run.model, run.general.held_out, a.batch));
      line.wipe();
      std::printf("after %lld of %lld steps: domain %.4f, general %.4f\n", static_cast<long long>(step),
                  static_cast<long long>(a.steps), domain, general);
      std::fflush(stdout);
    }
    if (measured || (step == end && end < a.steps)) run.unfinished.save(progress, run.model.module(), optimizer);
  }
  return progress;
}

void write(const Arguments& a, const LanguageModel& model, continual::Adapters& adapters) {
  if (a.written() == Written::adapter) {
    adapters.save("domain", a.out, {.base_model = a.model, .task_type = "CAUSAL_LM"});
    return;
  }
  if (a.method == "lora") {
    const nn::State merged = adapters.merged_state();
    adapters.detach("domain");
    model.module().load(merged);
  }
  nn::save_pretrained(model.pretrained, a.out);
  data::copy_tokenizer(folder_of(a.model), a.out);
}

void run(const Arguments& a) {
  manual_seed(a.seed);
  check_paths(a);
  const LanguageModel model(a.model);
  check(a.length <= model.positions, kProgram, "--length ", a.length, ": the model has ", model.positions,
        " positions");
  const auto tokenizer = data::load_tokenizer(folder_of(a.model));
  const TokenText domain = read_text(a.text, *tokenizer, a.windows, a.length, model.vocabulary);
  const TokenText general = read_text(a.general, *tokenizer, a.windows, a.length, model.vocabulary);
  print_sizes(a, domain, general);
  const std::int64_t own = model.module().count();
  continual::Adapters adapters(model.module());
  choose(a, model, adapters);
  std::printf("%s: %s parameters; %s are trainable (%s)\n", model.pretrained.model_type.c_str(),
              nn::with_commas(own).c_str(), nn::with_commas(model.module().count_trainable()).c_str(),
              a.method.c_str());
  std::fflush(stdout);
  const Run all{a, model, domain, general, {fs::path(a.out) / kUnfinished, settings_of(a, domain, general)}};
  const Progress progress = train(all);
  if (progress.step < a.steps) {
    std::printf("stopped after %lld of %lld steps: the same command without --stop-after goes on\n",
                static_cast<long long>(progress.step), static_cast<long long>(a.steps));
    return;
  }
  const Result result{progress.domain_before, progress.general_before, losses_on(model, domain.held_out, a.batch),
                      losses_on(model, general.held_out, a.batch)};
  for (const auto* losses : {&result.domain_after, &result.general_after})
    continual::check_loss(mean_of(*losses), kProgram, "after training");
  print(a, result);
  write(a, model, adapters);
  continual::write_text_file(fs::path(a.out) / kRecord, record_of(a, result));
  all.unfinished.remove();
  std::printf("written: %s\n", fs::absolute(a.out).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("Adapts a released language model to documents, and shows what it learns and what it forgets.");
  Arguments arguments;
  describe(app, arguments);
  return program(app, count, words, [&] {
    check_use(app, arguments);
    if (arguments.threads > 0) set_threads(arguments.threads);
    run(arguments);
  });
}
