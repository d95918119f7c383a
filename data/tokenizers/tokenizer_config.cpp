// Which file counts: with added_tokens_decoder in tokenizer_config.json the older files are not read.
#include <stet/data/tokenizers/tokenizer_config.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include <stet/data/tokenizers/formats.h>

namespace stet::data::tokenizers {

using Value = JsonFile::Value;

namespace {

constexpr std::string_view kStandard[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

bool is_standard(std::string_view key) {
  return std::find(std::begin(kStandard), std::end(kStandard), key) != std::end(kStandard);
}

/// What a class of transformers calls its tokens where no file does; empty for those that it does not name.
std::string_view default_token(std::string_view class_name, std::string_view key) {
  if (class_name == "GPT2Tokenizer" && (key == "bos_token" || key == "eos_token" || key == "unk_token"))
    return "<|endoftext|>";
  if (class_name == "Qwen2Tokenizer" && (key == "eos_token" || key == "unk_token" || key == "pad_token"))
    return "<|endoftext|>";
  if (class_name != "BertTokenizer" && class_name != "DistilBertTokenizer") return {};
  if (key == "unk_token") return "[UNK]";
  if (key == "sep_token") return "[SEP]";
  if (key == "pad_token") return "[PAD]";
  if (key == "cls_token") return "[CLS]";
  return key == "mask_token" ? "[MASK]" : std::string_view();
}

/// "</s>", or {"content": "</s>", "lstrip": ...}. A named token is special whatever it says.
AddedToken read_token(const Value& value, bool is_named) {
  if (value.type() != JsonType::object) return {.content = std::string(value.text()), .special = is_named};
  const auto flag = [&](std::string_view key, bool otherwise) {
    const auto set = value.given(key);
    return set ? set->flag() : otherwise;
  };
  if (flag("single_word", false)) value.at("single_word").refuse("found true, which is not supported, expected false");
  const bool special = is_named || flag("special", false);
  return {.content = std::string(value.at("content").text()),
          .special = special,
          .strip_left = flag("lstrip", false),
          .strip_right = flag("rstrip", false),
          .normalized = flag("normalized", !special)};
}

/// A list of tokens, or an object whose members they are.
template <class Visit> void for_each_token(const Value& tokens, Visit&& visit) {
  if (tokens.type() == JsonType::object) tokens.for_each_member([&](std::string_view, const Value& v) { visit(v); });
  else tokens.for_each_item(visit);
}

}  // namespace

struct TokenizerConfig::Named {
  AddedToken token;
  std::optional<Value> stated;  // none: a default of the class
};

/// Adds to the parts, and knows what is there already.
class TokenizerConfig::Adder {
 public:
  explicit Adder(Parts& parts) : parts_(parts), next_(parts.vocabulary.size()) {
    for (std::size_t i = 0; i < parts.added.size(); ++i) places_.emplace(parts.added[i].content, i);
  }
  bool has(std::string_view content) const { return places_.contains(content); }
  void add(AddedToken token, const Value& at) {
    token.in_model = parts_.vocabulary.id_of(token.content).has_value();
    if (!token.in_model && token.id != next_)  // transformers would number it anew
      at.refuse("found id ", token.id, " for ", quoted(token.content), ", which the vocabulary lacks, expected ",
                next_);
    next_ += !token.in_model;
    if (const auto problem = parts_.vocabulary.add(token.content, token.id)) at.refuse(*problem);
    const auto [place, is_new] = places_.emplace(token.content, parts_.added.size());
    if (is_new) return parts_.added.push_back(std::move(token));
    token.in_model = parts_.added[place->second].in_model;
    parts_.added[place->second] = std::move(token);
  }
  void seal(const Value& at) {
    if (const auto problem = parts_.vocabulary.seal()) at.refuse(*problem);
  }
  void add_named(const Named& named) {
    if (named.token.content.empty() || has(named.token.content)) return;
    AddedToken token = named.token;
    const auto id = parts_.vocabulary.id_of(token.content);
    token.in_model = id.has_value();
    token.id = id.value_or(next_);
    if (!id) {
      if (!named.stated) return;  // the class would make one that the model has never seen
      if (const auto problem = parts_.vocabulary.add(token.content, token.id)) named.stated->refuse(*problem);
      seal(*named.stated);
      ++next_;
    }
    places_.emplace(token.content, parts_.added.size());
    parts_.added.push_back(std::move(token));
  }

