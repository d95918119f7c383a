// What tokenizer_config.json and the older files beside a vocabulary change. The ids are those of transformers 5.24,
// once its classes' own tokens, which it would make up, stand in the vocabulary.
#include <nlohmann/json.hpp>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;
using Catch::Matchers::Contains;
using nlohmann::json;
using Ids = std::vector<std::int64_t>;

namespace {

const json kVocab{{"<s>", 0}, {"a", 1}, {"b", 2}, {"\u0120", 3}, {"\u0120a", 4},
                  {"ab", 5},  {"<", 6}, {">", 7}, {"s", 8}};

/// A folder with some vocabulary, whose configuration changes.
struct Folder {
  test::Scratch scratch;

  void write(const char* name, const json& file) const { scratch.write(name, file.dump()); }
  Ids ids(const json& config, std::string_view text, const data::EncodeOptions& options = {}) const {
    write("tokenizer_config.json", config);
    return data::load_tokenizer(scratch.path())->encode(text, options);
  }
  std::string problem(const json& config) const {
    return test::message_of([&] { ids(config, ""); });
  }
};

json added(std::int64_t id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content}, {"single_word", false},  {"lstrip", false},
          {"rstrip", false}, {"special", special}, {"normalized", !special}};
}

/// As added_tokens_decoder has it.
json entry(const std::string& content, const json& changes = json::object()) {
  json token = added(0, content);
  token.erase("id");
  token.update(changes);
  return token;
}

