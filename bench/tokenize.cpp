// Ids and speed of a tokenizer: tokenize TOKENIZER TEXTS [IDS], or tokenize --train VOCAB_SIZE TEXTS TOKENIZER.JSON.
// TEXTS has one text a line or, where it is called *.counted, the number of each text's bytes, a line end, the bytes.
// IDS gets one line of ids for each text, without special tokens around. Prints megabytes a second over the texts
// one by one, first with a cold cache, then the best of three more.
// tests/golden/compare_tokenizers.py compares it with the reference libraries.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/data/tokenizers/train_bpe.h>

namespace {

std::vector<std::string> read_texts(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::vector<std::string> texts;
  if (!path.ends_with(".counted")) {
    for (std::string line; std::getline(in, line);) texts.push_back(line);
    return texts;
  }
  for (std::size_t size = 0; in >> size && in.get() == '\n';) {
    texts.emplace_back(size, '\0');
    if (!in.read(texts.back().data(), static_cast<std::streamsize>(size)))
      throw std::runtime_error(path + " is cut off");
  }
  return texts;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int train(const char* vocab_size, const char* file, const char* out) {
  const auto texts = read_texts(file);
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = stet::data::train_bpe(texts, std::atoll(vocab_size));
  const double seconds = seconds_since(start);
  tokenizer->save(out);
  std::cout << "trained " << tokenizer->vocab_size() << " tokens in " << seconds << " s\n";
  return 0;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count == 5 && std::string(arguments[1]) == "--train") return train(arguments[2], arguments[3], arguments[4]);
  if (count < 3) {
    std::cerr << "usage: tokenize TOKENIZER TEXTS [IDS] | tokenize --train VOCAB_SIZE TEXTS TOKENIZER.JSON\n";
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = stet::data::load_tokenizer(arguments[1]);
  const double loading = seconds_since(start);
  const auto lines = read_texts(arguments[2]);
  std::ofstream out;
  if (count > 3) {  // before the work, which may be long
    out.open(arguments[3]);
    if (!out) throw std::runtime_error(std::string("cannot write ") + arguments[3]);
  }
  std::vector<std::vector<std::int64_t>> ids(lines.size());
  double megabytes = 0, cold = 0, warm = 1e30;
  for (const auto& line : lines) megabytes += static_cast<double>(line.size()) / 1e6;
  for (int pass = 0; pass < 4; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < lines.size(); ++i) ids[i] = tokenizer->encode(lines[i], {.add_special_tokens = false});
    const double seconds = seconds_since(begin);
    if (pass == 0) cold = seconds;
    else warm = std::min(warm, seconds);
  }
  std::cout << lines.size() << " lines, " << megabytes << " MB, loaded in " << loading << " s, cold "
            << megabytes / cold << " MB/s, warm " << megabytes / warm << " MB/s\n";
  if (count > 3) {
    for (const auto& line : ids) {
      for (const auto id : line) out << id << ' ';
      out << '\n';
    }
    out.close();
    if (!out) throw std::runtime_error(std::string("cannot write ") + arguments[3]);
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
