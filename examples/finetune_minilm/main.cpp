// Intent classification with a sentence encoder: what is learned, at what cost, and what is left of the encoder for
// texts it was not tuned on? Run: build/release/examples/finetune_minilm --model DIR --data FILE [--help], where DIR is
// a Hugging Face folder of a BERT such as all-MiniLM-L6-v2 and FILE has labelled texts: CLINC150's JSON (train, val,
// test; oos_…: texts of no intent, on which forgetting is measured) or CSV with the columns text and label. Prints a
// table and writes finetune_minilm.json.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <sstream>

#include <CLI/CLI.hpp>

#include "../checks.h"
#include "../model_folder.h"
#include "texts.h"
#include "training.h"

using namespace stet;
using continual::Spread;

namespace {

constexpr std::int64_t kUsualLength = 32;

struct Arguments {
  std::string model, method = "all", out = ".", save;
  Source source;
  std::vector<std::string> texts;
  int seeds = 3, threads = 0;
  std::int64_t length = 0;  ///< 0: kUsualLength, or what a saved classifier was trained with
  TrainingOptions training;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--model", a.model, "Hugging Face folder of a BERT with its tokenizer")->required();
  CLI::Option* data = app.add_option("--data", a.source.data,
                                     "labelled texts: .json with train, val and test, or .csv with text,label");
  app.add_option("TEXT", a.texts, "texts to classify with a --model that --save wrote, instead of training")
      ->default_str("")
      ->excludes(data);
  app.add_option("--test", a.source.test,
                 "what a .csv is measured on, a .csv as well; none: the last tenth of each label in --data");
  app.add_option("--split", a.source.split, "of a .json: choose options on val, report on test")
      ->check(CLI::IsMember({"val", "test"}));
  app.add_option("--method", a.method, "what is trained besides the head")
      ->check(CLI::IsMember({"head", "top", "lora", "full", "all"}));
  app.add_option("--epochs", a.training.epochs, "passes over the training texts")->check(at_least(1));
  app.add_option("--batch", a.training.batch, "texts in a step")->check(at_least(1));
  app.add_option("--length", a.length, "tokens of a text at most; a saved classifier remembers its own")
      ->check(CLI::Range(3, 512))
      ->default_str(std::to_string(kUsualLength));
  app.add_option("--rate", a.training.rate, "learning rate; 0: each method's own")->check(at_least(0));
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(at_least(1));
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_option("--limit", a.source.limit, "training texts at most, evenly over the labels; 0: all")
      ->check(at_least(0));
  app.add_option("--test-limit", a.source.test_limit, "test texts at most, evenly over the labels; 0: all")
      ->check(at_least(0));
  app.add_option("--out", a.out, "where finetune_minilm.json goes");
  app.add_option("--save", a.save, "folder for the classifier of seed 1; with one --method");
}

struct Measured {
  std::uint64_t seed;
  Trained trained;
  double accuracy;
  Kept kept;
};
using Results = std::vector<std::pair<Method, std::vector<Measured>>>;

/// An Error for an option that what else is given makes meaningless.
void check_use(const CLI::App& app, const Arguments& a) {
  const auto given = [&](const std::string& name) { return app.get_option(name)->count() > 0; };
  if (a.texts.empty()) {
    check(!a.source.data.empty(), "finetune_minilm",
          "--data says what to learn, or TEXT what to classify: neither is given");
    const bool json = is_json(a.source.data);
    check(!json || !given("--test"), "finetune_minilm", "--test ", a.source.test, ": found it beside ", a.source.data,
          ", which has test texts of its own: expected a .csv as --data");
    check(json || !given("--split"), "finetune_minilm", "--split ", a.source.split, ": found it beside ", a.source.data,
          ", which has no splits: expected a .json as --data");
    return;
  }
  for (const char* name : {"--test", "--split", "--method", "--epochs", "--batch", "--rate", "--seeds", "--limit",
                           "--test-limit", "--out", "--save"})
    check(!given(name), "finetune_minilm", name, ": found it beside texts to classify, expected it with --data");
}

std::vector<Method> methods_of(const Arguments& a) {
  std::vector<Method> out;
  for (const Method m : {Method::head, Method::top, Method::lora, Method::full})
    if (a.method == "all" || a.method == name_of(m)) out.push_back(m);
  return out;
}

std::int64_t length_of(const Arguments& a) { return a.length > 0 ? a.length : kUsualLength; }

/// The texts as a model of `config` reads them.
struct Sets {
  Encoded train, test, other;
};

Sets encode_all(const Arguments& a, const Texts& texts, const nn::BertConfig& config) {
  const std::int64_t length = length_of(a);
  check(length <= config.max_position_embeddings, "finetune_minilm", "--length ", length, ": the model has ",
        config.max_position_embeddings, " positions");
  const auto tokenizer = data::load_tokenizer(a.model);
  const auto names = data::label_names(texts.train);
  const auto of = [&](const std::vector<std::string>& part, const std::vector<std::int64_t>& labels) {
    return encode(*tokenizer, part, labels, length, config.vocab_size);
  };
  return {of(texts.train.texts, data::label_ids(texts.train, names)),
          of(texts.test.texts, data::label_ids(texts.test, names)), of(texts.other, {})};
}

Results run(const Arguments& a, const std::vector<std::string>& names, const Sets& sets, const nn::BertConfig& config,
            const nn::State& pretrained) {
  const std::vector<Method> methods = methods_of(a);
  Results out;
  for (const Method m : methods) out.emplace_back(m, std::vector<Measured>());
  continual::ProgressLine line;
  double done = 0;
  const double all = static_cast<double>(methods.size()) * a.seeds;
  Tensor before;
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(a.seeds); ++seed)
    for (auto& [method, measured] : out) {
      manual_seed(seed);
      Classifier model(config, std::ssize(names));
      model.bert.load(pretrained);
      model.padding = sets.train.padding;
      if (!before.defined() && sets.other.size() > kNeighbours) before = embeddings(model, sets.other);
      continual::Adapters adapters(model);
      Measured m{.seed = seed, .trained = {}, .accuracy = 0, .kept = {}};
      m.trained =
          train(model, adapters, method, sets.train, a.training, seed, [&](double share, const std::string& what) {
            line.update((done + share) / all, "seed " + std::to_string(seed) + ", " + what);
          });
      m.accuracy = accuracy_of(model, sets.test);
      if (before.defined()) m.kept = kept(before, embeddings(model, sets.other));
      if (seed == 1 && !a.save.empty()) save(model, adapters, names, length_of(a), a.model, a.save);
      measured.push_back(m);
      ++done;
    }
  return out;
}

