// Tables and the results file.
#include <stet/continual/report.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include <stet/nn/safetensors.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

using nlohmann::json;

std::string number(double value, int decimals) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

/// Columns as seen, not bytes: "±" and "–" take two and three.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width, bool left = false) {
  const std::string space(width > width_of(text) ? width - width_of(text) : 0, ' ');
  return left ? text + space : space + text;
}

std::string spread(const Spread& value, double factor, int decimals) {
  if (!std::isfinite(value.mean)) return "–";
  return number(value.mean * factor, decimals) + " ± " + padded(number(value.deviation * factor, decimals), 4);
}

json as_json(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
json as_json(const std::vector<double>& values) {
  json out = json::array();
  for (double v : values) out.push_back(as_json(v));
  return out;
}
json as_json(const Spread& value) { return {{"mean", as_json(value.mean)}, {"deviation", as_json(value.deviation)}}; }

double total_seconds(const Result& result) {
  return std::accumulate(result.seconds.begin(), result.seconds.end(), 0.0);
}

json as_json(const Run& run) {
  const Result& r = run.result;
  json matrix = json::array();
  for (const auto& row : r.accuracy.r) matrix.push_back(as_json(row));
  return {{"label", run.label},
          {"seed", run.seed},
          {"setting", name_of(r.setting)},
          {"strategies", r.strategies},
          {"tasks", r.tasks},
          {"acc", as_json(r.accuracy.accuracy())},
          {"bwt", as_json(r.accuracy.backward_transfer())},
          {"fwt", as_json(r.accuracy.forward_transfer())},
          {"forgetting", as_json(r.accuracy.forgetting())},
          {"accuracy_before", as_json(r.accuracy.before)},
          {"accuracy_matrix", matrix},
          {"training_losses", as_json(r.losses)},
          {"seconds", as_json(r.seconds)},
          {"steps", r.steps},
          {"test_reads", r.test_reads}};
}

}  // namespace

std::vector<Summary> summarise(const std::vector<Run>& runs) {
  struct Values {
    std::vector<double> accuracy, forgetting, seconds;
  };
  std::vector<Summary> out;
  std::vector<Values> values;
  for (const Run& run : runs) {
    std::size_t at = 0;
    while (at < out.size() && (out[at].setting != run.result.setting || out[at].label != run.label)) ++at;
    if (at == out.size()) {
      out.push_back({run.result.setting, run.label, 0, {}, {}, {}});
      values.emplace_back();
    }
    ++out[at].runs;
    values[at].accuracy.push_back(run.result.accuracy.accuracy());
    values[at].forgetting.push_back(run.result.accuracy.forgetting());
    values[at].seconds.push_back(total_seconds(run.result));
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].accuracy = spread_of(values[i].accuracy);
    out[i].forgetting = spread_of(values[i].forgetting);
    out[i].seconds = spread_of(values[i].seconds);
  }
  return out;
}

std::string table(const std::vector<Summary>& summaries) {
  std::size_t width = 0;
  for (const Summary& s : summaries) width = std::max({width, width_of(s.label) + 2, name_of(s.setting).size()});
  std::string out;
  for (std::size_t i = 0; i < summaries.size(); ++i) {
    const Summary& s = summaries[i];
    if (i == 0 || s.setting != summaries[i - 1].setting)
      out += (i ? "\n" : "") + padded(std::string(name_of(s.setting)), width, true) + padded("ACC %", 15) +
             padded("forgetting %", 15) + padded("seconds", 15) + '\n';
    out += padded("  " + s.label, width, true) + padded(spread(s.accuracy, 100, 1), 15) +
           padded(spread(s.forgetting, 100, 1), 15) + padded(spread(s.seconds, 1, 2), 15) + '\n';
  }
  return out;
}

std::string table(const std::vector<HeatMap>& maps) {
  std::string out;
  int rows = 0;
  const auto cell = [](double value) { return padded(number(100 * value, 1), 6); };
  const auto width = [](const HeatMap& map) {
    return std::max<std::size_t>(6 * map.matrix.r.size(), width_of(map.title) + 2);
  };
  for (const HeatMap& map : maps) {
    out += "  " + padded(map.title, width(map), true);
    rows = std::max(rows, map.matrix.tasks());
  }
  for (int i = 0; i < rows; ++i) {
    out += '\n';
    for (const HeatMap& map : maps) {
      std::string line;
      if (i < map.matrix.tasks())
        for (double value : map.matrix.r[static_cast<std::size_t>(i)]) line += cell(value);
      out += "  " + padded(line, width(map), true);
    }
  }
  return out + '\n';
}

void make_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder.empty() ? "." : folder;
  std::error_code problem;
  std::filesystem::create_directories(path, problem);
  if (!problem && access(path.c_str(), W_OK | X_OK) != 0) problem.assign(errno, std::generic_category());
  check(!problem, "make_folder", path.string(), ": ", problem.message());
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  if (path.has_parent_path()) {
    std::error_code problem;
    std::filesystem::create_directories(path.parent_path(), problem);
    check(!problem, "write_text_file", path.parent_path().string(), ": ", problem.message());
  }
  nn::replace_file(path, text, "write_text_file");
}

void write_results_json(const std::filesystem::path& path, const std::vector<Run>& runs,
                        const std::map<std::string, std::string>& about) {
  json summaries = json::array(), all = json::array();
  for (const Summary& s : summarise(runs))
    summaries.push_back({{"setting", name_of(s.setting)},
                         {"label", s.label},
                         {"runs", s.runs},
                         {"acc", as_json(s.accuracy)},
                         {"forgetting", as_json(s.forgetting)},
                         {"seconds", as_json(s.seconds)}});
  for (const Run& run : runs) all.push_back(as_json(run));
  const json file = {
      {"about", about}, {"definitions", AccuracyMatrix::definitions()}, {"summary", summaries}, {"runs", all}};
  // Text that is not UTF-8 (a file name, say) is replaced, not refused.
  write_text_file(path, file.dump(2, ' ', false, json::error_handler_t::replace) + '\n');
}

}  // namespace stet::continual
