// Hugging Face's tokenizer.json (the tokenizers library, src/tokenizer/serialization.rs and the files beside it).
// Every object's keys are checked: a field that is not known here is refused, for it may change the ids.
#include <unordered_set>

#include <stet/data/tokenizers/formats.h>
#include <stet/data/tokenizers/pipeline.h>
#include <stet/data/tokenizers/tokenizer_config.h>
#include <stet/tensor/json_file.h>

namespace stet::data::tokenizers {
namespace {

using Value = JsonFile::Value;

template <class... Parts> void require(bool ok, const Value& at, const Parts&... parts) {
  if (!ok) at.refuse(parts...);
}

/// Absent, null and `neutral` are the same; anything else is refused.
void expect_neutral(const Value& object, std::string_view key, std::string_view neutral) {
  const auto value = object.given(key);
  if (!value) return;
  const bool is_neutral = value->type() == JsonType::text   ? value->text() == neutral
                          : value->type() == JsonType::flag ? !value->flag()
                                                            : value->number() == 0;
  require(is_neutral, *value, "found a setting that is not supported, expected null");
}

bool flag_or(const Value& object, std::string_view key, bool otherwise) {
  const auto value = object.given(key);
  return value ? value->flag() : otherwise;
}

/// visit(object, type) for an object of a type, or for each member of a Sequence of them.
template <class Visit> void for_each_step(const Value& value, std::string_view list, int depth, Visit&& visit) {
  const Value type = value.at("type");
  if (type.text() != "Sequence") return visit(value, type.text());
  require(depth < 4, value, "found Sequences nested deeper than 4");
  value.expect_keys({"type", list});
  value.at(list).for_each_item([&](const Value& item) { for_each_step(item, list, depth + 1, visit); });
}

[[noreturn]] void refuse_type(const Value& object, std::string_view expected) {
  object.at("type").refuse("found ", quoted(object.at("type").text()), ", which is not supported, expected ", expected);
}

/// Settings of tokenizer_config.json that have the last word. The classes of transformers make their normaliser and
/// pre-tokeniser of them; some take tokenizer.json as it is.
class Overrides {
 public:
  explicit Overrides(const TokenizerConfig& config) {
    for (const std::string_view plain : {"PreTrainedTokenizer", "TokenizersBackend", "LlamaTokenizer"})
      if (config.class_name() == plain) return;
    config_ = &config;
  }
  bool flag(std::string_view key, bool otherwise) const { return config_ ? config_->flag(key, otherwise) : otherwise; }
  bool has(std::string_view key) const { return config_ && config_->has(key); }

