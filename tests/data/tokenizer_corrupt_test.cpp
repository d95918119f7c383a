// Damaged and unsupported tokenizer files: each gives an Error that names the file and the place, and none crashes.
#include <cstring>
#include <iostream>
#include <set>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;

namespace {

const std::string kBpe = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[
{"id":4,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"NFC"},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},
{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[4],"tokens":["<s>"]}}},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"a":0,"b":1,"ab":2,"abab":3},"merges":[["a","b"],"ab ab"]}})";

const std::string kWords = R"({"version":"1.0","added_tokens":[
{"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"un":4,"##able":5}}})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  INFO(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::size_t files = 0;
std::set<std::string> classes;

/// The file is refused, and the message names it and holds every one of the parts.
void refuse(const std::string& kind, const test::Scratch& scratch, const std::string& name, const std::string& bytes,
            const std::vector<std::string>& parts) {
  const auto file = scratch.write(name, bytes);
  const std::string message = test::message_of([&] { data::load_tokenizer(file); });
  INFO(kind << ": " << message);
  CHECK(message.starts_with("[load_tokenizer] " + file.parent_path().string()));
  for (const auto& part : parts) {
    INFO("expected in it: " << part);
    CHECK(message.find(part) != std::string::npos);
  }
  ++files;
  classes.insert(kind);
}

struct Change {
  const char* kind;
  std::string from, to;
  std::vector<std::string> parts;
};

void refuse_changes(const std::string& good, const std::vector<Change>& changes) {
  const test::Scratch scratch;
  for (const Change& c : changes) refuse(c.kind, scratch, "tokenizer.json", replaced(good, c.from, c.to), c.parts);
}

std::string little_endian(std::int32_t value) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &value, 4);
  return bytes;
}

std::string llama2c_token(float score, const std::string& text) {
  std::int32_t bits = 0;
  std::memcpy(&bits, &score, 4);
  return little_endian(bits) + little_endian(static_cast<std::int32_t>(text.size())) + text;
}

std::string llama2c_file() {
  std::string bytes =
      little_endian(7) + llama2c_token(0, "<unk>") + llama2c_token(0, "\n<s>\n") + llama2c_token(0, "\n</s>\n");
  for (int i = 0; i < 256; ++i) {
    constexpr char digits[] = "0123456789ABCDEF";
    bytes += llama2c_token(0, {'<', '0', 'x', digits[i / 16], digits[i % 16], '>'});
  }
  return bytes + llama2c_token(-1, "ab") + llama2c_token(-2, " ") + llama2c_token(-3, "a") + llama2c_token(-4, "b");
}

}  // namespace

TEST_CASE("The undamaged files are read") {
  const test::Scratch scratch;
  const auto bpe = data::load_tokenizer(scratch.write("tokenizer.json", kBpe));
  CHECK(bpe->encode("ababab<s>") == std::vector<std::int64_t>{4, 3, 2, 4});
  CHECK(bpe->vocab_size() == 5);
  const auto words = data::load_tokenizer(scratch.write("words.json", kWords));
  CHECK(words->encode("Unable x") == std::vector<std::int64_t>{2, 4, 5, 1, 3});
  const auto llama = data::load_tokenizer(scratch.write("tok.bin", llama2c_file()));
  CHECK(llama->encode("abc") == std::vector<std::int64_t>{1, 260, 259, 'c' + 3});
}

TEST_CASE("Every truncation of a tokenizer.json is refused") {
  const test::Scratch scratch;
  for (std::size_t size = 0; size < kBpe.size(); ++size)
    refuse("truncated json", scratch, "tokenizer.json", kBpe.substr(0, size), {"not JSON"});
  for (std::size_t size = 0; size < kWords.size(); ++size)
    refuse("truncated json", scratch, "tokenizer.json", kWords.substr(0, size), {"not JSON"});
}

