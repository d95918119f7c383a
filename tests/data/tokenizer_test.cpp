// The tokenizers' own promises: any bytes come back, special tokens, errors, files that are found in folders.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <thread>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;
using Ids = std::vector<std::int64_t>;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "tokenizers";

std::unique_ptr<data::Tokenizer> golden(const std::string& name) { return data::load_tokenizer(kGoldens / name); }

/// Random bytes in which characters, parts of characters, white space and special tokens are frequent.
std::string random_bytes(std::uint64_t& state) {
  const auto draw = [&](std::uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  static const std::string parts[] = {"\xc3\xa9",
                                      "\xf0\x9f\x98\x80",
                                      "\xe6\xbc\xa2",
                                      "\xed\xa0\x80",
                                      "\xc0\x80",
                                      "\xf4\x90\x80\x80",
                                      " ",
                                      "  ",
                                      "\r\n",
                                      "\n",
                                      "\xc2\xa0",
                                      "'s",
                                      "'LL",
                                      "12",
                                      "word",
                                      "<|endoftext|>",
                                      "<|",
                                      std::string(1, '\0'),
                                      "\xff",
                                      "\xe6\xbc"};
  std::string text;
  for (std::uint64_t n = draw(24); n > 0; --n)
    text += draw(3) ? parts[draw(std::size(parts))] : std::string(1, static_cast<char>(draw(256)));
  return text;
}

}  // namespace

TEST_CASE("decode(encode(x)) == x for any bytes") {
  std::uint64_t state = 1;
  std::size_t strings = 0;
  for (const char* name : {"gpt2.json", "llama3.json", "smollm.json"}) {
    const auto tokenizer = golden(name);
    for (int i = 0; i < 40'000; ++i, ++strings) {
      const std::string text = random_bytes(state);
      const Ids ids = tokenizer->encode(text, {.add_special_tokens = false, .parse_special_tokens = i % 2 == 0});
      for (const auto id : ids) REQUIRE((id >= 0 && id < tokenizer->vocab_size()));
      if (tokenizer->decode(ids) != text) FAIL(name << ", string " << i);
    }
  }
  std::cout << "decode(encode(x)) == x for " << strings << " random byte strings\n";
}