json bpe_file() {
  const json byte_level{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  return {{"version", "1.0"},
          {"added_tokens", {added(0, "<s>")}},
          {"pre_tokenizer", byte_level},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", kVocab}, {"merges", {"\u0120 a", "a b"}}}}};
}

json bert_file(const json& changes = json::object()) {
  json normalizer{{"type", "BertNormalizer"},
                  {"clean_text", true},
                  {"handle_chinese_chars", true},
                  {"strip_accents", nullptr},
                  {"lowercase", true}};
  normalizer.update(changes);
  return {
      {"version", "1.0"},
      {"added_tokens", {added(0, "[UNK]")}},
      {"normalizer", normalizer},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab", {{"[UNK]", 0}, {"e", 1}, {"E", 2}, {"\u00e9", 3}, {"\u00c9", 4}, {"\u4e00", 5}, {"e\u4e00", 6}}}}}};
}

void write_gpt2(const Folder& folder) {
  folder.write("vocab.json", kVocab);
  folder.scratch.write("merges.txt", "#version: 0.2\n\u0120 a\na b\n");
}

void write_bert(const Folder& folder) {
  folder.scratch.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n<s>\n</s>\n?\n");
}

}  // namespace

TEST_CASE("add_prefix_space beside tokenizer.json counts for the classes that make their own pre-tokeniser") {
  const Folder folder;
  folder.write("tokenizer.json", bpe_file());
  const json set{{"add_prefix_space", true}};
  const auto ids = [&](json config, const char* name) {
    if (name) config["tokenizer_class"] = name;
    return folder.ids(config, "a");
  };
  for (const char* name : {"GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer"}) CHECK(ids(set, name) == Ids{4});
  CHECK(ids(set, nullptr) == Ids{4});
  for (const char* name : {"PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast"})
    CHECK(ids(set, name) == Ids{1});
  CHECK(ids({{"add_prefix_space", nullptr}}, "Qwen2Tokenizer") == Ids{1});
  json prefixed = bpe_file();
  prefixed["pre_tokenizer"]["add_prefix_space"] = true;
  folder.write("tokenizer.json", prefixed);
  CHECK(ids({{"add_prefix_space", false}}, "GPT2Tokenizer") == Ids{1});
  CHECK(ids({{"add_prefix_space", false}}, "PreTrainedTokenizerFast") == Ids{4});
}

TEST_CASE("A file of another name than tokenizer.json is taken as it is") {
  const Folder folder;
  folder.write("other.json", bpe_file());
  folder.write("tokenizer_config.json", {{"tokenizer_class", "GPT2Tokenizer"}, {"add_prefix_space", true}});
  CHECK(data::load_tokenizer(folder.scratch.path() / "other.json")->encode("a") == Ids{1});
}

TEST_CASE("BERT's settings in tokenizer_config.json have the last word over tokenizer.json") {
  const Folder folder;
  const auto ids = [&](const json& file, json config, const char* name = "BertTokenizer") {
    folder.write("tokenizer.json", bert_file(file));
    config["tokenizer_class"] = name;
    return folder.ids(config, "E \u00c9");
  };
  const json none = json::object();
  CHECK(ids(none, none) == Ids{1, 1});
  CHECK(ids(none, {{"do_lower_case", false}}) == Ids{2, 4});
  CHECK(ids(none, {{"do_lower_case", false}}, "DistilBertTokenizerFast") == Ids{2, 4});
  CHECK(ids(none, {{"do_lower_case", false}}, "PreTrainedTokenizerFast") == Ids{1, 1});
  CHECK(ids(none, {{"do_lower_case", false}, {"strip_accents", true}}) == Ids{2, 2});
  CHECK(ids(none, {{"strip_accents", false}}) == Ids{1, 3});
  CHECK(ids({{"lowercase", false}}, {{"do_lower_case", true}}) == Ids{1, 1});
  CHECK(ids({{"lowercase", false}}, none) == Ids{2, 4});
  CHECK(ids({{"strip_accents", false}}, {{"do_lower_case", true}}) == Ids{1, 3});
  CHECK(ids({{"strip_accents", false}}, {{"do_lower_case", true}, {"strip_accents", nullptr}}) == Ids{1, 1});
  folder.write("tokenizer.json", bert_file());
  CHECK(folder.ids({{"tokenize_chinese_chars", true}}, "e\u4e00") == Ids{1, 5});
  CHECK(folder.ids({{"tokenize_chinese_chars", false}}, "e\u4e00") == Ids{6});
}

TEST_CASE("Tokens that stand beside tokenizer.json alone are found in the text") {
  const Folder folder;
  folder.write("tokenizer.json", bpe_file());
  const json list{{"0", entry("<s>")}, {"9", entry("<p>")}};
  CHECK(folder.ids({{"added_tokens_decoder", list}}, "a<p>b<s>") == Ids{1, 9, 2, 0});
  CHECK(folder.ids({{"added_tokens_decoder", {{"0", entry("<s>", {{"lstrip", true}})}}}}, "a <s>") == Ids{1, 0});
  CHECK(folder.ids({{"pad_token", "<p>"}, {"image_token", "<i>"}, {"extra_special_tokens", {"<e>"}}}, "<p><i><e>") ==
        Ids{9, 10, 11});
  CHECK(folder.ids({{"eos_token", "ab"}}, "ab", {.parse_special_tokens = false}) == Ids{5});
  CHECK(folder.ids({{"eos_token", "b"}}, " ab") == Ids{4, 2});
  folder.write("added_tokens.json", {{"<a>", 10}, {"<p>", 9}});
  CHECK(folder.ids(json::object(), "<p><a>") == Ids{9, 10});
  CHECK(folder.ids({{"added_tokens_decoder", json::object()}}, "<a>") == Ids{6, 1, 7});  // the older file is not read
}

TEST_CASE("A configuration that agrees with tokenizer.json changes nothing") {
  const Folder folder;
  folder.write("tokenizer.json", bpe_file());
  const std::string text = "a <s> ab";
  const Ids expected = folder.ids(json::object(), text);
  const json list{{"0", entry("<s>")}};
  CHECK(folder.ids({{"model_max_length", 1024}}, text) == expected);  // GPT-2
  CHECK(
      folder.ids(json::parse(R"({"add_prefix_space": false, "bos_token": "<s>", "eos_token": "<s>", "unk_token": "<s>",
      "additional_special_tokens": ["<s>"], "clean_up_tokenization_spaces": false, "vocab_size": 49152,
      "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder":
      {"0": {"content": "<s>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
      "special": true}}})"),
                 text) == expected);  // SmolLM2
  CHECK(folder.ids({{"add_prefix_space", false},
                    {"bos_token", nullptr},
                    {"eos_token", "<s>"},
                    {"unk_token", nullptr},
                    {"errors", "replace"},
                    {"split_special_tokens", false},
                    {"extra_special_tokens", json::object()},
                    {"tokenizer_class", "Qwen2Tokenizer"},
                    {"added_tokens_decoder", list}},
                   text) == expected);  // Qwen2
  CHECK(folder.ids(
            {{"bos_token", {{"__type", "AddedToken"}, {"content", "<s>"}, {"lstrip", false}, {"normalized", true}}},
             {"add_bos_token", true},
             {"add_eos_token", false},
             {"tokenizer_class", "LlamaTokenizerFast"}},
            text) == expected);  // Llama 3 and its like: add_bos_token is not read beside tokenizer.json
  folder.write("special_tokens_map.json",
               {{"unk_token", "<s>"}, {"bos_token", {{"content", "<s>"}, {"lstrip", false}}}});
  CHECK(folder.ids({{"do_lower_case", true},
                    {"strip_accents", nullptr},
                    {"never_split", nullptr},
                    {"tokenize_chinese_chars", true},
                    {"do_basic_tokenize", true}},
                   text) == expected);  // MiniLM's, which says nothing to a BPE
}

TEST_CASE("GPT-2's files take marks and special tokens from the files beside them") {
  const Folder folder;
  write_gpt2(folder);
  const json named{{"tokenizer_class", "GPT2Tokenizer"}, {"bos_token", "<s>"}, {"eos_token", "b"}};
  const auto with = [&](const json& more) {
    json config = named;
    config.update(more);
    return config;
  };
  CHECK(folder.ids(json::object(), "a<s>") == Ids{1, 6, 8, 7});
  CHECK(folder.ids(named, "a<s>") == Ids{1, 0});
  CHECK(folder.ids(named, "a<s>", {.parse_special_tokens = false}) == Ids{1, 6, 8, 7});
  CHECK(folder.ids(with({{"add_bos_token", true}}), "a") == Ids{0, 1});
  CHECK(folder.ids(with({{"add_bos_token", true}}), "a", {.add_special_tokens = false}) == Ids{1});
  CHECK(folder.ids(with({{"add_bos_token", true}, {"add_eos_token", true}}), "a") == Ids{0, 1, 2});
  CHECK(folder.ids(with({{"add_bos_token", true}, {"bos_token", nullptr}}), "a") == Ids{1});
  CHECK_THAT(folder.problem({{"add_bos_token", true}}),
             Contains("tokenizer_config.json: add_bos_token near byte") && Contains("no token \"<|endoftext|>\""));
  CHECK(folder.ids(with({{"added_tokens_decoder", {{"9", entry("<p>")}, {"10", {{"content", "<q>"}}}}}}), "<p><q>") ==
        Ids{9, 10});
  folder.write("special_tokens_map.json", {{"eos_token", {{"content", "<s>"}, {"lstrip", true}}}});
  CHECK(folder.ids({{"eos_token", "b"}}, "b <s>") == Ids{2, 0});
  folder.write("added_tokens.json", {{"<p>", 9}});
  folder.write("tokenizer_config.json", {{"pad_token", "<p>"}});
  const auto tokenizer = data::load_tokenizer(folder.scratch.path());
  CHECK(tokenizer->decode(tokenizer->encode("a<p>b"), {.skip_special_tokens = true}) == "ab");
  // A named token is special, whatever the list says.
  const json list{{"8", entry("s", {{"special", false}})}};
  CHECK(folder.ids({{"added_tokens_decoder", list}, {"pad_token", "s"}}, "as", {.parse_special_tokens = false}) ==
        Ids{1, 8});
  const auto special = data::load_tokenizer(folder.scratch.path())->special_tokens();
  REQUIRE(special.size() == 1);
  CHECK(special[0].content == "s");
}

TEST_CASE("BERT's vocab.txt takes special tokens from the files beside it") {
  const Folder folder;
  write_bert(folder);
  CHECK(folder.ids({{"added_tokens_decoder", {{"9", entry("[NEW]")}}}}, "[NEW] a") == Ids{2, 9, 5, 3});
  CHECK(folder.ids({{"cls_token", "<s>"}, {"sep_token", "</s>"}, {"unk_token", "?"}}, "a x <s>") == Ids{6, 5, 8, 6, 7});
  CHECK_THAT(folder.problem({{"cls_token", "<c>"}}), Contains("vocab.txt: found no <c>"));
  CHECK_THAT(folder.problem({{"cls_token", nullptr}}), Contains("vocab.txt: found no cls_token"));
  folder.write("added_tokens.json", {{"Hallo", 9}});
  CHECK(folder.ids(json::object(), "hallo HALLO") == Ids{2, 9, 9, 3});
  CHECK(folder.ids(json::object(), "hallos") == Ids{2, 9, 1, 3});  // no piece of a word
}

TEST_CASE("What the files beside a vocabulary say against it is refused by key") {
  Folder folder;
  const auto refused = [&](const json& config, const char* key, const char* what) {
    CHECK_THAT(folder.problem(config), Contains(std::string("tokenizer_config.json: ") + key) && Contains(what));
  };
  const auto check_all = [&] {
    refused({{"added_tokens_decoder", {{"7", entry("a")}}}}, "added_tokens_decoder.\"7\"", "a second id 7 beside");
    refused({{"added_tokens_decoder", {{"20", entry("<p>")}}}}, "added_tokens_decoder.\"20\"",
            "found id 20 for \"<p>\"");
    refused({{"added_tokens_decoder", {{"x", entry("<p>")}}}}, "added_tokens_decoder.x", "expected an id");
    refused({{"added_tokens_decoder", {{"9", entry("")}}}}, "added_tokens_decoder.\"9\"", "expected a token");
    refused({{"added_tokens_decoder", {{"9", entry("<p>", {{"single_word", true}})}}}},
            "added_tokens_decoder.\"9\".single_word", "found true");
    refused({{"pad_token", 3}}, "pad_token", "found 3");
    refused({{"split_special_tokens", true}}, "split_special_tokens", "found true");
  };
  write_bert(folder);
  check_all();
  write_gpt2(folder);
  check_all();
  folder.write("tokenizer.json", bpe_file());
  check_all();
}