 private:
  const TokenizerConfig* config_ = nullptr;
};

BertOptions read_bert_options(const Value& step, const Overrides& overrides) {
  step.expect_keys({"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"});
  const bool lower = overrides.flag("do_lower_case", step.at("lowercase").flag());
  const bool strip = flag_or(step, "strip_accents", lower);  // null: as lower
  return {.clean = step.at("clean_text").flag(),
          .cjk = overrides.flag("tokenize_chinese_chars", step.at("handle_chinese_chars").flag()),
          .strip_accents = overrides.flag("strip_accents", overrides.has("strip_accents") ? lower : strip),
          .lower = lower};
}

void read_normalizer(const Value& value, const Overrides& overrides, Normalizer& normalizer) {
  for_each_step(value, "normalizers", 0, [&](const Value& step, std::string_view type) {
    if (type == "BertNormalizer") return normalizer.add(read_bert_options(step, overrides));
    step.expect_keys({"type"});
    if (type == "NFC") normalizer.add(Step::nfc);
    else if (type == "NFD") normalizer.add(Step::nfd);
    else if (type == "NFKC") normalizer.add(Step::nfkc);
    else if (type == "NFKD") normalizer.add(Step::nfkd);
    else if (type == "Lowercase") normalizer.add(Step::lower);
    else refuse_type(step, "BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase or Sequence");
  });
}

Split read_split(const Value& step) {
  step.expect_keys({"type", "pattern", "behavior", "invert"});
  const Value pattern = step.at("pattern");
  pattern.expect_keys({"Regex"});
  const Value regex = pattern.at("Regex");
  require(step.at("behavior").text() == "Isolated", step.at("behavior"), "found ", quoted(step.at("behavior").text()),
          ", which is not supported, expected \"Isolated\"");
  require(!flag_or(step, "invert", false), step.at("invert"), "found true, which is not supported, expected false");
  for (const Split split : {Split::gpt2, Split::llama3, Split::qwen2})
    if (regex.text() == regex_of(split)) return split;
  regex.refuse("found ", quoted(regex.text()), ", expected the expression of GPT-2, Llama 3 or Qwen 2");
}

/// The cuts, and whether the last step spells bytes (the model is byte-level then).
bool read_pre_tokenizer(const Value& value, const Overrides& overrides, std::vector<Cut>& cuts) {
  bool byte_level = false;
  for_each_step(value, "pretokenizers", 0, [&](const Value& step, std::string_view type) {
    require(!byte_level, step, "found a step after ByteLevel, which is not supported, expected ByteLevel last");
    if (type == "ByteLevel") {
      step.expect_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
      if (overrides.flag("add_prefix_space", step.at("add_prefix_space").flag()))
        cuts.push_back({.prefix_space = true});
      if (flag_or(step, "use_regex", true)) cuts.push_back({.split = Split::gpt2});
      byte_level = true;
    } else if (type == "Split") {
      cuts.push_back({.split = read_split(step)});
    } else if (type == "Digits") {
      step.expect_keys({"type", "individual_digits"});
      require(step.at("individual_digits").flag(), step.at("individual_digits"),
              "found false, which is not supported, expected true");
      cuts.push_back({.split = Split::digits});
    } else if (type == "BertPreTokenizer") {
      step.expect_keys({"type"});
      cuts.push_back({.split = Split::bert});
    } else {
      refuse_type(step, "ByteLevel, Split, Digits, BertPreTokenizer or Sequence");
    }
  });
  return byte_level;
}

void read_decoder(const Value& value, bool byte_level, Decoder& decoder) {
  const std::string_view type = value.at("type").text();
  if (byte_level && type == "ByteLevel") {
    value.expect_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});  // none of which decoding reads
    decoder.kind = Decoder::Kind::byte_level;
  } else if (!byte_level && type == "WordPiece") {
    value.expect_keys({"type", "prefix", "cleanup"});
    decoder = {Decoder::Kind::word_piece, std::string(value.at("prefix").text()), value.at("cleanup").flag()};
  } else {
    refuse_type(value, byte_level ? "ByteLevel" : "WordPiece");
  }
}

void read_vocab(const Value& vocab, Vocabulary& vocabulary) {
  vocab.for_each_member([&](std::string_view token, const Value& id) {
    if (const auto problem = vocabulary.add(token, id.integer(0, kMaxId))) id.refuse(*problem);
  });
  if (const auto problem = vocabulary.seal()) vocab.refuse(*problem);
}

Id read_token(const Value& value, const Vocabulary& vocabulary) {
  const auto id = vocabulary.id_of(value.text());
  require(id.has_value(), value, "found ", quoted(value.text()), ", expected a token of the vocabulary");
  return *id;
}

/// "left right" in older files, ["left", "right"] in newer ones.
std::pair<std::string_view, std::string_view> read_pair(const Value& merge) {
  if (merge.type() == JsonType::text) {
    const std::string_view text = merge.text();
    const std::size_t space = text.find(' ');
    require(space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos, merge, "found ",
            quoted(text), ", expected two tokens with a space between");
    return {text.substr(0, space), text.substr(space + 1)};
  }
  require(merge.type() == JsonType::array && merge.count() == 2, merge, "expected a pair of tokens");
  std::string_view pair[2];
  std::size_t at = 0;
  merge.for_each_item([&](const Value& token) { pair[at++] = token.text(); });
  return {pair[0], pair[1]};
}