TEST_CASE("Any byte of a tokenizer.json may change: it is read, or refused with an Error") {
  const test::Scratch scratch;
  std::uint64_t state = 1;
  for (int i = 0; i < 2'000; ++i) {
    std::string bytes = i % 2 ? kBpe : kWords;
    state = state * 6364136223846793005u + 1442695040888963407u;
    bytes[(state >> 33) % bytes.size()] = static_cast<char>(state >> 24);
    const auto file = scratch.write("tokenizer.json", bytes);
    const std::string message =
        test::message_of([&] { data::load_tokenizer(file)->decode(std::vector<std::int64_t>{0}); });
    INFO(message);
    CHECK((message == "no error" || message.starts_with("[load_tokenizer] " + file.string()) ||
           message.starts_with("[decode] ")));
  }
}

TEST_CASE("Damaged values of a tokenizer.json are refused by key") {
  const std::string huge(400, '9'), deep(100, '[');
  refuse_changes(
      kBpe,
      {
          {"not JSON", "\"version\":", "\"version\"", {"not JSON at byte"}},
          {"not JSON", "}}", "}}x", {"not JSON"}},
          {"invalid UTF-8", "\"abab\"", "\"a\xff\"", {"not JSON at byte", "UTF-8"}},
          {"invalid UTF-8", "\"<s>\"", "\"\xc3\"", {"UTF-8"}},
          {"invalid UTF-8", "\"<s>\"", "\"\\ud800\"", {"not JSON"}},
          {"invalid UTF-8", "\"<s>\"", "\"\xed\xa0\x80\"", {"UTF-8"}},
          {"NUL byte", "\"a\":0", std::string("\"\0\":0", 5), {"found a NUL"}},
          {"too deep", "null", deep, {"deeper than 32"}},
          {"duplicate key", "\"b\":1", "\"a\":1", {"found the key \"a\" twice"}},
          {"duplicate key", "\"padding\":null", "\"version\":null", {"found the key \"version\" twice"}},
          {"duplicate id", "\"b\":1", "\"b\":0", {"model.vocab.b near byte", "found id 0, which \"a\" has already"}},
          {"duplicate id", "\"id\":4", "\"id\":3", {"added_tokens[0].id", "found id 3, which \"abab\" has already"}},
          {"duplicate id", "\"<s>\",\"single", "\"ab\",\"single", {"added_tokens[0].id", "second id 4 beside 2"}},
          {"huge number", "\"b\":1", "\"b\":" + huge, {"not JSON"}},
          {"huge number", "\"b\":1", "\"b\":18446744073709551615", {"model.vocab.b", "expected an integer"}},
          {"huge number", "\"b\":1", "\"b\":9223372036854775807", {"model.vocab.b", "9223372036854775807"}},
          {"huge number", "\"b\":1", "\"b\":16777215", {"model.vocab", "expected ids below 1032"}},
          {"huge number", "\"id\":4", "\"id\":16777215", {"added_tokens", "expected ids below"}},
          {"huge number", "\"b\":1", "\"b\":1e3", {"model.vocab.b", "found 1000"}},
          {"negative number", "\"b\":1", "\"b\":-1", {"model.vocab.b", "found -1"}},
          {"negative number", "[4]", "[-4]", {"post_processor.special_tokens.\"<s>\".ids[0]", "found -4"}},
          {"wrong type", "\"b\":1", "\"b\":\"1\"", {"model.vocab.b", "found the string \"1\""}},
          {"wrong type", "\"b\":1", "\"b\":1.5", {"model.vocab.b", "found 1.5"}},
          {"wrong type", "\"b\":1", "\"b\":null", {"model.vocab.b", "found null"}},
          {"wrong type", "\"b\":1", "\"b\":[1]", {"model.vocab.b", "found an array"}},
          {"wrong type", "\"b\":1", "\"b\":true", {"model.vocab.b", "found true"}},
          {"wrong type", "[\"a\",\"b\"]", "[\"a\",1]", {"model.merges[0][1]", "found 1, expected a string"}},
          {"wrong type", "[\"a\",\"b\"]", "{}", {"model.merges[0]", "expected a pair"}},
          {"wrong type", "[[\"a\",\"b\"],\"ab ab\"]", "3", {"model.merges", "found 3, expected an array"}},
          {"wrong type", "{\"a\":0,\"b\":1,\"ab\":2,\"abab\":3}", "[]", {"model.vocab", "found an array"}},
          {"wrong type", "\"ignore_merges\":false", "\"ignore_merges\":0", {"model.ignore_merges", "found 0"}},
          {"wrong type", "{\"type\":\"NFC\"}", "\"NFC\"", {"normalizer", "found the string \"NFC\""}},
          {"wrong type", "{\"type\":\"NFC\"}", "{\"type\":7}", {"normalizer.type", "found 7"}},
          {"wrong type", "\"special\":true", "\"special\":\"yes\"", {"added_tokens[0].special"}},
          {"wrong type", "\"add_prefix_space\":false", "\"add_prefix_space\":1", {"pretokenizers[1].add_prefix_space"}},
          {"wrong merge", "[\"a\",\"b\"]", "[\"a\",\"b\",\"a\"]", {"model.merges[0]", "expected a pair"}},
          {"wrong merge", "[\"a\",\"b\"]", "[]", {"model.merges[0]", "expected a pair"}},
          {"wrong merge", "\"ab ab\"", "\"abab\"", {"model.merges[1]", "with a space between"}},
          {"wrong merge", "\"ab ab\"", "\"a b a\"", {"model.merges[1]", "with a space between"}},
          {"unknown token in a merge", "[\"a\",\"b\"]", "[\"a\",\"c\"]", {"model.merges[0]", "found \"c\""}},
          {"unknown token in a merge", "[\"a\",\"b\"]", "[\"z\",\"b\"]", {"model.merges[0]", "found \"z\""}},
          {"unknown token in a merge", "[\"a\",\"b\"]", "[\"b\",\"a\"]", {"model.merges[0]", "merge into \"ba\""}},
          {"unknown token in a merge", "\"ab ab\"", "\"ab  ab\"", {"model.merges[1]"}},
          {"duplicate merge", "\"ab ab\"", "\"a b\"", {"model.merges[1]", "a second time"}},
          {"unknown token elsewhere", "\"unk_token\":null", "\"unk_token\":\"?\"", {"model.unk_token", "found \"?\""}},
          {"unknown token elsewhere",
           "{\"id\":\"<s>\",\"type_id\"",
           "{\"id\":\"<t>\",\"type_id\"",
           {"found no \"<t>\""}},
          {"unknown token elsewhere", "[4]", "[7]", {"post_processor.special_tokens.\"<s>\".ids[0]", "no token has"}},
          {"missing key", "\"merges\"", "\"merged\"", {"model.merged", "not supported"}},
          {"missing key", ",\"merges\":[[\"a\",\"b\"],\"ab ab\"]", "", {"model", "found no \"merges\""}},
          {"missing key", "\"id\":4,", "", {"added_tokens[0]", "found no \"id\""}},
          {"missing key", "\"type\":\"NFC\"", "", {"normalizer", "found no \"type\""}},
          {"missing key", ",\"behavior\":\"Isolated\"", "", {"pretokenizers[0]", "found no \"behavior\""}},
          {"missing key",
           "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},",
           "",
           {"found no decoder"}},
          {"unknown key", "\"padding\":null", "\"paddings\":null", {"paddings near byte", "not supported"}},
          {"unknown key", "\"lstrip\":false", "\"lstrip\":false,\"left\":1", {"added_tokens[0].left", "not supported"}},
          {"unknown key", "{\"type\":\"NFC\"}", "{\"type\":\"NFC\",\"form\":1}", {"normalizer.form"}},
          {"unsupported version", "\"1.0\"", "\"2.0\"", {"version", "found \"2.0\""}},
          {"unsupported normalizer", "\"NFC\"", "\"Precompiled\"", {"normalizer.type", "found \"Precompiled\""}},
          {"unsupported normalizer", "\"NFC\"", "\"Replace\"", {"normalizer.type", "found \"Replace\""}},
          {"unsupported normalizer",
           "{\"type\":\"NFC\"}",
           "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}",
           {"normalizer.normalizers[0].type", "found \"Nmt\""}},
          {"unsupported pre-tokenizer",
           "\"type\":\"Split\"",
           "\"type\":\"Metaspace\"",
           {"pre_tokenizer.pretokenizers[0].type", "found \"Metaspace\""}},
          {"unsupported pre-tokenizer",
           " ?\\\\p{N}+",
           " ?\\\\p{N}*",
           {"pattern.Regex", "expected the expression of GPT-2"}},
          {"unsupported pre-tokenizer", "\"Regex\"", "\"String\"", {"pattern.String", "not supported"}},
          {"unsupported pre-tokenizer", "\"Isolated\"", "\"Removed\"", {"behavior", "found \"Removed\""}},
          {"unsupported pre-tokenizer", "\"invert\":false", "\"invert\":true", {"invert", "found true"}},
          {"unsupported pre-tokenizer",
           "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}",
           "{\"type\":\"Digits\",\"individual_digits\":true}",
           {"pre_tokenizer", "found no ByteLevel"}},
          {"unsupported pre-tokenizer",
           "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}",
           "{\"type\":\"Digits\",\"individual_digits\":false}",
           {"individual_digits", "found false"}},
          {"unsupported post-processor",
           "\"TemplateProcessing\"",
           "\"Other\"",
           {"post_processor.type", "found \"Other\""}},
          {"unsupported post-processor", "{\"id\":\"A\"", "{\"id\":\"B\"", {"post_processor.single[1]", "sequence A"}},
          {"unsupported post-processor",
           ",{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}",
           "",
           {"post_processor.single", "no sequence A"}},
          {"unsupported decoder",
           "\"decoder\":{\"type\":\"ByteLevel\"",
           "\"decoder\":{\"type\":\"ByteFallback\"",
           {"decoder.type", "found \"ByteFallback\""}},
          {"unsupported model", "\"type\":\"BPE\"", "\"type\":\"Unigram\"", {"model.type", "found \"Unigram\""}},
          {"unsupported model", "\"byte_fallback\":false", "\"byte_fallback\":true", {"model.byte_fallback"}},
          {"unsupported model", "\"dropout\":null", "\"dropout\":0.1", {"model.dropout"}},
          {"unsupported model",
           "\"end_of_word_suffix\":null",
           "\"end_of_word_suffix\":\"</w>\"",
           {"model.end_of_word_suffix"}},
          {"unsupported added token", "\"single_word\":false", "\"single_word\":true", {"added_tokens[0].single_word"}},
          {"unsupported added token", "\"<s>\",\"single", "\"\",\"single", {"added_tokens[0].content"}},
      });
}

