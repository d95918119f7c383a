// What each setting of a tokenizer.json does, on vocabularies of a few tokens, and that all of them are saved.
#include <fstream>
#include <nlohmann/json.hpp>

#include <stet/data/tokenizers/tokenizer.h>

#include "support/catch.h"
#include "support/scratch.h"

using namespace stet;
using nlohmann::json;
using Ids = std::vector<std::int64_t>;

namespace {

/// Byte-level BPE without any cut.
json bpe(const json& vocab, const json& merges = json::array()) {
  const json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"added_tokens", json::array()},
          {"pre_tokenizer", byte_level},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

json added(std::int64_t id, const std::string& content, bool special, bool normalized = false) {
  return {{"id", id},        {"content", content}, {"single_word", false},    {"lstrip", false},
          {"rstrip", false}, {"special", special}, {"normalized", normalized}};
}

std::unique_ptr<data::Tokenizer> load(const json& file) {
  const test::Scratch scratch;
  return data::load_tokenizer(scratch.write("tokenizer.json", file.dump()));
}

}  // namespace

TEST_CASE("Of added tokens that begin at one place the longest counts") {
  json file = bpe({{"a", 0}, {"b", 1}, {"<", 2}, {">", 3}});
  file["added_tokens"] = {added(4, "<a>", true), added(5, "<a><b>", true)};
  CHECK(load(file)->encode("<a><b><a>b") == Ids{5, 4, 1});
}

TEST_CASE("Inside a special token that is not parsed no other added token is looked for") {
  json file = bpe({{"a", 0}, {"b", 1}, {"<", 2}, {">", 3}});
  file["added_tokens"] = {added(4, "<ab>", true), added(5, "ab", false)};
  CHECK(load(file)->encode("<ab>ab") == Ids{4, 5});
  CHECK(load(file)->encode("<ab>ab", {.parse_special_tokens = false}) == Ids{2, 0, 1, 3, 5});
}

TEST_CASE("Added tokens that are not special stay in a text without special ones") {
  json file = bpe({{"a", 0}, {"b", 1}});
  file["added_tokens"] = {added(2, "<s>", true), added(3, "ab", false)};
  const auto tokenizer = load(file);
  CHECK(tokenizer->decode(Ids{2, 3, 0}, {.skip_special_tokens = true}) == "aba");
  CHECK(tokenizer->special_tokens().size() == 1);
}

TEST_CASE("Added tokens are looked for in the normalized text where they say so, else in the text as it is") {
  json file = bpe({{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}});
  file["normalizer"] = {{"type", "Lowercase"}};
  file["added_tokens"] = {added(4, "AB", false, true), added(5, "CD", false)};
  CHECK(load(file)->encode("abABcdCD") == Ids{4, 4, 2, 3, 5});
}

TEST_CASE("Bytes without a token are the unknown one, a run of them once where they are fused") {
  json file = bpe({{"a", 0}, {"<unk>", 1}});
  file["model"]["unk_token"] = "<unk>";
  CHECK(load(file)->encode("bbabab") == Ids{1, 1, 0, 1, 0, 1});
  file["model"]["fuse_unk"] = true;
  CHECK(load(file)->encode("bbabab") == Ids{1, 0, 1, 0, 1});
}

TEST_CASE("ByteLevel cuts by GPT-2's expression unless it says otherwise") {
  json file = bpe({{"a", 0}, {"\u0120", 1}, {"a\u0120", 2}}, json::array({"a \u0120"}));
  CHECK(load(file)->encode("a a") == Ids{2, 0});
  file["pre_tokenizer"].erase("use_regex");
  CHECK(load(file)->encode("a a") == Ids{0, 1, 0});
}

