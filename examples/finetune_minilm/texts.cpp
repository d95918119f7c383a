// The texts of both forms of files, and what has to be true of them.
#include "texts.h"

#include <algorithm>
#include <map>
#include <set>

#include <stet/tensor/error.h>

using namespace stet;

namespace {

bool ends_with(std::string file, std::string_view end) {
  for (char& c : file)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return file.ends_with(end);
}

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

void check_form(const char* option, const std::string& file, bool json_too) {
  const char* expected =
      json_too ? "a .json with train, val and test, or a .csv with text,label" : "a .csv with text,label";
  check(!ends_with(file, ".jsonl"), "finetune_minilm", option, " ", file, ": found a .jsonl, expected ", expected);
  check(json_too || !is_json(file), "finetune_minilm", option, " ", file, ": found a .json, expected ", expected);
}

void check_labels(const Source& source, const Texts& texts) {
  const auto names = data::label_names(texts.train);
  for (const std::string& label : texts.test.labels)
    check(std::binary_search(names.begin(), names.end(), label), "finetune_minilm",
          source.test.empty() ? source.data : source.test, ": found the label \"", label,
          "\" among the test texts, which no training text has",
          source.limit > 0 ? " (--limit is too low for every label to have one)" : "");
  check(names.size() > 1, "finetune_minilm", source.data, ": found the label \"", names.front(),
        "\" alone among the training texts, expected two labels at least");
}

}  // namespace

bool is_json(const std::string& file) { return ends_with(file, ".json"); }

Texts read(const Source& source) {
  check_form("--data", source.data, true);
  check_form("--test", source.test, false);
  Texts out;
  if (is_json(source.data)) {
    out.train = data::load_json_texts(source.data, "train");
    out.test = data::load_json_texts(source.data, source.split);
    for (const char* key : {"oos_train", "oos_val", "oos_test"})
      if (data::has_json_texts(source.data, key))
        for (std::string& text : data::load_json_texts(source.data, key).texts) out.other.push_back(std::move(text));
    out.other_name = "texts of no intent";
  } else if (source.test.empty()) {
    split(source.data, data::load_csv_texts(source.data), out.train, out.test);
  } else {
    out.train = data::load_csv_texts(source.data);
    out.test = data::load_csv_texts(source.test);
  }
  if (out.other.empty()) {
    out.other = out.test.texts;
    out.other_name = "test texts";
  }
  if (source.limit > 0) out.train = data::first_of_each_label(out.train, source.limit);
  if (source.test_limit > 0) out.test = data::first_of_each_label(out.test, source.test_limit);
  check_labels(source, out);
  const std::set<std::string_view> known(out.train.texts.begin(), out.train.texts.end());
  out.repeated = std::count_if(out.test.texts.begin(), out.test.texts.end(),
                               [&](const std::string& text) { return known.contains(text); });
  return out;
}