TEST_CASE("Damaged values of a WordPiece tokenizer.json are refused by key") {
  refuse_changes(
      kWords,
      {
          {"unknown token elsewhere", "\"unk_token\":\"[UNK]\"", "\"unk_token\":\"?\"", {"model.unk_token"}},
          {"unknown token elsewhere", "[\"[SEP]\",3]", "[\"[END]\",3]", {"post_processor.sep[0]", "found \"[END]\""}},
          {"unknown token elsewhere", "[\"[SEP]\",3]", "[\"[SEP]\",2]", {"post_processor.sep[1]", "another id"}},
          {"wrong type", "[\"[SEP]\",3]", "[\"[SEP]\"]", {"post_processor.sep", "expected a token and its id"}},
          {"wrong type", "[\"[SEP]\",3]", "\"[SEP]\"", {"post_processor.sep"}},
          {"huge number", ":100", ":99999999999", {"model.max_input_chars_per_word"}},
          {"negative number", ":100", ":-100", {"model.max_input_chars_per_word"}},
          {"wrong type", "\"lowercase\":true", "\"lowercase\":null", {"normalizer.lowercase", "found null"}},
          {"unknown key", "\"lowercase\"", "\"lower_case\"", {"normalizer.lower_case"}},
          {"missing key", ",\"prefix\":\"##\"", "", {"decoder", "found no \"prefix\""}},
          {"unsupported decoder",
           "\"type\":\"WordPiece\",\"prefix\"",
           "\"type\":\"ByteLevel\",\"prefix\"",
           {"decoder.type", "expected WordPiece"}},
          {"unsupported pre-tokenizer", "\"BertPreTokenizer\"", "\"Whitespace\"", {"pre_tokenizer.type"}},
          {"duplicate id", "\"un\":4", "\"un\":5", {"model.vocab", "has already"}},
      });
}

