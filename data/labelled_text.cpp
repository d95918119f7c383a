// Texts and the names of their labels.
#include <stet/data/labelled_text.h>

#include <algorithm>
#include <map>
#include <numeric>

#include <stet/data/csv.h>
#include <stet/tensor/json_file.h>

namespace stet::data {

LabelledTexts load_csv_texts(const std::filesystem::path& path) {
  constexpr std::string_view op = "load_csv_texts";
  const std::vector<CsvRow> rows = read_csv(path, op);
  check(rows.size() > 1, op, path.string(), ": found ", rows.size(), " lines, expected a header and examples");
  std::string columns;
  for (const std::string& name : rows.front().fields) columns += (columns.empty() ? "\"" : ", \"") + name + '"';
  const auto column = [&](const char* name) {
    const auto& header = rows.front().fields;
    const auto found = std::count(header.begin(), header.end(), name);
    check(found == 1, op, path.string(), ": line 1: found ", found, " columns \"", name, "\" among ", columns,
          ", expected one, and commas between columns");
    return static_cast<std::size_t>(std::find(header.begin(), header.end(), name) - header.begin());
  };
  const std::size_t text = column("text"), label = column("label");
  LabelledTexts out;
  for (auto row = rows.begin() + 1; row != rows.end(); ++row) {
    check(!row->fields[text].empty() && !row->fields[label].empty(), op, path.string(), ": line ", row->line,
          ": found an empty ", row->fields[text].empty() ? "text" : "label", ", expected one");
    out.texts.push_back(row->fields[text]);
    out.labels.push_back(row->fields[label]);
  }
  return out;
}

LabelledTexts load_json_texts(const std::filesystem::path& path, std::string_view key) {
  const JsonFile file(path, "load_json_texts");
  const JsonFile::Value rows = file.root().at(key);
  LabelledTexts out;
  rows.for_each_item([&](const JsonFile::Value& row) {
    std::vector<std::string> fields;
    row.for_each_item([&](const JsonFile::Value& field) {
      fields.emplace_back(field.text());
      if (fields.back().empty()) field.refuse("found an empty string, expected a text or a label");
    });
    if (fields.size() != 2) row.refuse("found ", fields.size(), " strings, expected a text and its label");
    out.texts.push_back(std::move(fields[0]));
    out.labels.push_back(std::move(fields[1]));
  });
  if (out.texts.empty()) rows.refuse("found no examples, expected one at least");
  return out;
}

bool has_json_texts(const std::filesystem::path& path, std::string_view key) {
  return JsonFile(path, "load_json_texts").root().find(key).has_value();
}

std::vector<std::string> label_names(const LabelledTexts& examples) {
  std::vector<std::string> names = examples.labels;
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::vector<std::int64_t> label_ids(const LabelledTexts& examples, const std::vector<std::string>& names) {
  std::map<std::string_view, std::int64_t> places;
  for (const std::string& name : names) places.emplace(name, std::ssize(places));
  std::vector<std::int64_t> ids;
  for (const std::string& label : examples.labels) {
    const auto found = places.find(label);
    check(found != places.end(), "label_ids", "found the label ", quoted(label), " of example ", ids.size(),
          ", expected one of ", names.size(), " that are known");
    ids.push_back(found->second);
  }
  return ids;
}

LabelledTexts first_of_each_label(const LabelledTexts& examples, std::int64_t count) {
  check(examples.texts.size() == examples.labels.size(), "first_of_each_label", examples.texts.size(), " texts and ",
        examples.labels.size(), " labels");
  std::map<std::string_view, std::int64_t> seen;
  std::vector<std::int64_t> turn, order(examples.texts.size());
  for (const std::string& label : examples.labels) turn.push_back(seen[label]++);
  std::iota(order.begin(), order.end(), 0);
  const auto turn_of = [&](std::int64_t i) { return turn[static_cast<std::size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return turn_of(a) < turn_of(b); });
  order.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, examples.size())));
  std::sort(order.begin(), order.end());
  LabelledTexts out;
  for (const std::int64_t i : order) {
    out.texts.push_back(examples.texts[static_cast<std::size_t>(i)]);
    out.labels.push_back(examples.labels[static_cast<std::size_t>(i)]);
  }
  return out;
}

}  // namespace stet::data
