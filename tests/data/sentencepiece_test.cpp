// SentencePiece's models beyond their ids (tokenizer_golden_test.cpp): text from pieces, and the marks around a text.
#include <iostream>
#include <nlohmann/json.hpp>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;
using Catch::Matchers::Contains;
using Ids = std::vector<std::int64_t>;
using nlohmann::json;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "tokenizers";

/// Null, and a line that says so, where the build has no SentencePiece.
std::unique_ptr<data::Tokenizer> load(const fs::path& path) {
  try {
    return data::load_tokenizer(path);
  } catch (const Error& error) {
    if (std::string(error.what()).find("this build of stet has no SentencePiece") == std::string::npos) throw;
    std::cout << "skipped: " << error.what() << '\n';
    return nullptr;
  }
}

/// A folder with a model, the tokenizer.json made from it, and tokenizer_config.json.
struct Folder {
  test::Scratch scratch;
  json converted;

  explicit Folder(const data::Tokenizer& model) {
    fs::copy_file(kGoldens / "sp_bpe.model", scratch.path() / "tokenizer.model");
    converted = {{"version", "1.0"}, {"added_tokens", json::array()}};
    converted["model"] = {{"type", "BPE"}, {"byte_fallback", true}, {"vocab", json::object()}};
    for (std::int64_t id = 0; id < model.vocab_size(); ++id) converted["model"]["vocab"][model.token_of(id)] = id;
  }
  Ids ids(std::string_view text = "a b") const {
    scratch.write("tokenizer.json", converted.dump());
    return data::load_tokenizer(scratch.path())->encode(text);
  }
  std::string problem() const {
    return test::message_of([&] { ids(); });
  }
};

json template_of(const json& single) {
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"special_tokens",
           {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}},
            {"</s>", {{"id", "</s>"}, {"ids", {2}}, {"tokens", {"</s>"}}}}}}};
}
json special(const char* token) { return {{"SpecialToken", {{"id", token}, {"type_id", 0}}}}; }
const json kText = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};

}  // namespace

TEST_CASE("SentencePiece gives characters back that are spelled in bytes, one piece after the other") {
  for (const char* name : {"sp_bpe.model", "sp_unigram.model"}) {
    const auto tokenizer = load(kGoldens / name);
    if (!tokenizer) return;
    const std::string text = "ab 𓀀 z ₿!";
    const Ids ids = tokenizer->encode(text);
    const data::DecodeOptions skip{.skip_special_tokens = true};
    CHECK(tokenizer->decode(ids, skip) == text);
    CHECK(tokenizer->decode(ids) == "<s>" + text);
    std::string before;
    for (std::size_t n = 0; n <= ids.size(); ++n) {
      const std::string now = tokenizer->decode(std::span(ids).first(n), skip);
      CHECK(now.starts_with(before));
      CHECK(text.starts_with(now));
      before = now;
    }
    const auto byte = [&](const char* piece) { return tokenizer->id_of(piece).value(); };
    CHECK(tokenizer->decode(Ids{byte("<0xF0>"), byte("<0x0A>")}) == "\xf0\n");
    const Ids word = tokenizer->encode("ab", {.add_special_tokens = false});
    Ids behind{byte("<0x0A>")};
    behind.insert(behind.end(), word.begin(), word.end());
    CHECK(tokenizer->decode(word) == "ab");
    CHECK(tokenizer->decode(behind) == "\n ab");  // the space is taken from the beginning of a text alone
  }
}

TEST_CASE("SentencePiece takes any bytes without failing") {
  std::uint64_t state = 4;
  for (const char* name : {"sp_bpe.model", "sp_unigram.model"}) {
    const auto tokenizer = load(kGoldens / name);
    if (!tokenizer) return;
    for (int i = 0; i < 5'000; ++i) {
      std::string text;
      for (int n = i % 24; n > 0; --n)
        text += static_cast<char>((state = state * 6364136223846793005 + 1442695040888963407) >> 56);
      const Ids ids = tokenizer->encode(text);
      for (const auto id : ids) REQUIRE((id >= 0 && id < tokenizer->vocab_size()));
      CHECK_NOTHROW(tokenizer->decode(ids));
    }
  }
}

