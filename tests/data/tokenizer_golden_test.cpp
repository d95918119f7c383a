// The tokenizers beside the reference implementations: 2,000 lines in many scripts, every id (as a hash of the line).
// tests/golden/make_tokenizer_goldens.py wrote the files.
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "tokenizers";

std::vector<std::string> golden_lines() {
  std::ifstream in(kGoldens / "lines.json");
  return nlohmann::json::parse(in).get<std::vector<std::string>>();
}

std::string row_of(const std::vector<std::int64_t>& ids) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::int64_t id : ids) hash = (hash ^ static_cast<std::uint64_t>(id)) * 0x100000001b3;
  std::ostringstream row;
  row << ids.size() << ' ' << std::hex << std::setw(8) << std::setfill('0') << (hash & 0xffffffff);
  return row.str();
}

/// Compares every line; says which differ first, and how many.
void require_same(const data::Tokenizer& tokenizer, const std::string& name) {
  std::ifstream in(kGoldens / (name + ".ids"));
  std::string library, expected;
  REQUIRE(std::getline(in, library));
  const auto lines = golden_lines();
  std::size_t compared = 0, different = 0;
  std::string first;
  for (const std::string& line : lines) {
    REQUIRE(std::getline(in, expected));
    if (expected == "-") continue;  // the script says why
    ++compared;
    if (row_of(tokenizer.encode(line)) == expected) continue;
    if (different++ == 0) first = nlohmann::json(line).dump(-1, ' ', true);
  }
  std::cout << name << ": " << compared << " lines beside" << library.substr(1) << ", " << different << " differ\n";
  INFO(name << ": the first line that differs: " << first);
  CHECK(different == 0);
  CHECK(compared >= 1500);
}

}  // namespace

TEST_CASE("Byte-level BPE gives the reference's ids, and the text back") {
  for (const std::string name : {"gpt2", "llama3", "smollm"}) {
    const auto tokenizer = data::load_tokenizer(kGoldens / (name + ".json"));
    require_same(*tokenizer, name);
    for (const std::string& line : golden_lines()) {
      INFO(line);
      CHECK(tokenizer->decode(tokenizer->encode(line), {.skip_special_tokens = false}).ends_with(line));
      CHECK(tokenizer->decode(tokenizer->encode(line, {.add_special_tokens = false})) == line);
    }
  }
}

TEST_CASE("Byte-level BPE with a normalizer, a prefixed space and added tokens gives the reference's ids") {
  for (const std::string name : {"qwen2", "prefixed"})
    require_same(*data::load_tokenizer(kGoldens / (name + ".json")), name);
}

TEST_CASE("WordPiece gives the reference's ids") {
  for (const std::string name : {"bert", "bert_cased"})
    require_same(*data::load_tokenizer(kGoldens / (name + ".json")), name);
  require_same(*data::load_tokenizer(kGoldens / "vocab.txt"), "bert");
}

TEST_CASE("SentencePiece models give the library's ids, or say what the build lacks") {
  for (const std::string name : {"sp_unigram", "sp_bpe"}) {
    try {
      require_same(*data::load_tokenizer(kGoldens / (name + ".model")), name);
    } catch (const Error& error) {
      const std::string message = error.what();
      INFO(message);
      CHECK(message.find("this build of stet has no SentencePiece: install libsentencepiece-dev") != std::string::npos);
      std::cout << "skipped: " << message << '\n';
    }
  }
}

TEST_CASE("A tokenizer.json made from a SentencePiece model leaves the reading to the model beside it") {
  const test::Scratch scratch;
  fs::copy_file(kGoldens / "sp_bpe.model", scratch.path() / "tokenizer.model");
  std::unique_ptr<data::Tokenizer> original;
  try {
    original = data::load_tokenizer(scratch.path() / "tokenizer.model");
  } catch (const Error& error) {
    std::cout << "skipped: " << error.what() << '\n';
    return;
  }
  nlohmann::json file{{"version", "1.0"}, {"added_tokens", nlohmann::json::array()}};
  file["model"] = {{"type", "BPE"}, {"byte_fallback", true}, {"vocab", nlohmann::json::object()}};
  for (std::int64_t id = 0; id < original->vocab_size(); ++id) file["model"]["vocab"][original->token_of(id)] = id;
  const auto load = [&] {
    scratch.write("tokenizer.json", file.dump());
    return data::load_tokenizer(scratch.path());
  };
  require_same(*load(), "sp_bpe");
  file["added_tokens"].push_back({{"content", original->token_of(1)}, {"id", 1}, {"special", true}});
  require_same(*load(), "sp_bpe");

  file["added_tokens"].push_back({{"content", "<|chat|>"}, {"id", original->vocab_size()}, {"special", true}});
  CHECK_THROWS_WITH(load(), Catch::Matchers::Contains("tokenizer.json: added_tokens[1].id") &&
                                Catch::Matchers::Contains("\"<|chat|>\" has another id in tokenizer.model, or none"));
  file["added_tokens"].erase(1);
  std::swap(file["model"]["vocab"][original->token_of(5)], file["model"]["vocab"][original->token_of(6)]);
  CHECK_THROWS_WITH(load(), Catch::Matchers::Contains("has another id in tokenizer.model"));
  file["model"]["byte_fallback"] = false;  // then the file is read, and is not whole
  CHECK_THROWS_WITH(load(), Catch::Matchers::Contains("tokenizer.json") && !Catch::Matchers::Contains("another id"));
}

TEST_CASE("The released GPT-2 vocabulary gives the reference's ids") {
  const char* shared = std::getenv("STET_SHARED_DATA");
  const fs::path folder =
      (shared ? fs::path(shared) : fs::path(STET_SOURCE_DIR) / ".." / "shared" / "data") / "gpt2-bpe";
  if (!fs::exists(folder / "encoder.json")) {
    std::cout << "skipped: no GPT-2 vocabulary at " << folder << " (STET_SHARED_DATA names the folder above it)\n";
    return;
  }
  const auto tokenizer = data::load_tokenizer(folder);
  CHECK(tokenizer->vocab_size() == 50257);
  CHECK(tokenizer->id_of("<|endoftext|>") == 50256);
  // OpenAI's own example, and what every port prints.
  CHECK(tokenizer->encode("Hello world") == std::vector<std::int64_t>{15496, 995});
  require_same(*tokenizer, "released_gpt2");
}