TEST_CASE("Normalisers take any bytes without failing") {
  std::uint64_t state = 2;
  for (const char* name : {"bert.json", "bert_cased.json", "qwen2.json", "prefixed.json"}) {
    const auto tokenizer = golden(name);
    for (int i = 0; i < 5'000; ++i) CHECK_NOTHROW(tokenizer->decode(tokenizer->encode(random_bytes(state))));
  }
}

TEST_CASE("llama2.c's tokenizer gives llama2.c's ids and any bytes back") {
  const char* shared = std::getenv("STET_SHARED_DATA");
  const fs::path file =
      (shared ? fs::path(shared) : fs::path(STET_SOURCE_DIR) / ".." / "shared" / "data") / "stories260k" / "tok512.bin";
  if (!fs::exists(file)) {
    std::cout << "skipped: no llama2.c tokenizer at " << file << " (STET_SHARED_DATA names the folder above it)\n";
    return;
  }
  const auto tokenizer = data::load_tokenizer(file);
  CHECK(tokenizer->vocab_size() == 512);
  const Ids once = tokenizer->encode("Once upon a time");
  CHECK(once.front() == 1);
  CHECK(once == Ids{1, 403, 407, 261, 378});
  CHECK(tokenizer->decode(once, {.skip_special_tokens = true}) == "Once upon a time");
  std::uint64_t state = 3;
  for (int i = 0; i < 10'000; ++i) {
    const std::string text = random_bytes(state);
    REQUIRE(tokenizer->decode(tokenizer->encode(text), {.skip_special_tokens = true}) == text);
  }
}

TEST_CASE("Special tokens are found, parsed on request, skipped on request") {
  const auto tokenizer = golden("gpt2.json");
  CHECK(tokenizer->id_of("<|endoftext|>") == 0);
  CHECK(tokenizer->id_of("no such token") == std::nullopt);
  CHECK(tokenizer->token_of(*tokenizer->id_of("Ġ")) == "Ġ");
  REQUIRE(tokenizer->special_tokens().size() == 1);
  CHECK(tokenizer->special_tokens()[0].content == "<|endoftext|>");
  const std::string text = "a<|endoftext|>b";
  const Ids parsed = tokenizer->encode(text), plain = tokenizer->encode(text, {.parse_special_tokens = false});
  CHECK(parsed.size() == 3);
  CHECK(parsed[1] == 0);
  CHECK(std::find(plain.begin(), plain.end(), 0) == plain.end());
  CHECK(tokenizer->decode(parsed) == text);
  CHECK(tokenizer->decode(plain) == text);
  CHECK(tokenizer->decode(parsed, {.skip_special_tokens = true}) == "ab");
}

TEST_CASE("BERT's pieces become words again") {
  const auto tokenizer = golden("bert.json");
  const Ids ids = tokenizer->encode("The quick, brown Fox!");
  CHECK(tokenizer->token_of(ids.front()) == "[CLS]");
  CHECK(tokenizer->token_of(ids.back()) == "[SEP]");
  CHECK(tokenizer->decode(ids) == "[CLS] the quick, brown fox! [SEP]");
  CHECK(tokenizer->decode(ids, {.skip_special_tokens = true}) == "the quick, brown fox!");
  CHECK(tokenizer->encode(std::string(101, 'a'), {.add_special_tokens = false}) == Ids{1});
}

TEST_CASE("Ids without a token are refused by position") {
  const auto tokenizer = golden("gpt2.json");
  const std::string size = std::to_string(tokenizer->vocab_size());
  CHECK(test::message_of([&] {
          tokenizer->decode(Ids{1, 2, tokenizer->vocab_size()});
        }) == "[decode] ids[2]: found " + size + ", expected the id of a token, below " + size);
  CHECK(test::message_of([&] { tokenizer->decode(Ids{-1}); }).starts_with("[decode] ids[0]: found -1"));
  CHECK(test::message_of([&] { tokenizer->token_of(-1); }).starts_with("[token_of] found id -1"));
}

TEST_CASE("A folder's files are recognised by their names") {
  const test::Scratch scratch;
  CHECK(test::message_of([&] { data::load_tokenizer(scratch.path()); }).find("found 0 tokenizer files") !=
        std::string::npos);
  fs::copy_file(kGoldens / "vocab.txt", scratch.path() / "vocab.txt");
  scratch.write("tokenizer_config.json", R"({"tokenizer_class":"BertTokenizer","do_lower_case":false})");
  CHECK(data::load_tokenizer(scratch.path())->encode("THE") != golden("bert.json")->encode("THE"));
  scratch.write("vocab.json", R"({"a":0,"b":1,"ab":2,"<|endoftext|>":3})");
  scratch.write("merges.txt", "#version: 0.2\na b\n");
  fs::remove(scratch.path() / "tokenizer_config.json");
  CHECK(data::load_tokenizer(scratch.path())->encode("abb<|endoftext|>") == Ids{2, 1, 3});
  CHECK(test::message_of([&] {
          data::load_tokenizer(scratch.path())->encode("c");
        }).starts_with("[encode] found byte 99"));
  fs::copy_file(kGoldens / "bert.json", scratch.path() / "tokenizer.json");
  CHECK(data::load_tokenizer(scratch.path())->encode("THE") == golden("bert.json")->encode("THE"));
}

TEST_CASE("A long text without any cut is encoded in good time, as its parts are") {
  const auto tokenizer = golden("gpt2.json");
  const std::string text(300'000, 'a');
  CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
}

TEST_CASE("Threads that share a tokenizer get the same ids") {
  const auto tokenizer = golden("llama3.json");
  const std::string text = "The quick brown fox, doesn't it? 1234 naïve\n\n";
  const Ids expected = golden("llama3.json")->encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2'000; ++i) wrong[t] += tokenizer->encode(text) != expected;
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("A saved tokenizer is the same one; kinds that cannot be saved say so") {
  const test::Scratch scratch;
  std::uint64_t state = 4;
  for (const char* name : {"gpt2.json", "llama3.json", "smollm.json", "qwen2.json", "prefixed.json"}) {
    const auto tokenizer = golden(name);
    tokenizer->save(scratch.path() / "tokenizer.json");
    const auto again = data::load_tokenizer(scratch.path());
    CHECK(again->vocab_size() == tokenizer->vocab_size());
    for (int i = 0; i < 500; ++i) {
      const std::string text = random_bytes(state);
      REQUIRE(again->encode(text) == tokenizer->encode(text));
    }
  }
  CHECK(test::message_of([&] {
          golden("bert.json")->save(scratch.path() / "x.json");
        }).find("only byte-level BPE can") != std::string::npos);
  CHECK(test::message_of([&] {
          golden("gpt2.json")->save(scratch.path() / "absent" / "x.json");
        }).find("could not be written") != std::string::npos);
}

TEST_CASE("A folder's tokenizer files are copied, chat templates included, but not onto themselves") {
  const test::Scratch scratch;
  const fs::path from = scratch.path() / "from", to = scratch.path() / "to";
  const std::vector<std::string> own = {"tokenizer.json",     "tokenizer_config.json",
                                        "tekken.json",        "chat_template.jinja",
                                        "chat_template.json", "additional_chat_templates/tools.jinja"};
  for (const auto& name : own) scratch.write("from/" + name, name);
  for (const char* name : {"config.json", "model.safetensors", "templates/x.jinja"})
    scratch.write(std::string("from/") + name, "");
  scratch.write("to/tokenizer.json", "another");
  data::copy_tokenizer(from, to);
  std::size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(to)) files += entry.is_regular_file();
  CHECK(files == own.size());
  for (const auto& name : own) {
    CHECK(fs::file_size(to / name) == name.size());
    CHECK(data::is_tokenizer_file(fs::path(name).begin()->string()));
  }
  CHECK_NOTHROW(data::copy_tokenizer(to, scratch.path() / "from" / ".." / "to"));
  fs::remove(to / "tokenizer.json");
  fs::create_hard_link(from / "tokenizer.json", to / "tokenizer.json");
  CHECK_NOTHROW(data::copy_tokenizer(from, to));
  CHECK(test::message_of([&] { data::copy_tokenizer(scratch.path() / "absent", to); }).starts_with("[copy_tokenizer]"));
}
