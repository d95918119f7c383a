// A small GPT learns general prose, then one domain: what does it gain there, and what does it lose elsewhere? Each
// remedy is a curve over its strength. Run: build/release/examples/finetune_domain --text DIR [--help], where DIR is
// what examples/get_text.sh prepares. Prints a table; writes finetune_domain.json, .svg and _during.svg.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <set>

#include <CLI/CLI.hpp>

#include "../checks.h"
#include "report.h"

using namespace stet;
using namespace stet::continual;

namespace {

struct Arguments {
  std::string text, out = ".", domain = "technical_manual", general = "general_fortunes";
  std::vector<std::string> others;
  int seeds = 3, pretrain = 1500, steps = 150, threads = 0;
  bool quick = false;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--text", a.text, "folder with NAME.txt for each text (bash examples/get_text.sh DIR makes one)")
      ->required();
  app.add_option("--domain", a.domain, "NAME of what is learned second");
  app.add_option("--general", a.general, "NAME of what is learned first");
  app.add_option("--others", a.others, "NAMEs of texts to measure alone; none given: every other text of the folder")
      ->default_str("");
  app.add_option("--out", a.out, "where finetune_domain.json and .svg go");
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(at_least(1));
  app.add_option("--pretrain", a.pretrain, "steps on the general text")->check(at_least(1));
  app.add_option("--steps", a.steps, "steps on the domain")->check(at_least(1));
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_flag("--quick", a.quick, "one seed, a smaller model and few steps: shows that it runs, not what it shows");
}

nn::Gpt2Config shape(bool quick) {
  return {.vocab_size = 256,
          .n_positions = kLength,
          .n_embd = quick ? 32 : 128,
          .n_layer = quick ? 3 : 5,
          .n_head = 4,
          .resid_pdrop = 0,
          .embd_pdrop = 0,
          .attn_pdrop = 0};
}

std::vector<Method> methods() {
  const Ia3Options ia3{.targets = {"*attn.c_attn"}, .feedforward = {"*mlp.c_proj"}};
  return {{.name = "full, lr", .strength = "1e-4", .rate = 1e-4},
          {.name = "full, lr", .strength = "3e-4", .rate = 3e-4},
          {.name = "full, lr", .strength = "1e-3"},
          {.name = "full, lr", .strength = "3e-3", .rate = 3e-3},
          {.name = "replay", .strength = "25 %", .replay = 0.25},
          {.name = "replay", .strength = "5 %", .replay = 0.05},
          {.name = "replay", .strength = "1 %", .replay = 0.01},
          {.name = "EWC", .strength = "λ 1000", .ewc = 1000},
          {.name = "EWC", .strength = "100", .ewc = 100},
          {.name = "EWC", .strength = "10", .ewc = 10},
          {.name = "L2-SP", .strength = "λ 0.1", .l2 = 0.1},
          {.name = "L2-SP", .strength = "0.01", .l2 = 0.01},
          {.name = "L2-SP", .strength = "0.001", .l2 = 0.001},
          {.name = "top blocks", .strength = "1", .top = 1},
          {.name = "top blocks", .strength = "2", .top = 2},
          {.name = "top blocks", .strength = "3", .top = 3},
          {.name = "layer-wise lr", .strength = "0.4", .decay = 0.4},
          {.name = "layer-wise lr", .strength = "0.7", .decay = 0.7},
          {.name = "LoRA, lr 3e-3", .strength = "r 2", .rate = 3e-3, .adapter = lora(2)},
          {.name = "LoRA, lr 3e-3", .strength = "r 8", .rate = 3e-3, .adapter = lora(8)},
          {.name = "LoRA, lr 3e-3", .strength = "r 32", .rate = 3e-3, .adapter = lora(32)},
          {.name = "(IA)³, lr 1e-2", .strength = "", .rate = 1e-2, .adapter = ia3},
          {.name = "adapters, lr 3e-3", .strength = "width 4", .rate = 3e-3, .adapter = BottleneckOptions{.width = 4}},
          {.name = "adapters, lr 3e-3", .strength = "16", .rate = 3e-3, .adapter = BottleneckOptions{.width = 16}},
          {.name = "WiSE-FT", .strength = "0.25", .blend = 0.25},
          {.name = "WiSE-FT", .strength = "0.5", .blend = 0.5},
          {.name = "WiSE-FT", .strength = "0.75", .blend = 0.75}};
}

/// What the others are compared with.
bool is_plain(const Method& method) { return method.name == "full, lr" && method.rate == kRate; }

/// All methods from one pretrained model. `tell` is called with what is going on after each step.
void run_seed(const Arguments& arguments, const Corpora& texts, std::uint64_t seed, Experiment& out,
              const std::function<void(const std::string&)>& tell) {
  manual_seed(seed);
  nn::Gpt2 model(shape(arguments.quick));
  train(model, {.name = "pretraining", .strength = "", .rate = 3e-3}, texts.general.train, "", arguments.pretrain,
        1000 + seed, {}, [&](int) { tell("pretraining"); });
  const nn::State pretrained = model.state();
  out.pretrained.push_back(measure(model, texts));
  Generator generator = Generator(seed).fork("fisher");
  const nn::State fisher = sampled_fisher(model, texts.general.train, arguments.quick ? 10 : 150, generator);
  nn::State plain;  // fine-tuned with nothing added
  for (std::size_t i = 0; i < out.methods.size(); ++i) {
    const Method& method = out.methods[i];
    Outcome outcome;
    model.load(pretrained);
    Adapters adapters(model);  // detached at the end of this method
    attach(adapters, method);
    if (method.blend < 1) blend(model, pretrained, plain, method.blend);
    else
      train(model, method, texts.domain.train, texts.general.train, arguments.steps, seed, fisher, [&](int step) {
        tell(method.name + " " + method.strength);
        for (const int quarter : {1, 2, 3})
          if (arguments.steps >= 4 && step == arguments.steps * quarter / 4)
            outcome.during.push_back(measure(model, texts, false));
      });
    if (is_plain(method)) plain = model.state();
    outcome.after = measure(model, texts);
    out.results[i].push_back(outcome);
    model.unfreeze();
  }
}

Experiment run(const Arguments& arguments, const Corpora& texts) {
  Experiment out{methods(), {}, {}};
  out.results.resize(out.methods.size());
  ProgressLine line;
  const auto trained =
      std::count_if(out.methods.begin(), out.methods.end(), [](const Method& m) { return m.blend == 1; });
  const double all = arguments.seeds * (arguments.pretrain + static_cast<double>(trained) * arguments.steps);
  double done = 0;
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(arguments.seeds); ++seed)
    run_seed(arguments, texts, seed, out,
             [&](const std::string& what) { line.update(++done / all, "seed " + std::to_string(seed) + ", " + what); });
  return out;
}

