// Ids and speed of a tokenizer: tokenize TOKENIZER LINES [IDS]. LINES is a JSON array of strings or plain text, one
// text a line; IDS gets one line of ids for each, without special tokens around. Prints megabytes a second over the
// lines one by one, first with a cold cache, then the best of three more.
// tests/golden/compare_tokenizers.py compares it with the reference libraries.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include <stet/data/tokenizers/tokenizer.h>

namespace {

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  if (path.ends_with(".json")) return nlohmann::json::parse(in).get<std::vector<std::string>>();
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 3) {
    std::cerr << "usage: tokenize TOKENIZER LINES [IDS]\n";
    return 2;
  }
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto tokenizer = stet::data::load_tokenizer(arguments[1]);
  const double loading = std::chrono::duration<double>(Clock::now() - start).count();
  const auto lines = read_lines(arguments[2]);
  std::vector<std::vector<std::int64_t>> ids(lines.size());
  double megabytes = 0, cold = 0, warm = 1e30;
  for (const auto& line : lines) megabytes += static_cast<double>(line.size()) / 1e6;
  for (int pass = 0; pass < 4; ++pass) {
    const auto begin = Clock::now();
    for (std::size_t i = 0; i < lines.size(); ++i) ids[i] = tokenizer->encode(lines[i], {.add_special_tokens = false});
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (pass == 0) cold = seconds;
    else warm = std::min(warm, seconds);
  }
  std::cout << lines.size() << " lines, " << megabytes << " MB, loaded in " << loading << " s, cold " << megabytes / cold
            << " MB/s, warm " << megabytes / warm << " MB/s\n";
  if (count > 3) {
    std::ofstream out(arguments[3]);
    for (const auto& line : ids) {
      for (const auto id : line) out << id << ' ';
      out << '\n';
    }
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
