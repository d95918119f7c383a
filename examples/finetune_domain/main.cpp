// A small GPT learns general prose, then one domain: what does it gain there, and what does it lose elsewhere? Each
// remedy is a curve over its strength. Run: build/release/examples/finetune_domain --text DIR [--help], where DIR is
// what examples/get_text.sh prepares. Prints a table and writes finetune_domain.{json,svg} for the domain.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include <CLI/CLI.hpp>

#include "training.h"

using namespace stet;
using namespace stet::continual;

namespace {

struct Arguments {
  std::string text, out = ".", domain = "technical_manual", general = "general_fortunes";
  int seeds = 3, pretrain = 2000, steps = 200, threads = 0;
  bool quick = false;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--text", a.text, "folder with NAME.txt for each text (bash examples/get_text.sh DIR makes one)")
      ->required();
  app.add_option("--domain", a.domain, "NAME of what is learned second");
  app.add_option("--general", a.general, "NAME of what is learned first");
  app.add_option("--out", a.out, "where finetune_domain.json and .svg go");
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(CLI::PositiveNumber);
  app.add_option("--pretrain", a.pretrain, "steps on the general text")->check(CLI::PositiveNumber);
  app.add_option("--steps", a.steps, "steps on the domain")->check(CLI::PositiveNumber);
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

/// On every linear layer of the blocks, alpha twice the rank.
LoraOptions lora(std::int64_t rank) {
  return {.targets = {"transformer.h.*"}, .rank = rank, .alpha = 2 * static_cast<double>(rank)};
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

struct Experiment {
  std::vector<Method> methods;
  std::vector<Losses> pretrained;            // of each seed
  std::vector<std::vector<Losses>> results;  // [method][seed]
};

/// What the others are compared with.
bool is_plain(const Method& method) { return method.name == "full, lr" && method.rate == kRate; }

Experiment run(const Arguments& arguments, const Corpora& texts) {
  Experiment out{methods(), {}, {}};
  out.results.resize(out.methods.size());
  ProgressLine line;
  const auto trained =
      std::count_if(out.methods.begin(), out.methods.end(), [](const Method& m) { return m.blend == 1; });
  const double all = arguments.seeds * (arguments.pretrain + static_cast<double>(trained) * arguments.steps);
  double done = 0;
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(arguments.seeds); ++seed) {
    const auto tell = [&](const std::string& what) {
      return
          [&line, &done, all, what, seed] { line.update(++done / all, "seed " + std::to_string(seed) + ", " + what); };
    };
    manual_seed(seed);
    nn::Gpt2 model(shape(arguments.quick));
    train(model, {.name = "pretraining", .strength = "", .rate = 3e-3}, texts.general.train, "", arguments.pretrain,
          1000 + seed, {}, tell("pretraining"));
    const nn::State pretrained = model.state();
    out.pretrained.push_back(measure(model, texts));
    Generator generator = Generator(seed).fork("fisher");
    const nn::State fisher = sampled_fisher(model, texts.general.train, arguments.quick ? 10 : 150, generator);
    nn::State plain;  // fine-tuned with nothing added
    for (std::size_t i = 0; i < out.methods.size(); ++i) {
      const Method& method = out.methods[i];
      model.load(pretrained);
      Adapters adapters(model);  // detached at the end of this method
      if (method.adapter) {
        adapters.attach("domain", *method.adapter);
        adapters.freeze_base();
      }
      if (method.blend < 1) blend(model, pretrained, plain, method.blend);
      else
        train(model, method, texts.domain.train, texts.general.train, arguments.steps, seed, fisher,
              tell(method.name + " " + method.strength));
      if (is_plain(method)) plain = model.state();
      out.results[i].push_back(measure(model, texts));
      model.unfreeze();
    }
  }
  return out;
}

std::vector<TradeoffCurve> curves(const Experiment& e) {
  std::vector<TradeoffCurve> out;
  for (std::size_t i = 0; i < e.methods.size(); ++i) {
    std::vector<double> learned, forgotten;
    for (std::size_t s = 0; s < e.pretrained.size(); ++s) {
      learned.push_back(e.pretrained[s].domain - e.results[i][s].domain);
      forgotten.push_back(e.results[i][s].general - e.pretrained[s].general);
    }
    if (out.empty() || out.back().method != e.methods[i].name) out.push_back({e.methods[i].name, {}});
    out.back().points.push_back({e.methods[i].strength, spread_of(learned), spread_of(forgotten)});
  }
  return out;
}

std::string cell(const Spread& s) {
  char out[48];
  if (std::isfinite(s.deviation)) std::snprintf(out, sizeof out, "%+.3f ± %.3f", s.mean, s.deviation);
  else std::snprintf(out, sizeof out, "%+.3f", s.mean);
  return out;
}

/// Filled up to `width` characters, on the right (on the left if it is negative).
std::string padded(const std::string& text, int width) {
  const auto longer = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) == 0x80; });
  const std::string room(static_cast<std::size_t>(std::max<std::int64_t>(
                             0, std::abs(width) - static_cast<std::int64_t>(text.size()) + longer)),
                         ' ');
  return width < 0 ? room + text : text + room;
}

