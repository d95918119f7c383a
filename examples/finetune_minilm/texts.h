// What a classifier is trained and measured on. Private to finetune_minilm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <stet/data/labelled_text.h>

/// Where the texts come from: the options of their names.
struct Source {
  std::string data, test, split = "test";
  std::int64_t limit = 0, test_limit = 0;
};

struct Texts {
  stet::data::LabelledTexts train, test;
  std::int64_t repeated = 0;       ///< test texts that are training texts, too
  std::vector<std::string> other;  ///< what forgetting is measured on
  std::string other_name;
};

/// By the name, in small or capital letters.
bool is_json(const std::string& file);

/// An Error that names the file for what cannot be learned: fewer than two labels, a label of the test texts alone.
Texts read(const Source& source);