template <class Get> Spread spread(const std::vector<Measured>& runs, const Get& get) {
  std::vector<double> values;
  for (const Measured& m : runs) values.push_back(get(m));
  return continual::spread_of(values);
}

/// "mean ± deviation", the deviation only where there is one.
std::string cell(const Spread& s, int digits) {
  if (!std::isfinite(s.mean)) return "–";
  char out[64];
  if (std::isfinite(s.deviation)) std::snprintf(out, sizeof out, "%.*f ± %.*f", digits, s.mean, digits, s.deviation);
  else std::snprintf(out, sizeof out, "%.*f", digits, s.mean);
  return out;
}

/// What the last two columns are.
std::string about_kept(const Texts& texts, const Results& results) {
  bool none = false;
  for (const auto& [method, runs] : results)
    for (const Measured& m : runs) none = none || std::isnan(m.kept.cka);
  if (std::ssize(texts.other) > kNeighbours)
    return "of the encoder's view of the " + texts.other_name + ", as CKA and as the share of the ten nearest texts" +
           (none ? " (–: all have one vector)" : "");
  return "not measured, since it takes more than " + std::to_string(kNeighbours) +
         " texts (--test names a file of them)";
}

/// Sentences on texts that do not stand for what they seem to.
void print_warnings(const Arguments& a, const Texts& texts, const Sets& sets) {
  if (texts.repeated > 0)
    std::printf("%lld of %zu test texts also stand in the training texts.\n", static_cast<long long>(texts.repeated),
                texts.test.texts.size());
  const std::array parts{std::pair("training texts", &sets.train), std::pair("test texts", &sets.test),
                         std::pair("texts of no intent", &sets.other)};
  for (const auto& [name, set] : parts) {
    if (set == &sets.other && texts.other_name != name) continue;  // the test texts again
    if (const auto cut = set->cut())
      std::printf("%lld of %lld %s were cut to %lld tokens (--length).\n", static_cast<long long>(cut),
                  static_cast<long long>(set->size()), name, static_cast<long long>(length_of(a)));
  }
}

void print(const Arguments& a, const Texts& texts, const Results& results) {
  std::printf(
      "%zu training texts, %zu test texts, %zu %s; %d epochs of batches of %lld; mean ± deviation over seeds 1 to "
      "%d.\nCPU seconds: of training, all threads together. Kept: %s.\n\n"
      "| trained | parameters | rate | accuracy %% | seconds | CPU seconds | kept: CKA | kept: neighbours %% |\n"
      "|---|---|---|---|---|---|---|---|\n",
      texts.train.texts.size(), texts.test.texts.size(), texts.other.size(), texts.other_name.c_str(),
      a.training.epochs, static_cast<long long>(a.training.batch), a.seeds, about_kept(texts, results).c_str());
  for (const auto& [method, runs] : results) {
    const double rate = a.training.rate > 0 ? a.training.rate : usual_rate(method);
    std::printf("| %s | %s | %g | %s | %s | %s | %s | %s |\n", name_of(method),
                nn::with_commas(runs.front().trained.parameters).c_str(), rate,
                cell(spread(runs, [](const Measured& m) { return 100 * m.accuracy; }), 1).c_str(),
                cell(spread(runs, [](const Measured& m) { return m.trained.seconds; }), 1).c_str(),
                cell(spread(runs, [](const Measured& m) { return m.trained.processor_seconds; }), 1).c_str(),
                cell(spread(runs, [](const Measured& m) { return m.kept.cka; }), 3).c_str(),
                cell(spread(runs, [](const Measured& m) { return 100 * m.kept.neighbours; }), 1).c_str());
  }
}