void print_table(const std::vector<TradeoffCurve>& all) {
  const auto row = [](const std::string& method, const std::string& strength, const std::string& learned,
                      const std::string& forgotten) {
    std::cout << padded(method, 18) << padded(strength, 10) << padded(learned, -16) << padded(forgotten, -18) << '\n';
  };
  row("method", "strength", "learned", "forgotten");
  for (const auto& curve : all)
    for (const auto& p : curve.points) row(curve.method, p.strength, cell(p.learned), cell(p.forgotten));
}

/// Who forgets least where all have learned the same: what plain fine-tuning learns at kRate, times 0.8.
void conclude(const std::vector<TradeoffCurve>& all, double learned) {
  std::vector<std::pair<double, std::string>> order;
  std::string never;
  for (const auto& curve : all)
    if (const auto forgotten = forgotten_at(curve, learned)) order.emplace_back(*forgotten, curve.method);
    else never += (never.empty() ? "" : ", ") + curve.method;
  std::sort(order.begin(), order.end());
  std::printf("\nAt the same gain on the domain (%.3f nats a byte) the general loss rises by", learned);
  for (std::size_t i = 0; i < order.size(); ++i)
    std::printf("%s %+.3f (%s)", i ? "," : "", order[i].first, order[i].second.c_str());
  std::printf(".\n");
  if (!never.empty()) std::printf("Not on their curve at that gain: %s.\n", never.c_str());
}

void write_json(const std::filesystem::path& path, const Arguments& arguments, const Experiment& e) {
  std::ostringstream out;
  out.precision(6);
  out << "{\"domain\": " << std::quoted(arguments.domain) << ", \"general\": " << std::quoted(arguments.general)
      << ", \"unit\": \"nats a byte\", \"pretraining steps\": " << arguments.pretrain
      << ", \"steps\": " << arguments.steps << ",\n \"runs\": [\n";
  for (std::size_t s = 0; s < e.pretrained.size(); ++s) {
    const auto row = [&](const std::string& method, const std::string& strength, const Losses& losses, bool last) {
      out << "  {\"seed\": " << s + 1 << ", \"method\": \"" << method << "\", \"strength\": \"" << strength
          << "\", \"general\": " << losses.general << ", \"domain\": " << losses.domain << (last ? "}\n" : "},\n");
    };
    row("pretrained", "", e.pretrained[s], false);
    for (std::size_t i = 0; i < e.methods.size(); ++i)
      row(e.methods[i].name, e.methods[i].strength, e.results[i][s],
          s + 1 == e.pretrained.size() && i + 1 == e.methods.size());
  }
  out << " ]}\n";
  write_text_file(path, out.str());
}

void compare(const Arguments& arguments) {
  const auto read = [&](const std::string& name) {
    return data::load_text(std::filesystem::path(arguments.text) / (name + ".txt"));
  };
  Corpora texts{read(arguments.general), read(arguments.domain), {}, {}};
  texts.general_windows = data::even_byte_windows(texts.general.held_out, kWindows, kLength);
  texts.domain_windows = data::even_byte_windows(texts.domain.held_out, kWindows, kLength);
  const Experiment e = run(arguments, texts);
  const auto all = curves(e);
  std::vector<double> general, domain;
  for (const Losses& l : e.pretrained) general.push_back(l.general), domain.push_back(l.domain);
  const Spread g = spread_of(general), d = spread_of(domain);
  std::printf(
      "Pretrained on %s, fine-tuned on %s; loss in nats a byte on held-out text, mean ± deviation over seeds 1 to %d.\n"
      "Before: %.3f on the general text, %.3f on the domain. Learned: the domain's fall. Forgotten: the general "
      "rise.\n\n",
      arguments.general.c_str(), arguments.domain.c_str(), arguments.seeds, g.mean, d.mean);
  print_table(all);
  for (std::size_t i = 0; i < e.methods.size(); ++i)
    if (is_plain(e.methods[i])) conclude(all, 0.8 * all[0].points[i].learned.mean);
  const std::filesystem::path out = arguments.out;
  write_json(out / "finetune_domain.json", arguments, e);
  write_tradeoff_svg(out / "finetune_domain.svg", arguments.general + ", then " + arguments.domain,
                     "learned: fall of the domain's loss (nats a byte)",
                     "forgotten: rise of the general loss (nats a byte)", all);
  std::printf("finetune_domain.json and finetune_domain.svg are in %s\n",
              std::filesystem::absolute(out).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("A small GPT learns general prose, then one domain: what is learned against what is forgotten.");
  Arguments arguments;
  describe(app, arguments);
  CLI11_PARSE(app, count, words);
  if (arguments.quick) {
    arguments.seeds = 1;
    arguments.pretrain = std::min(arguments.pretrain, 60);
    arguments.steps = std::min(arguments.steps, 20);
  }
  try {
    if (arguments.threads > 0) set_threads(arguments.threads);
    compare(arguments);
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