TEST_CASE("Damaged GPT-2, BERT, llama2.c and SentencePiece files are refused by line or byte") {
  const test::Scratch scratch;
  const auto merges = [&](const char* kind, const std::string& text, const std::vector<std::string>& parts) {
    scratch.write("merges.txt", text);
    refuse(kind, scratch, "vocab.json", R"({"a":0,"b":1,"ab":2})", parts);
  };
  merges("wrong merge", "#version: 0.2\na b\nab\n", {"merges.txt: line 3"});
  merges("wrong merge", "a b\n\n", {"merges.txt: line 2"});
  merges("unknown token in a merge", "#version: 0.2\na c\n", {"merges.txt: line 2", "found \"c\""});
  merges("duplicate merge", "a b\na b\n", {"merges.txt: line 2", "a second time"});
  merges("invalid UTF-8", "a \xff\n", {"merges.txt: line 1"});
  scratch.write("tokenizer_config.json", R"({"tokenizer_class":"Qwen2Tokenizer"})");
  merges("unsupported class", "a b\n", {"tokenizer_config.json: tokenizer_class", "found \"Qwen2Tokenizer\""});
  std::filesystem::remove(scratch.path() / "tokenizer_config.json");
  std::filesystem::remove(scratch.path() / "merges.txt");
  refuse("missing file", scratch, "vocab.json", R"({"a":0,"b":1,"ab":2})", {"merges.txt", "found no file"});

  const std::string bert = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n";
  refuse("duplicate token", scratch, "vocab.txt", bert + "the\n", {"line 6", "second id 5 beside 4"});
  refuse("empty line", scratch, "vocab.txt", bert + "\nof\n", {"line 6", "an empty line"});
  refuse("invalid UTF-8", scratch, "vocab.txt", bert + "\xc3\n", {"line 6", "not UTF-8"});
  refuse("missing token", scratch, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n", {"found no [SEP]"});
  refuse("missing token", scratch, "vocab.txt", "", {"found no [UNK]"});

  const std::string llama = llama2c_file();
  std::set<std::size_t> ends;  // where a token ends a shorter file is one with fewer tokens
  for (std::size_t at = 4; at < llama.size(); at += 8 + static_cast<unsigned char>(llama[at + 4])) ends.insert(at);
  for (std::size_t size = 0; size < llama.size(); ++size)
    if (!ends.contains(size) || size < llama.size() - 40)
      refuse("truncated llama2.c", scratch, "tok.bin", llama.substr(0, size), {});
  refuse("damaged llama2.c", scratch, "tok.bin", little_endian(-1) + llama.substr(4), {"byte 0"});
  refuse("damaged llama2.c", scratch, "tok.bin", little_endian(1 << 30) + llama.substr(4), {"byte 0"});
  refuse("damaged llama2.c", scratch, "tok.bin", llama + little_endian(0) + little_endian(-5),
         {"token 263", "length of -5"});
  refuse("damaged llama2.c", scratch, "tok.bin", llama + llama2c_token(0, "ab"), {"token 263", "a second time"});
  refuse("damaged llama2.c", scratch, "tok.bin", llama + little_endian(0x7f800000) + little_endian(1) + "x",
         {"not finite"});
  refuse("damaged llama2.c", scratch, "tok.bin", replaced(llama, "<0x41>", "<0x40>"), {"token 68", "expected <0x41>"});

  refuse("damaged SentencePiece", scratch, "tokenizer.model", "no model", {"SentencePiece"});
  refuse("unknown name", scratch, "tokenizer.xyz", "{}", {"says nothing about its format"});
  CHECK(test::message_of([&] { data::load_tokenizer(scratch.path() / "absent.json"); }).find("found no file") !=
        std::string::npos);
  std::cout << "tokenizers: " << files << " damaged files of " << classes.size() << " kinds refused\n";
}