std::unique_ptr<Model> read_bpe(const Value& model, Vocabulary& vocabulary) {
  model.expect_keys({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                     "byte_fallback", "ignore_merges", "vocab", "merges"});
  for (const std::string_view key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    expect_neutral(model, key, "");
  read_vocab(model.at("vocab"), vocabulary);
  MergeRules rules(vocabulary);
  model.at("merges").for_each_item([&](const Value& merge) {
    const auto [left, right] = read_pair(merge);
    if (const auto problem = rules.add(left, right)) merge.refuse(*problem);
  });
  const auto unknown = model.given("unk_token");
  ByteBpe::Options options{.ignore_merges = flag_or(model, "ignore_merges", false),
                           .unknown = unknown && !unknown->text().empty() ? read_token(*unknown, vocabulary) : -1,
                           .fuse_unknown = flag_or(model, "fuse_unk", false)};
  return std::make_unique<ByteBpe>(vocabulary, rules.take(), options);
}

std::unique_ptr<Model> read_word_piece(const Value& model, Vocabulary& vocabulary) {
  model.expect_keys({"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"});
  read_vocab(model.at("vocab"), vocabulary);
  WordPiece::Options options{.prefix = std::string(model.at("continuing_subword_prefix").text()),
                             .unknown = read_token(model.at("unk_token"), vocabulary)};
  options.max_characters = static_cast<std::size_t>(model.at("max_input_chars_per_word").integer(1, 1 << 20));
  return std::make_unique<WordPiece>(vocabulary, options);
}

void read_added(const Value& list, Parts& parts) {
  std::unordered_set<std::string> contents;
  list.for_each_item([&](const Value& item) {
    item.expect_keys({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    const AddedToken token{.content = std::string(item.at("content").text()),
                           .id = item.at("id").integer(0, kMaxId),
                           .special = item.at("special").flag(),
                           .strip_left = item.at("lstrip").flag(),
                           .strip_right = item.at("rstrip").flag(),
                           .in_model = parts.vocabulary.id_of(item.at("content").text()).has_value(),
                           .normalized = item.at("normalized").flag()};
    require(!token.content.empty(), item.at("content"), "found \"\", expected a token");
    require(!item.at("single_word").flag(), item.at("single_word"),
            "found true, which is not supported, expected false");
    require(contents.insert(token.content).second, item, "found ", quoted(token.content),
            " twice, expected each token once");
    if (const auto problem = parts.vocabulary.add(token.content, token.id)) item.at("id").refuse(*problem);
    parts.added.push_back(token);
  });
  if (const auto problem = parts.vocabulary.seal()) list.refuse(*problem);
}

/// [["[SEP]", 102]] of BertProcessing and RobertaProcessing.
Id read_token_and_id(const Value& pair, const Vocabulary& vocabulary) {
  Id id = -1;
  std::size_t at = 0;
  pair.for_each_item([&](const Value& value) {
    if (at++ == 0) id = read_token(value, vocabulary);
    else require(value.integer(0, kMaxId) == id, value, "found another id than the vocabulary's, ", id);
  });
  require(at == 2, pair, "found ", at, " values, expected a token and its id");
  return id;
}

void read_template(const Value& step, Parts& parts) {
  step.expect_keys({"type", "single", "pair", "special_tokens"});
  const Value tokens = step.at("special_tokens");
  bool after_text = false;
  step.at("single").for_each_item([&](const Value& piece) {
    piece.expect_keys({"SpecialToken", "Sequence"});
    if (const auto token = piece.find("SpecialToken")) {
      const Value ids = tokens.at(token->at("id").text()).at("ids");
      ids.for_each_item([&](const Value& id) {
        require(parts.vocabulary.has(id.integer(0, kMaxId)), id, "found an id that no token has");
        (after_text ? parts.after : parts.before).push_back(id.integer(0, kMaxId));
      });
    } else {
      require(!after_text && piece.at("Sequence").at("id").text() == "A", piece, "expected the sequence A once");
      after_text = true;
    }
  });
  require(after_text, step.at("single"), "found no sequence A, expected it once");
}

void read_post_processor(const Value& value, Parts& parts) {
  for_each_step(value, "processors", 0, [&](const Value& step, std::string_view type) {
    if (type == "ByteLevel") return step.expect_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    require(parts.before.empty() && parts.after.empty(), step, "found a second step that adds tokens, expected one");
    if (type == "TemplateProcessing") {
      read_template(step, parts);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      step.expect_keys({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
      parts.before = {read_token_and_id(step.at("cls"), parts.vocabulary)};
      parts.after = {read_token_and_id(step.at("sep"), parts.vocabulary)};
    } else {
      refuse_type(step, "ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or Sequence");
    }
  });
}

/// "BPE" or "WordPiece"; older files leave the type out.
std::string_view model_type(const Value& model) {
  if (const auto type = model.find("type")) {
    if (type->text() != "BPE" && type->text() != "WordPiece") refuse_type(model, "BPE or WordPiece");
    return type->text();
  }
  return model.find("merges") ? "BPE" : "WordPiece";
}

constexpr std::string_view kSpace = "▁";

/// What stands for SentencePiece's own handling of spaces.
void expect_spaces(const Value& step, std::string_view type) {
  if (type == "Prepend") {
    step.expect_keys({"type", "prepend"});
    require(step.at("prepend").text() == kSpace, step.at("prepend"), "expected ", quoted(kSpace));
  } else if (type == "Replace") {
    step.expect_keys({"type", "pattern", "content"});
    require(step.at("pattern").at("String").text() == " " && step.at("content").text() == kSpace, step,
            "expected a space to become ", quoted(kSpace));
  } else if (type == "Metaspace") {
    step.expect_keys({"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
    require(step.at("replacement").text() == kSpace, step.at("replacement"), "expected ", quoted(kSpace));
    if (const auto scheme = step.given("prepend_scheme"); scheme && scheme->text() == "never")
      scheme->refuse("found \"never\", which is not supported, expected \"first\"");
    if (!flag_or(step, "add_prefix_space", true))
      step.at("add_prefix_space").refuse("found false, which is not supported, expected true");
  } else {
    refuse_type(step, "Prepend, Replace or Metaspace, as the SentencePiece model beside it has them");
  }
}

}  // namespace

Marks read_marks(const JsonFile& converted, const Tokenizer& model) {
  const Value root = converted.root();
  if (const auto normalizer = root.given("normalizer")) for_each_step(*normalizer, "normalizers", 0, expect_spaces);
  if (const auto cutter = root.given("pre_tokenizer")) for_each_step(*cutter, "pretokenizers", 0, expect_spaces);
  const auto post_processor = root.given("post_processor");
  if (!post_processor) return {};
  Parts parts;
  for (Id id = 0; id < model.vocab_size(); ++id) parts.vocabulary.add(model.token_of(id), id);
  parts.vocabulary.seal();
  read_post_processor(*post_processor, parts);
  const std::vector<Id> marks = model.encode("");
  const auto is_mark = [&](const std::vector<Id>& ids, Id mark) { return ids.size() == 1 && ids[0] == mark; };
  require(parts.before.empty() || (!marks.empty() && is_mark(parts.before, marks.front())), *post_processor,
          "found tokens before a text that are not the SentencePiece model's beginning");
  require(parts.after.empty() || (!marks.empty() && is_mark(parts.after, marks.back())), *post_processor,
          "found tokens behind a text that are not the SentencePiece model's end");
  return {!parts.before.empty(), !parts.after.empty()};
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& path) {
  const JsonFile file(path, kLoad);
  const TokenizerConfig config = path.filename() == "tokenizer.json" ? TokenizerConfig(path) : TokenizerConfig();
  const Overrides overrides(config);
  const Value root = file.root();
  root.expect_keys({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                    "decoder", "model"});
  if (const auto version = root.find("version"))
    require(version->text() == "1.0", *version, "found ", quoted(version->text()), ", expected \"1.0\"");
  Parts parts;
  const Value model = root.at("model");
  const bool bpe = model_type(model) == "BPE";
  if (const auto normalizer = root.given("normalizer")) read_normalizer(*normalizer, overrides, parts.normalizer);
  const auto cutter = root.given("pre_tokenizer");
  const bool byte_level = cutter && read_pre_tokenizer(*cutter, overrides, parts.cuts);
  const Value place = cutter.value_or(model);
  require(bpe == byte_level, place,
          bpe ? "found no ByteLevel, expected one before a BPE (others are not supported)"
              : "found ByteLevel, which is not supported before WordPiece");
  parts.model = bpe ? read_bpe(model, parts.vocabulary) : read_word_piece(model, parts.vocabulary);
  if (const auto added = root.given("added_tokens")) read_added(*added, parts);
  config.add_tokens(parts);
  if (const auto post_processor = root.given("post_processor")) read_post_processor(*post_processor, parts);
  const auto decoder = root.given("decoder");
  require(decoder.has_value(), root, "found no decoder, expected ", bpe ? "ByteLevel" : "WordPiece");
  read_decoder(*decoder, bpe, parts.decoder);
  return std::make_unique<Pipeline>(std::move(parts));
}

}  // namespace stet::data::tokenizers
