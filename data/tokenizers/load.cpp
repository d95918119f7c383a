// load_tokenizer: which files there are, and the formats that need no parser of their own.
#include <algorithm>
#include <vector>

#include <stet/data/tokenizers/formats.h>
#include <stet/data/tokenizers/pipeline.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/json_file.h>

namespace stet::data {

namespace fs = std::filesystem;

namespace tokenizers {
namespace {

/// visit(line, number from 1) for each line; a last line without an end counts, an empty one after it does not.
template <class Visit> void for_each_line(std::string_view text, Visit&& visit) {
  for (std::size_t at = 0, number = 1; at < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    visit(line, number);
    at = end + 1;
  }
}

template <class... Parts>
[[noreturn]] void refuse_line(const fs::path& file, std::size_t number, const Parts&... parts) {
  fail(kLoad, file.string(), ": line ", number, ": ", parts...);
}

/// A folder's tokenizer_config.json may name a class whose rules these files do not hold.
std::optional<JsonFile> read_config(const fs::path& file, std::initializer_list<std::string_view> classes) {
  const fs::path path = file.parent_path() / "tokenizer_config.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return {};
  JsonFile config(path, kLoad);
  if (const auto name = config.root().given("tokenizer_class"))
    if (std::find(classes.begin(), classes.end(), name->text()) == classes.end())
      name->refuse("found ", quoted(name->text()), ", expected ", quoted(*classes.begin()), " beside ",
                   file.filename().string());
  return config;
}

bool setting(const std::optional<JsonFile>& config, std::string_view key, bool otherwise) {
  const auto value = config ? config->root().given(key) : std::nullopt;
  return value ? value->flag() : otherwise;
}

std::vector<ByteBpe::Rule> read_merges(const fs::path& file, const Vocabulary& vocabulary) {
  const std::string text = read_bytes(file, kLoad);
  MergeRules rules(vocabulary);
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    if (number == 1 && line.starts_with("#version")) return;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      refuse_line(file, number, "found ", quoted(line), ", expected two tokens with a space between");
    if (const auto problem = rules.add(line.substr(0, space), line.substr(space + 1)))
      refuse_line(file, number, *problem);
  });
  return rules.take();
}

void read_ids(const JsonFile& file, Vocabulary& vocabulary, std::vector<AddedToken>* added) {
  file.root().for_each_member([&](std::string_view token, const JsonFile::Value& id) {
    const Id number = id.integer(0, kMaxId);
    if (const auto problem = vocabulary.add(token, number)) id.refuse(*problem);
    if (added) added->push_back({.content = std::string(token), .id = number});
  });
  if (const auto problem = vocabulary.seal()) file.root().refuse(*problem);
}

}  // namespace

std::unique_ptr<Tokenizer> load_gpt2_files(const fs::path& vocab, const fs::path& merges) {
  const auto config = read_config(vocab, {"GPT2Tokenizer", "GPT2TokenizerFast"});
  Parts parts;
  if (setting(config, "add_prefix_space", false)) parts.cuts.push_back({.prefix_space = true});
  parts.cuts.push_back({.split = Split::gpt2});
  read_ids(JsonFile(vocab, kLoad), parts.vocabulary, nullptr);
  parts.model = std::make_unique<ByteBpe>(parts.vocabulary, read_merges(merges, parts.vocabulary), ByteBpe::Options{});
  constexpr std::string_view kEnd = "<|endoftext|>";
  if (const auto end = parts.vocabulary.id_of(kEnd))
    parts.added.push_back({.content = std::string(kEnd), .id = *end, .special = true, .in_model = true});
  std::error_code ignored;
  if (const fs::path more = vocab.parent_path() / "added_tokens.json"; fs::exists(more, ignored))
    read_ids(JsonFile(more, kLoad), parts.vocabulary, &parts.added);
  return std::make_unique<Pipeline>(std::move(parts));
}

std::unique_ptr<Tokenizer> load_bert_vocab(const fs::path& file) {
  const auto config =
      read_config(file, {"BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast"});
  Parts parts;
  const bool lower = setting(config, "do_lower_case", true);
  parts.normalizer.add(BertOptions{.cjk = setting(config, "tokenize_chinese_chars", true),
                                   .strip_accents = setting(config, "strip_accents", lower),
                                   .lower = lower});
  parts.cuts.push_back({.split = Split::bert});
  const std::string text = read_bytes(file, kLoad);
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    if (line.empty()) refuse_line(file, number, "found an empty line, expected a token");
    if (!is_utf8(line)) refuse_line(file, number, "found bytes that are not UTF-8, expected a token");
    if (const auto problem = parts.vocabulary.add(line, static_cast<Id>(number - 1)))
      refuse_line(file, number, *problem);
  });
  if (const auto problem = parts.vocabulary.seal()) fail(kLoad, file.string(), ": ", *problem);
  for (const std::string_view special : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
    const auto id = parts.vocabulary.id_of(special);
    check(id || special == "[PAD]" || special == "[MASK]", kLoad, file.string(), ": found no ", special,
          ", expected it among the tokens");
    if (id) parts.added.push_back({.content = std::string(special), .id = *id, .special = true});
  }
  parts.before = {*parts.vocabulary.id_of("[CLS]")};
  parts.after = {*parts.vocabulary.id_of("[SEP]")};
  parts.model =
      std::make_unique<WordPiece>(parts.vocabulary, WordPiece::Options{.unknown = *parts.vocabulary.id_of("[UNK]")});
  parts.decoder = {.kind = Decoder::Kind::word_piece};
  return std::make_unique<Pipeline>(std::move(parts));
}

