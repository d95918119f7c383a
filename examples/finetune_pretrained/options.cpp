// Options, the paths they name, and one line that says them all.
#include "options.h"

#include <fstream>
#include <iterator>
#include <sstream>

#include "../checks.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

void describe(CLI::App& app, Arguments& a) {
  constexpr std::int64_t kMost = 1'000'000'000;
  app.option_defaults()->always_capture_default();
  app.add_option("MODEL", a.model, "a Hugging Face folder, or a llama2.c .bin with its tokenizer beside it")
      ->required();
  app.add_option("--text", a.text, "the documents to learn: text in UTF-8, plain or gzip")->required();
  app.add_option("--general", a.general, "a text that the model shall not forget")->required();
  app.add_option("--out", a.out, "folder for the result")->required();
  app.add_option("--method", a.method,
                 "lora: adapters on every linear layer; full: all parameters; top: the last blocks")
      ->check(CLI::IsMember({"lora", "full", "top"}));
  app.add_option("--rank", a.rank, "of LoRA; alpha is twice that")->check(at_least(1));
  app.add_option("--top", a.top, "how many of the last blocks `top` trains")->check(at_least(1));
  app.add_option("--replay", a.replay, "share of the sequences that come from the general text")
      ->check(CLI::Range(0., 1.) & at_least(0));
  app.add_option("--rate", a.rate, "learning rate; 0: 1e-3 for lora, 1e-4 otherwise")->check(at_least(0));
  app.add_option("--steps", a.steps, "optimizer steps")->check(CLI::Range(std::int64_t{1}, kMost));
  app.add_option("--batch", a.batch, "sequences in a step")->check(CLI::Range(std::int64_t{1}, kMost));
  app.add_option("--length", a.length, "tokens of a sequence")->check(CLI::Range(2, 1 << 20));
  app.add_option("--windows", a.windows, "held-out sequences of each text to measure on")
      ->check(CLI::Range(std::int64_t{1}, kMost));
  app.add_option("--measure", a.measure, "how often to measure, evenly over the steps; each time the run is kept")
      ->check(CLI::Range(std::int64_t{1}, kMost));
  app.add_option("--stop-after", a.stop_after, "step after which to stop, to be finished another time; 0: at the end")
      ->check(CLI::Range(std::int64_t{0}, kMost));
  app.add_option("--seed", a.seed, "of windows and adapters")->check(whole_number());
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_flag("--merge", a.merge, "lora: writes the whole model with the adapter folded in");
}

void check_use(const CLI::App& app, const Arguments& a) {
  for (const auto& [option, method] :
       {std::pair("--rank", "lora"), std::pair("--merge", "lora"), std::pair("--top", "top")})
    check(app.count(option) == 0 || a.method == method, kProgram, option, " is of --method ", method, ", found ",
          a.method);
}

void check_paths(const Arguments& a) {
  const fs::path model = a.model, text = a.text, general = a.general;
  check(fs::exists(model), kProgram, a.model, ": no such file or folder");
  check(!a.out.empty(), kProgram, "--out is empty, expected a folder");
  std::error_code ignored;
  check(!fs::equivalent(text, general, ignored) &&
            !(fs::is_regular_file(text, ignored) && fs::file_size(text, ignored) == fs::file_size(general, ignored) &&
              bytes_of(text) == bytes_of(general)),
        kProgram, "--text ", a.text, " and --general ", a.general,
        " are the same text, expected another one to see what is forgotten of it");
  continual::make_folder(a.out);
  check(!fs::is_directory(model) || !fs::equivalent(model, a.out), kProgram, "--out ", a.out,
        " is the model's own folder: its files would be overwritten");
  check_folder(kProgram, "--out", a.out, a.written(), folder_of(model), {kUnfinished});
  if (fs::exists(fs::path(a.out) / kRecord) || fs::exists(fs::path(a.out) / kUnfinished)) return;
  for (const auto& entry : fs::directory_iterator(a.out)) {
    const std::string name = entry.path().filename().string();
    check(!is_replaced(name, a.written()), kProgram, "--out ", a.out, ": found ", name,
          ", which would be replaced, but no ", kRecord,
          " of an earlier run, expected an empty folder or the result of such a run");
  }
}

std::string settings_of(const Arguments& a, const TokenText& domain, const TokenText& general) {
  std::ostringstream out;
  out << a.model << ", " << a.text << " (" << domain.train.size() << " tokens), " << a.general << " ("
      << general.train.size() << " tokens), " << a.method << ", rank " << a.rank << ", top " << a.top << ", rate "
      << a.learning_rate() << ", replay " << a.replay << ", steps " << a.steps << ", batch " << a.batch << ", length "
      << a.length << ", windows " << a.windows << ", seed " << a.seed;
  return out.str();
}
