// Texts with a label each, for classification: from a CSV file, or from JSON in the form of CLINC150.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace stet::data {

/// Example i is texts[i] with labels[i], a label's name.
struct LabelledTexts {
  std::vector<std::string> texts, labels;
  std::int64_t size() const { return static_cast<std::int64_t>(texts.size()); }
};

/// A CSV file (csv.h) whose first line names the columns: one "text", one "label"; others are passed over. An Error
/// naming file and line for a missing or doubled column, an empty text or label, or no rows.
LabelledTexts load_csv_texts(const std::filesystem::path& path);

/// The member `key` of a JSON file, an array of [text, label] (Larson et al. 2019 have "train", "val", "test",
/// "oos_…"). An Error naming file, key path and byte for anything else, an empty text or label, or no rows.
LabelledTexts load_json_texts(const std::filesystem::path& path, std::string_view key);
/// Whether the file has such a member.
bool has_json_texts(const std::filesystem::path& path, std::string_view key);

/// The different labels in the order of their bytes: what a classifier's outputs stand for.
std::vector<std::string> label_names(const LabelledTexts& examples);
/// Each example's place in `names`. An Error naming the first label that is not there.
std::vector<std::int64_t> label_ids(const LabelledTexts& examples, const std::vector<std::string>& names);

/// At most `count` examples, as evenly over the labels as they allow: the first of each label, then the second of
/// each, and so on, in the order of the file. An Error where the numbers of texts and labels differ.
LabelledTexts first_of_each_label(const LabelledTexts& examples, std::int64_t count);

}  // namespace stet::data