TEST_CASE("The marks around a text are those of tokenizer_config.json, or of the file that was made from the model") {
  const auto model = load(kGoldens / "sp_bpe.model");
  if (!model) return;
  const Ids plain = model->encode("a b", {.add_special_tokens = false});
  const auto with = [&](const Ids& before, const Ids& after) {
    Ids all = before;
    all.insert(all.end(), plain.begin(), plain.end());
    all.insert(all.end(), after.begin(), after.end());
    return all;
  };
  Folder folder(*model);
  CHECK(folder.ids() == with({1}, {}));
  folder.converted["post_processor"] = template_of({kText, special("</s>")});
  CHECK(folder.ids() == with({}, {2}));
  folder.converted["post_processor"] = template_of({special("<s>"), kText});
  CHECK(folder.ids() == with({1}, {}));
  folder.converted["normalizer"] = {{"type", "Sequence"},
                                    {"normalizers",
                                     {{{"type", "Prepend"}, {"prepend", "▁"}},
                                      {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  folder.converted["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  CHECK(folder.ids() == with({1}, {}));
  folder.converted["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}};
  CHECK(folder.ids() == with({1}, {}));
  folder.scratch.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false})");
  CHECK(folder.ids() == with({}, {}));
  CHECK(data::load_tokenizer(folder.scratch.path() / "tokenizer.model")->encode("a b") == with({}, {}));
  folder.scratch.write("tokenizer_config.json", R"({"add_bos_token": true, "add_eos_token": true})");
  CHECK(folder.ids() == with({1}, {2}));
}

TEST_CASE("What a SentencePiece model does not do and a file beside it asks for is refused") {
  const auto model = load(kGoldens / "sp_bpe.model");
  if (!model) return;
  const auto problem = [&](const char* key, const json& value) {
    Folder folder(*model);
    folder.converted[key] = value;
    return folder.problem();
  };
  CHECK_THAT(problem("normalizer", {{"type", "Lowercase"}}),
             Contains("tokenizer.json: normalizer.type near byte") && Contains("found \"Lowercase\""));
  CHECK_THAT(problem("normalizer", {{"type", "Prepend"}, {"prepend", "x"}}), Contains("normalizer.prepend"));
  CHECK_THAT(problem("normalizer", {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "▁"}}),
             Contains("normalizer"));
  CHECK_THAT(problem("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "never"}}),
             Contains("pre_tokenizer.prepend_scheme near byte") && Contains("found \"never\""));
  CHECK_THAT(problem("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}}),
             Contains("pre_tokenizer.add_prefix_space near byte") && Contains("found false"));
  CHECK_THAT(problem("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "▁"}, {"other", 1}}), Contains("other"));
  CHECK_THAT(problem("pre_tokenizer", {{"type", "Digits"}, {"individual_digits", true}}), Contains("found \"Digits\""));
  CHECK_THAT(problem("post_processor", template_of({special("</s>"), kText})), Contains("model's beginning"));
  CHECK_THAT(problem("post_processor", template_of({kText, special("<s>")})), Contains("model's end"));
  Folder folder(*model);
  folder.scratch.write("tokenizer_config.json", R"({"tokenizer_class": "T5Tokenizer"})");
  CHECK_THAT(folder.problem(),
             Contains("tokenizer_config.json: tokenizer_class near byte") && Contains("found \"T5Tokenizer\""));
  folder.scratch.write("tokenizer_config.json", R"({"add_prefix_space": false})");
  CHECK_THAT(folder.problem(), Contains("add_prefix_space near byte") && Contains("found false"));
}