TEST_CASE("Normalizers change what their names say") {
  json file = bpe({{"f", 0}, {"i", 1}, {"\u00cc", 2}, {"\u0129", 3}});  // the last two: bytes CC and 87
  for (const char* name : {"NFKC", "NFKD"}) {
    file["normalizer"] = {{"type", name}};
    CHECK(load(file)->encode("\ufb01") == Ids{0, 1});  // the ligature
  }
  file["normalizer"] = {{"type", "Lowercase"}};
  CHECK(load(file)->encode("F\u0130") == Ids{0, 1, 2, 3});  // I with a dot: i and the combining dot
}

TEST_CASE("A word of as many characters as are allowed has pieces, a longer one is unknown") {
  const json file{
      {"version", "1.0"},
      {"added_tokens", json::array()},
      {"normalizer",
       {{"type", "BertNormalizer"}, {"clean_text", true}, {"handle_chinese_chars", true}, {"lowercase", false}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 3},
        {"vocab", {{"[UNK]", 0}, {"\u00e9", 1}, {"##\u00e9", 2}, {"a", 3}, {"\u4e00", 4}, {"\u9fff", 5}}}}}};
  const auto tokenizer = load(file);
  CHECK(tokenizer->encode("\u00e9\u00e9\u00e9 \u00e9\u00e9\u00e9\u00e9") == Ids{1, 2, 2, 0});
  CHECK(tokenizer->encode("a\u4e00a\u9fffa") == Ids{3, 4, 3, 5, 3});  // first and last ideograph of a block
}

TEST_CASE("All settings of a byte-level BPE are saved") {
  json file = bpe({{"a", 0}, {"b", 1}, {"ab", 2}, {"<unk>", 3}}, json::array({json::array({"a", "b"})}));
  file["normalizer"] = {{"type", "NFKD"}};
  file["added_tokens"] = {added(3, "<unk>", true), added(4, "<l>", true), added(5, "<r>", false), added(6, "N", false)};
  file["added_tokens"][1]["lstrip"] = file["added_tokens"][2]["rstrip"] = file["added_tokens"][3]["normalized"] = true;
  file["model"].update({{"unk_token", "<unk>"}, {"fuse_unk", true}, {"ignore_merges", true}});
  const test::Scratch scratch;
  const auto path = scratch.path() / "saved.json";
  load(file)->save(path);
  const json saved = json::parse(std::ifstream(path));
  for (const char* part : {"added_tokens", "normalizer", "pre_tokenizer"}) CHECK(saved[part] == file[part]);
  for (const char* part : {"vocab", "merges", "unk_token", "fuse_unk", "ignore_merges"})
    CHECK(saved["model"][part] == file["model"][part]);
}

TEST_CASE("Tokens that are not normalized are looked for in the whole text first, without a normalizer too") {
  json file = bpe({{"a", 0}, {"x", 1}, {"<", 2}, {">", 3}});
  file["added_tokens"] = {added(4, "<a>", true), added(5, "x<a", false, true)};
  CHECK(load(file)->encode("x<a>x<a") == Ids{1, 4, 5});
}

TEST_CASE("An added token that the model has as well is saved in its vocabulary") {
  json file = bpe({{"<s>", 0}, {"a", 1}, {"b", 2}, {"c", 3}, {"ab", 4}, {"abc", 5}},
                  json::array({json::array({"a", "b"}), json::array({"ab", "c"})}));
  file["added_tokens"] = {added(0, "<s>", true), added(3, "c", false), added(4, "ab", false), added(5, "abc", false),
                          added(6, "<t>", true)};
  const test::Scratch scratch;
  const auto path = scratch.path() / "saved.json";
  const auto tokenizer = load(file);
  tokenizer->save(path);
  // Without <s> in its vocabulary other libraries would give the ids from 0 anew.
  CHECK(json::parse(std::ifstream(path))["model"]["vocab"] == file["model"]["vocab"]);
  const auto again = data::load_tokenizer(path);
  for (const char* text : {"abc", "aabcab", "c<s><t>"}) CHECK(again->encode(text) == tokenizer->encode(text));
}
