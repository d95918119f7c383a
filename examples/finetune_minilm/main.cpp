// Intent classification with a sentence encoder: what is learned, at what cost, and what is left of the encoder for
// texts it was not tuned on? Run: build/release/examples/finetune_minilm --model DIR --data FILE [--help], where DIR is
// a Hugging Face folder of a BERT such as all-MiniLM-L6-v2 and FILE has labelled texts: CLINC150's JSON (train, val,
// test; oos_…: texts of no intent, on which forgetting is measured) or CSV with the columns text and label. Prints a
// table and writes finetune_minilm.json.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include <CLI/CLI.hpp>

#include "../checks.h"
#include "../model_folder.h"
#include "training.h"

using namespace stet;
using continual::Spread;

namespace {

struct Arguments {
  std::string model, data, test, split = "test", method = "all", out = ".", save;
  std::vector<std::string> texts;
  int seeds = 3, threads = 0;
  std::int64_t length = 32, limit = 0, test_limit = 0;
  TrainingOptions training;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--model", a.model, "Hugging Face folder of a BERT with its tokenizer")->required();
  CLI::Option* data =
      app.add_option("--data", a.data, "labelled texts: .json with train, val and test, or .csv with text,label");
  app.add_option("TEXT", a.texts, "texts to classify with a --model that --save wrote, instead of training")
      ->default_str("")
      ->excludes(data);
  app.add_option("--test", a.test, "what a .csv is measured on; none: the last tenth of each label in --data");
  app.add_option("--split", a.split, "of a .json: choose options on val, report on test")
      ->check(CLI::IsMember({"val", "test"}));
  app.add_option("--method", a.method, "what is trained besides the head")
      ->check(CLI::IsMember({"head", "top", "lora", "full", "all"}));
  app.add_option("--epochs", a.training.epochs, "passes over the training texts")->check(at_least(1));
  app.add_option("--batch", a.training.batch, "texts in a step")->check(at_least(1));
  app.add_option("--length", a.length, "tokens of a text at most")->check(CLI::Range(3, 512));
  app.add_option("--rate", a.training.rate, "learning rate; 0: each method's own")->check(at_least(0));
  app.add_option("--seeds", a.seeds, "seeds 1 to N")->check(at_least(1));
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_option("--limit", a.limit, "training texts at most, evenly over the labels; 0: all")->check(at_least(0));
  app.add_option("--test-limit", a.test_limit, "test texts at most, evenly over the labels; 0: all")
      ->check(at_least(0));
  app.add_option("--out", a.out, "where finetune_minilm.json goes");
  app.add_option("--save", a.save, "folder for the classifier of seed 1; with one --method");
}

struct Texts {
  data::LabelledTexts train, test;
  std::vector<std::string> other;  // what forgetting is measured on
  std::string other_name;
};

/// Training texts and the last tenth of each label, at least one.
void split(const std::string& file, const data::LabelledTexts& all, data::LabelledTexts& train,
           data::LabelledTexts& test) {
  std::map<std::string, std::int64_t> count, seen;
  for (const std::string& label : all.labels) ++count[label];
  for (std::size_t i = 0; i < all.texts.size(); ++i) {
    const std::int64_t n = count[all.labels[i]], held_out = std::max<std::int64_t>(1, n / 10);
    check(n > 1, "finetune_minilm", file, ": found one text of the label ", all.labels[i],
          ", expected two at least or --test");
    data::LabelledTexts& part = seen[all.labels[i]]++ < n - held_out ? train : test;
    part.texts.push_back(all.texts[i]);
    part.labels.push_back(all.labels[i]);
  }
}

Texts read(const Arguments& a) {
  Texts out;
  if (a.data.ends_with(".json")) {
    out.train = data::load_json_texts(a.data, "train");
    out.test = data::load_json_texts(a.data, a.split);
    for (const char* key : {"oos_train", "oos_val", "oos_test"})
      if (data::has_json_texts(a.data, key))
        for (std::string& text : data::load_json_texts(a.data, key).texts) out.other.push_back(std::move(text));
    out.other_name = "texts of no intent";
  } else if (a.test.empty()) {
    split(a.data, data::load_csv_texts(a.data), out.train, out.test);
  } else {
    out.train = data::load_csv_texts(a.data);
    out.test = data::load_csv_texts(a.test);
  }
  if (out.other.empty()) {
    out.other = out.test.texts;
    out.other_name = "test texts";
  }
  if (a.limit > 0) out.train = data::first_of_each_label(out.train, a.limit);
  if (a.test_limit > 0) out.test = data::first_of_each_label(out.test, a.test_limit);
  const auto names = data::label_names(out.train);
  for (const std::string& label : out.test.labels)
    check(std::binary_search(names.begin(), names.end(), label), "finetune_minilm", a.test.empty() ? a.data : a.test,
          ": found the label \"", label, "\" among the test texts, which no training text has",
          a.limit > 0 ? " (--limit is too low for every label to have one)" : "");
  return out;
}

struct Measured {
  std::uint64_t seed;
  Trained trained;
  double accuracy;
  Kept kept;
};
using Results = std::vector<std::pair<Method, std::vector<Measured>>>;

std::vector<Method> methods_of(const Arguments& a) {
  std::vector<Method> out;
  for (const Method m : {Method::head, Method::top, Method::lora, Method::full})
    if (a.method == "all" || a.method == name_of(m)) out.push_back(m);
  return out;
}

Results run(const Arguments& a, const Texts& texts) {
  const auto tokenizer = data::load_tokenizer(a.model);
  const auto [config, pretrained] = read_encoder(a.model);
  check(a.length <= config.max_position_embeddings, "finetune_minilm", "--length ", a.length, ": the model has ",
        config.max_position_embeddings, " positions");
  const auto names = data::label_names(texts.train);
  const Encoded train_set =
      encode(*tokenizer, texts.train.texts, data::label_ids(texts.train, names), a.length, config.vocab_size);
  const Encoded test_set =
      encode(*tokenizer, texts.test.texts, data::label_ids(texts.test, names), a.length, config.vocab_size);
  const Encoded other = encode(*tokenizer, texts.other, {}, a.length, config.vocab_size);
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
      model.padding = train_set.padding;
      if (!before.defined() && other.size() > kNeighbours) before = embeddings(model, other);
      continual::Adapters adapters(model);
      Measured m{.seed = seed, .trained = {}, .accuracy = 0, .kept = {}};
      m.trained =
          train(model, adapters, method, train_set, a.training, seed, [&](double share, const std::string& what) {
            line.update((done + share) / all, "seed " + std::to_string(seed) + ", " + what);
          });
      m.accuracy = accuracy_of(model, test_set);
      if (before.defined()) m.kept = kept(before, embeddings(model, other));
      if (seed == 1 && !a.save.empty()) save(model, adapters, names, a.model, a.save);
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
std::string about_kept(const Texts& texts) {
  if (std::ssize(texts.other) > kNeighbours)
    return "of the encoder's view of the " + texts.other_name + ", as CKA and as the share of the ten nearest texts";
  return "not measured, since it takes more than " + std::to_string(kNeighbours) +
         " texts (--test names a file of them)";
}

void print(const Arguments& a, const Texts& texts, const Results& results) {
  std::printf(
      "%zu training texts, %zu test texts, %zu %s; %d epochs of batches of %lld; mean ± deviation over seeds 1 to "
      "%d.\nCPU seconds: of training, all threads together. Kept: %s.\n\n"
      "| trained | parameters | rate | accuracy %% | seconds | CPU seconds | kept: CKA | kept: neighbours %% |\n"
      "|---|---|---|---|---|---|---|---|\n",
      texts.train.texts.size(), texts.test.texts.size(), texts.other.size(), texts.other_name.c_str(),
      a.training.epochs, static_cast<long long>(a.training.batch), a.seeds, about_kept(texts).c_str());
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
      << ", \"kept measured on\": " << std::quoted(texts.other_name) << ", \"epochs\": " << a.training.epochs
      << ", \"batch\": " << a.training.batch << ", \"length\": " << a.length << ", \"threads\": " << threads()
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

void classify(const Arguments& a) {
  const Loaded loaded = load(a.model);
  const Encoded texts =
      encode(*data::load_tokenizer(a.model), a.texts, {}, a.length, loaded.model->bert.config().vocab_size);
  loaded.model->padding = texts.padding;
  const NoGrad no_grad;
  const Tensor shares = softmax(loaded.model->head(embeddings(*loaded.model, texts)));
  const auto best = argmax(shares, 1).to_vector<std::int64_t>();
  const auto share = max(shares, {1}).to_vector<double>();
  for (std::size_t i = 0; i < a.texts.size(); ++i)
    std::printf("%.3f  %s  %s\n", share[i], loaded.labels[static_cast<std::size_t>(best[i])].c_str(),
                a.texts[i].c_str());
}

void compare(const Arguments& a) {
  check(!a.data.empty(), "finetune_minilm", "--data says what to learn, or TEXT what to classify: neither is given");
  continual::make_folder(a.out);
  if (!a.save.empty()) {
    check(a.method != "all", "finetune_minilm", "--save ", a.save, ": which method's? Choose one with --method");
    continual::make_folder(a.save);
    std::error_code missing;  // of the model: said when it is read
    check(!std::filesystem::equivalent(a.model, a.save, missing), "finetune_minilm", "--save ", a.save,
          " is the model's own folder: its files would be overwritten");
    check_folder("finetune_minilm", "--save", a.save, Written::model, a.model, {"head.safetensors"});
  }
  const Texts texts = read(a);
  if (!a.save.empty())
    for (const std::string& label : texts.train.labels)
      check(label.find('\n') == std::string::npos, "finetune_minilm", "--save ", a.save, ": the label \"", label,
            "\" has more than one line, which its labels.txt cannot hold");
  const Results results = run(a, texts);
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
  CLI11_PARSE(app, count, words);
  try {
    if (arguments.threads > 0) set_threads(arguments.threads);
    check(std::filesystem::is_directory(arguments.model), "finetune_minilm", "--model ", arguments.model,
          ": no such folder");
    if (arguments.texts.empty()) compare(arguments);
    else classify(arguments);
    return finished();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