/// JSON has no NaN.
std::string number(double value) {
  std::ostringstream out;
  out.precision(6);
  if (std::isfinite(value)) out << value;
  else out << "null";
  return out.str();
}

void write_json(const Arguments& a, const Texts& texts, const Results& results) {
  std::ostringstream out;
  out.precision(6);
  out << "{\"training texts\": " << texts.train.size() << ", \"test texts\": " << texts.test.size()
      << ", \"test texts in training\": " << texts.repeated
      << ", \"kept measured on\": " << std::quoted(texts.other_name) << ", \"epochs\": " << a.training.epochs
      << ", \"batch\": " << a.training.batch << ", \"length\": " << length_of(a) << ", \"threads\": " << threads()
      << ",\n \"runs\": [";
  const char* comma = "\n";
  for (const auto& [method, runs] : results)
    for (const Measured& m : runs) {
      out << comma << "  {\"method\": \"" << name_of(method) << "\", \"seed\": " << m.seed
          << ", \"parameters\": " << m.trained.parameters << ", \"accuracy\": " << m.accuracy
          << ", \"seconds\": " << m.trained.seconds << ", \"CPU seconds\": " << m.trained.processor_seconds
          << ", \"cka\": " << number(m.kept.cka) << ", \"neighbours\": " << number(m.kept.neighbours) << "}";
      comma = ",\n";
    }
  out << "\n ]}\n";
  continual::write_text_file(std::filesystem::path(a.out) / "finetune_minilm.json", out.str());
}

/// Tokens of a text at most for a saved classifier, which its model has positions for.
std::int64_t length_of(const Arguments& a, const Loaded& loaded) {
  const std::int64_t positions = loaded.model->bert.config().max_position_embeddings;
  if (a.length == 0 && loaded.length == 0) return std::min(kUsualLength, positions);  // saved without one
  const std::int64_t length = a.length > 0 ? a.length : loaded.length;
  check(length <= positions, "finetune_minilm",
        a.length > 0 ? "--length" : (std::filesystem::path(a.model) / kLengthFile).string() + ":", " ", length,
        ": the model has ", positions, " positions");
  return length;
}

void classify(const Arguments& a) {
  const Loaded loaded = load(a.model);
  const std::int64_t length = length_of(a, loaded);
  const Encoded texts =
      encode(*data::load_tokenizer(a.model), a.texts, {}, length, loaded.model->bert.config().vocab_size);
  loaded.model->padding = texts.padding;
  const NoGrad no_grad;
  const Tensor shares = softmax(loaded.model->head(embeddings(*loaded.model, texts)));
  const auto best = argmax(shares, 1).to_vector<std::int64_t>();
  const auto share = max(shares, {1}).to_vector<double>();
  for (std::size_t i = 0; i < a.texts.size(); ++i) {
    std::printf("%.3f  %s  %s", share[i], loaded.labels[static_cast<std::size_t>(best[i])].c_str(), a.texts[i].c_str());
    if (texts.whole[i] > length)
      std::printf("  (cut: %lld of its %lld tokens)", static_cast<long long>(length),
                  static_cast<long long>(texts.whole[i]));
    std::printf("\n");
  }
}

void compare(const Arguments& a) {
  continual::make_folder(a.out);
  if (!a.save.empty()) {
    check(a.method != "all", "finetune_minilm", "--save ", a.save, ": which method's? Choose one with --method");
    continual::make_folder(a.save);
    std::error_code missing;  // of the model: said when it is read
    check(!std::filesystem::equivalent(a.model, a.save, missing), "finetune_minilm", "--save ", a.save,
          " is the model's own folder: its files would be overwritten");
    check_folder("finetune_minilm", "--save", a.save, Written::model, a.model, {"head.safetensors"});
  }
  const Texts texts = read(a.source);
  if (!a.save.empty())
    for (const std::string& label : texts.train.labels)
      check(label.find('\n') == std::string::npos, "finetune_minilm", "--save ", a.save, ": the label \"", label,
            "\" has more than one line, which its labels.txt cannot hold");
  const auto [config, pretrained] = read_encoder(a.model);
  const Sets sets = encode_all(a, texts, config);
  const Results results = run(a, data::label_names(texts.train), sets, config, pretrained);
  print_warnings(a, texts, sets);
  print(a, texts, results);
  write_json(a, texts, results);
  std::printf("finetune_minilm.json is in %s\n", std::filesystem::absolute(a.out).lexically_normal().c_str());
  if (!a.save.empty()) std::printf("written: %s\n", std::filesystem::absolute(a.save).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("Intent classification with a sentence encoder: accuracy, cost, and what the encoder keeps.");
  Arguments arguments;
  describe(app, arguments);
  return program(app, count, words, [&] {
    check_use(app, arguments);
    if (arguments.threads > 0) set_threads(arguments.threads);
    check(std::filesystem::is_directory(arguments.model), "finetune_minilm", "--model ", arguments.model,
          ": no such folder");
    if (arguments.texts.empty()) compare(arguments);
    else classify(arguments);
  });
}