 private:
  Parts& parts_;
  Id next_;  // of a token that is not in the vocabulary
  TextMap<std::size_t> places_;
};

TokenizerConfig::TokenizerConfig(const std::filesystem::path& vocabulary, std::string_view assumed)
    : name_(vocabulary.filename().string()), assumed_(assumed) {
  const auto read = [&](const char* name, std::optional<JsonFile>& file) {
    const auto path = vocabulary.parent_path() / name;
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored)) file.emplace(path, kLoad);
  };
  read("tokenizer_config.json", config_);
  if (has("added_tokens_decoder")) return;
  read("special_tokens_map.json", map_);
  read("added_tokens.json", added_);
}

std::string_view TokenizerConfig::class_name() const {
  const auto value = given("tokenizer_class");
  std::string_view name = value ? value->text() : assumed_;
  if (name.ends_with("Fast")) name.remove_suffix(4);
  return name;
}

void TokenizerConfig::expect_class(std::initializer_list<std::string_view> classes) const {
  const std::string_view name = class_name();
  if (!given("tokenizer_class") || std::find(classes.begin(), classes.end(), name) != classes.end()) return;
  const Value value = config_->root().at("tokenizer_class");
  value.refuse("found ", quoted(value.text()), ", expected ", quoted(*classes.begin()), " beside ", name_);
}

std::optional<Value> TokenizerConfig::given(std::string_view key) const {
  return config_ ? config_->root().given(key) : std::nullopt;
}

bool TokenizerConfig::flag(std::string_view key, bool otherwise) const {
  const auto value = given(key);
  return value ? value->flag() : otherwise;
}

std::optional<Value> TokenizerConfig::find(std::string_view key) const {
  for (const auto* file : {&map_, &config_})
    if (const auto value = *file ? (*file)->root().find(key) : std::nullopt) return value;
  return {};
}

std::string TokenizerConfig::token(std::string_view key) const {
  const auto value = find(key);
  if (!value) return std::string(default_token(class_name(), key));
  return value->is_null() ? std::string() : read_token(*value, true).content;
}

std::vector<Id> TokenizerConfig::mark(std::string_view setting, std::string_view key,
                                      const Vocabulary& vocabulary) const {
  if (!flag(setting, false)) return {};
  const std::string content = token(key);
  if (content.empty()) return {};
  const auto id = vocabulary.id_of(content);
  if (!id)
    config_->root().at(setting).refuse("found true, but ", name_, " has no token ", quoted(content), ", the ", key);
  return {*id};
}

std::vector<TokenizerConfig::Named> TokenizerConfig::named() const {
  std::vector<Named> tokens;
  const auto add = [&](const Value& value) {
    if (!value.is_null()) tokens.push_back({read_token(value, true), value});
  };
  for (const std::string_view key : kStandard) {
    if (const auto value = find(key)) add(*value);
    else tokens.push_back({{.content = std::string(default_token(class_name(), key)), .special = true}, {}});
  }
  if (config_)  // "image_token" and its like; "add_bos_token" is a flag
    config_->root().for_each_member([&](std::string_view key, const Value& value) {
      if (key.ends_with("_token") && !is_standard(key) && value.type() == JsonType::text) add(value);
    });
  for (const auto* file : {&config_, &map_})
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"})
      if (const auto list = *file ? (*file)->root().given(key) : std::nullopt) for_each_token(*list, add);
  return tokens;
}

void TokenizerConfig::add_tokens(Parts& parts) const {
  if (flag("split_special_tokens", false))
    config_->root()
        .at("split_special_tokens")
        .refuse("found true, which is not supported, expected false (EncodeOptions::parse_special_tokens)");
  Adder adder(parts);
  const std::vector<Named> names = named();
  const auto is_named = [&](std::string_view content) {
    return std::any_of(names.begin(), names.end(), [&](const Named& n) { return n.token.content == content; });
  };
  std::vector<std::pair<AddedToken, Value>> listed;
  if (const auto list = given("added_tokens_decoder"))
    list->for_each_member([&](std::string_view key, const Value& at) {
      AddedToken token = read_token(at, false);
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
      if (error != std::errc() || end != key.data() + key.size()) at.refuse("expected an id as the key");
      if (token.content.empty()) at.refuse("found \"\", expected a token");
      token.special = token.special || is_named(token.content);
      listed.emplace_back(std::move(token), at);
    });
  if (added_)
    added_->root().for_each_member([&](std::string_view content, const Value& id) {
      const bool special = is_named(content);
      AddedToken token{.content = std::string(content), .id = id.integer(0, kMaxId), .special = special};
      token.normalized = !special;
      if (!adder.has(content)) listed.emplace_back(std::move(token), id);
    });
  std::stable_sort(listed.begin(), listed.end(), [](const auto& a, const auto& b) { return a.first.id < b.first.id; });
  for (auto& [token, at] : listed) adder.add(std::move(token), at);
  if (!listed.empty()) adder.seal(listed.back().second);
  for (const Named& name : names) adder.add_named(name);
}

}  // namespace stet::data::tokenizers