/// The texts of the folder: the two that are learned, and those to measure alone.
Corpora read(const Arguments& arguments) {
  const std::filesystem::path folder = arguments.text;
  check(arguments.general != arguments.domain, "finetune_domain", "--domain ", arguments.domain,
        " is the general text, too: expected another one");
  Corpora out = read_texts(folder, arguments.general, arguments.domain);
  std::set<std::string> names(arguments.others.begin(), arguments.others.end());
  if (names.empty())
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".txt") names.insert(entry.path().stem().string());
  names.erase(arguments.general);
  names.erase(arguments.domain);
  out.other_names.assign(names.begin(), names.end());
  for (const std::string& name : out.other_names)
    out.other_windows.push_back(held_out_windows(read_text(folder, name), kWindows / 4));
  return out;
}

void compare(const Arguments& arguments) {
  make_folder(arguments.out);
  const Corpora texts = read(arguments);
  const Experiment e = run(arguments, texts);
  const Names names{arguments.general, arguments.domain, texts.other_names};
  print_report(names, e);
  const auto plain = std::find_if(e.methods.begin(), e.methods.end(), is_plain) - e.methods.begin();
  conclude(e, static_cast<std::size_t>(plain));
  const std::filesystem::path out = arguments.out;
  write_json(out / "finetune_domain.json", names, arguments.pretrain, arguments.steps, e);
  write_pictures(out, names, e);
  std::printf("finetune_domain.json, finetune_domain.svg and finetune_domain_during.svg are in %s\n",
              std::filesystem::absolute(out).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("A small GPT learns general prose, then one domain: what is learned against what is forgotten.");
  Arguments arguments;
  describe(app, arguments);
  return program(app, count, words, [&] {
    if (arguments.quick) {
      arguments.seeds = 1;
      arguments.pretrain = std::min(arguments.pretrain, 60);
      arguments.steps = std::min(arguments.steps, 20);
    }
    if (arguments.threads > 0) set_threads(arguments.threads);
    compare(arguments);
  });
}