namespace {

/// tokenizer_config.json beside a model has the last word on its marks.
Marks marks_beside(const fs::path& file, Marks marks) {
  const auto config =
      read_config(file, {"LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
                         "GemmaTokenizer", "GemmaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"});
  if (!setting(config, "add_prefix_space", true))
    config->root()
        .at("add_prefix_space")
        .refuse("found false, which is not supported beside ", file.filename().string());
  return {setting(config, "add_bos_token", marks.begin), setting(config, "add_eos_token", marks.end)};
}

std::unique_ptr<Tokenizer> load_model(const fs::path& file) { return load_sentencepiece(file, marks_beside(file, {})); }

using Load = std::unique_ptr<Tokenizer> (*)(const fs::path&);

std::unique_ptr<Tokenizer> load_pair(const fs::path& vocab) {
  const fs::path merges = vocab.parent_path() / (vocab.filename() == "encoder.json" ? "vocab.bpe" : "merges.txt");
  return load_gpt2_files(vocab, merges);
}

/// The reader for a file of this name; null for a name that says nothing.
Load reader_of(const fs::path& file) {
  const std::string name = file.filename().string();
  if (name == "vocab.json" || name == "encoder.json") return load_pair;
  if (name.ends_with(".json")) return load_tokenizer_json;
  if (name.ends_with(".txt")) return load_bert_vocab;
  if (name.ends_with(".model")) return load_model;
  if (name.starts_with("tok") && name.ends_with(".bin")) return load_llama2c;
  return nullptr;
}

/// The SentencePiece model that a tokenizer.json was made from, where both are there: null where the file says nothing
/// of bytes that stand for what is not known, as byte-level tokenizers do not. What the file lists must be the model's.
std::unique_ptr<Tokenizer> load_original(const fs::path& converted, const fs::path& model) {
  const JsonFile file(converted, kLoad);
  const auto part = file.root().given("model");
  const auto fallback = part ? part->given("byte_fallback") : std::nullopt;
  if (!fallback || !fallback->flag()) return nullptr;
  const auto tokenizer = load_sentencepiece(model, {.begin = true, .end = true});
  const auto require = [&](std::string_view token, const JsonFile::Value& id) {
    if (tokenizer->id_of(token) != id.integer(0, kMaxId))
      id.refuse("the token ", quoted(token), " has another id in ", model.filename().string(), ", or none");
  };
  part->at("vocab").for_each_member(require);
  if (const auto added = file.root().given("added_tokens"))
    added->for_each_item([&](const JsonFile::Value& token) { require(token.at("content").text(), token.at("id")); });
  return load_sentencepiece(model, marks_beside(model, read_marks(file, *tokenizer)));
}

std::unique_ptr<Tokenizer> load_folder(const fs::path& folder) {
  std::error_code ignored;
  const fs::path converted = folder / "tokenizer.json", model = folder / "tokenizer.model";
  if (fs::exists(converted, ignored) && fs::exists(model, ignored))
    if (auto tokenizer = load_original(converted, model)) return tokenizer;
  for (const char* name : {"tokenizer.json", "vocab.json", "encoder.json", "vocab.txt", "tokenizer.model"})
    if (const fs::path file = folder / name; fs::exists(file, ignored)) return reader_of(file)(file);
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const Load reader = reader_of(entry.path());
    if (reader == load_model || reader == load_llama2c) others.push_back(entry.path());
  }
  check(others.size() == 1, kLoad, folder.string(), ": found ", others.size(), " tokenizer files, expected ",
        "tokenizer.json, vocab.json and merges.txt, vocab.txt, or one .model or tok*.bin");
  return reader_of(others[0])(others[0]);
}

}  // namespace
}  // namespace tokenizers

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return tokenizers::load_folder(path);
  check(fs::is_regular_file(path, ignored), tokenizers::kLoad, path.string(), ": found no file, expected one");
  const auto reader = tokenizers::reader_of(path);
  check(reader != nullptr, tokenizers::kLoad, path.string(), ": found a name that says nothing about its format, ",
        "expected *.json, vocab.txt, *.model or tok*.bin");
  return reader(path);
}

namespace {

constexpr std::string_view kTemplates = "additional_chat_templates";  // transformers' folder for further ones

void replace_file(const fs::path& from, const fs::path& to) {
  std::error_code absent;
  if (!fs::equivalent(from, to, absent)) fs::copy_file(from, to, fs::copy_options::overwrite_existing);
}

}  // namespace

bool is_tokenizer_file(std::string_view name) {
  return name.starts_with("tok") || name.starts_with("vocab") || name == "merges.txt" || name == "encoder.json" ||
         name == "added_tokens.json" || name == "special_tokens_map.json" || name.ends_with(".model") ||
         name == "tekken.json" || name == "chat_template.jinja" || name == "chat_template.json" || name == kTemplates;
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  try {
    for (const auto& entry : fs::directory_iterator(from)) {
      const fs::path name = entry.path().filename();
      if (!is_tokenizer_file(name.string())) continue;
      if (entry.is_regular_file()) replace_file(entry.path(), to / name);
      if (name != kTemplates || !entry.is_directory()) continue;
      fs::create_directory(to / name);
      for (const auto& chat : fs::directory_iterator(entry.path()))
        if (chat.path().extension() == ".jinja") replace_file(chat.path(), to / name / chat.path().filename());
    }
  } catch (const fs::filesystem_error& problem) {
    fail("copy_tokenizer", problem.path1().string(), ": ", problem.code().message());
  }
}

}  // namespace stet::data
