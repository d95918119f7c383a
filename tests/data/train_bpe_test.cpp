// The trainer beside the reference's, token by token, and its own promises. The goldens gpt2.json and llama3.json
// were trained by tests/golden/make_tokenizer_goldens.py on the sentences that lines.json begins with.
#include <fstream>
#include <nlohmann/json.hpp>

#include <stet/data/tokenizers/train_bpe.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;
using Ids = std::vector<std::int64_t>;
using Words = data::TrainBpeOptions::Words;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "tokenizers";
constexpr std::size_t kSentences = 24;  // of which the golden script makes its lines

std::vector<std::string> sentences_three_times() {
  std::ifstream in(kGoldens / "lines.json");
  const auto lines = nlohmann::json::parse(in).get<std::vector<std::string>>();
  std::vector<std::string> texts;
  for (int time = 0; time < 3; ++time) texts.insert(texts.end(), lines.begin(), lines.begin() + kSentences);
  return texts;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("Training gives the reference trainer's vocabulary and merges") {
  const auto texts = sentences_three_times();
  const auto gpt2 = data::train_bpe(texts, 700);
  const auto expected = data::load_tokenizer(kGoldens / "gpt2.json");
  REQUIRE(gpt2->vocab_size() == expected->vocab_size());
  for (std::int64_t id = 0; id < gpt2->vocab_size(); ++id) CHECK(gpt2->token_of(id) == expected->token_of(id));
  for (const auto& text : texts) CHECK(gpt2->encode(text) == expected->encode(text));

  const auto llama3 = data::train_bpe(texts, 900, {.words = Words::llama3, .special_tokens = {}});
  const auto reference = data::load_tokenizer(kGoldens / "llama3.json");  // with three tokens added after training
  REQUIRE(llama3->vocab_size() == 900);
  for (std::int64_t id = 0; id < 900; ++id) CHECK(llama3->token_of(id) == reference->token_of(id));
}

TEST_CASE("The most frequent pair is merged first, of equals the one with smaller ids, runs from the left") {
  const std::vector<std::string> texts = {"aaaa bb bb cd cd cd"};
  const auto tokenizer = data::train_bpe(texts, 256 + 3, {.special_tokens = {}});
  CHECK(tokenizer->token_of(256) == "aa");  // three times, as "cd" and " c" are: a has the smallest id
  CHECK(tokenizer->token_of(257) == "cd");
  CHECK(tokenizer->token_of(258) == "Ġcd");
  CHECK(tokenizer->encode("aaa") == Ids{256, *tokenizer->id_of("a")});
}

TEST_CASE("Training twice gives the same file; the file gives the same ids") {
  const auto texts = sentences_three_times();
  const test::Scratch scratch;
  std::vector<std::int64_t> done;
  const auto progress = [&](std::int64_t tokens, std::int64_t total) {
    done.push_back(tokens);
    CHECK(total == 900);
  };
  const auto first = data::train_bpe(texts, 900, {.words = Words::llama3, .progress = progress});
  first->save(scratch.path() / "first.json");
  data::train_bpe(texts, 900, {.words = Words::llama3})->save(scratch.path() / "second.json");
  CHECK(bytes_of(scratch.path() / "first.json").find("p{N}{1,3}|") != std::string::npos);  // cuts as it was trained
  CHECK(bytes_of(scratch.path() / "first.json") == bytes_of(scratch.path() / "second.json"));
  CHECK(done.size() >= 2);
  CHECK(done.back() == 900);
  CHECK(std::is_sorted(done.begin(), done.end()));
  const auto again = data::load_tokenizer(scratch.path() / "first.json");
  CHECK(again->special_tokens().size() == 1);
  for (const auto& text : texts) CHECK(again->encode(text) == first->encode(text));
}

TEST_CASE("Training stops where no pair is frequent enough") {
  const std::vector<std::string> texts = {"abc", "abd", ""};
  const auto tokenizer = data::train_bpe(texts, 1000, {.special_tokens = {}});
  CHECK(tokenizer->vocab_size() == 257);  // "ab" twice, all else once
  CHECK(data::train_bpe(texts, 1000, {.special_tokens = {}, .min_frequency = 1})->vocab_size() == 259);
  const auto empty = data::train_bpe({}, 300);
  CHECK(empty->vocab_size() == 257);
  CHECK(empty->decode(empty->encode("né")) == "né");
}

TEST_CASE("Training refuses what cannot be") {
  const std::vector<std::string> texts = {"abc"};
  const auto message = [&](std::int64_t size, const data::TrainBpeOptions& options) {
    return test::message_of([&] { data::train_bpe(texts, size, options); });
  };
  CHECK(message(256, {}).starts_with("[train_bpe] found a vocabulary of 256, expected 257"));
  CHECK(message(1 << 25, {}).starts_with("[train_bpe] found a vocabulary of 33554432"));
  CHECK(message(300, {.special_tokens = {"a"}}).starts_with("[train_bpe] special token"));
  CHECK(message(300, {.special_tokens = {"<s>", "<s>"}}).starts_with("[train_bpe] special token 1: found a second id"));
  CHECK(message(300, {.special_tokens = {""}}).find("expected non-empty UTF-8") != std::string::npos);
  CHECK(message(300, {.special_tokens = {"\xff"}}).find("expected non-empty UTF-8") != std::string::npos);
  CHECK(message(300, {.min_frequency = 0}).find("min_frequency 0") != std::string::npos);
}

TEST_CASE("No text becomes a special token that is not parsed") {
  const std::vector<std::string> texts(50, "PAD the PAD theme PAD");
  const std::vector<std::string> special = {"<|endoftext|>", "PAD", "the", "ĠPA"};  // the last: " PA" spelled
  const auto tokenizer = data::train_bpe(texts, 280, {.special_tokens = special});
  for (const std::string text : {"PAD", "the theme", " PAD PA"}) {
    const Ids ids = tokenizer->encode(text, {.parse_special_tokens = false});
    for (const auto id : ids) CHECK(id >= 4);
    CHECK(tokenizer->decode(ids, {.skip_special_tokens = true}) == text);
  }
  CHECK(tokenizer->encode("PADthe") == Ids{1, 2});
  const test::Scratch scratch;
  tokenizer->save(scratch.path() / "tokenizer.json");
  const auto again = data::load_tokenizer(scratch.path());
  for (const std::string text : {"PAD", "the theme", " PAD PA<|endoftext|>"})
    CHECK(again->encode(text) == tokenizer->encode(text));
}
