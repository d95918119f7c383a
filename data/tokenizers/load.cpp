// load_tokenizer: which files there are, and the formats that need no parser of their own.
#include <algorithm>
#include <vector>

#include <stet/data/tokenizers/formats.h>
#include <stet/data/tokenizers/pipeline.h>
#include <stet/data/tokenizers/tokenizer_config.h>
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

void read_ids(const JsonFile& file, Vocabulary& vocabulary) {
  file.root().for_each_member([&](std::string_view token, const JsonFile::Value& id) {
    if (const auto problem = vocabulary.add(token, id.integer(0, kMaxId))) id.refuse(*problem);
  });
  if (const auto problem = vocabulary.seal()) file.root().refuse(*problem);
}

}  // namespace

std::unique_ptr<Tokenizer> load_gpt2_files(const fs::path& vocab, const fs::path& merges) {
  const TokenizerConfig config(vocab, "GPT2Tokenizer");
  config.expect_class({"GPT2Tokenizer"});
  Parts parts;
  if (config.flag("add_prefix_space", false)) parts.cuts.push_back({.prefix_space = true});
  parts.cuts.push_back({.split = Split::gpt2});
  read_ids(JsonFile(vocab, kLoad), parts.vocabulary);
  parts.model = std::make_unique<ByteBpe>(parts.vocabulary, read_merges(merges, parts.vocabulary), ByteBpe::Options{});
  config.add_tokens(parts);
  parts.before = config.mark("add_bos_token", "bos_token", parts.vocabulary);
  parts.after = config.mark("add_eos_token", "eos_token", parts.vocabulary);
  return std::make_unique<Pipeline>(std::move(parts));
}

std::unique_ptr<Tokenizer> load_bert_vocab(const fs::path& file) {
  const TokenizerConfig config(file, "BertTokenizer");
  config.expect_class({"BertTokenizer", "DistilBertTokenizer"});
  Parts parts;
  const bool lower = config.flag("do_lower_case", true);
  parts.normalizer.add(BertOptions{.cjk = config.flag("tokenize_chinese_chars", true),
                                   .strip_accents = config.flag("strip_accents", lower),
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
  const auto required = [&](std::string_view key) {
    const std::string token = config.token(key);
    const auto id = parts.vocabulary.id_of(token);
    check(id.has_value(), kLoad, file.string(), ": found no ", token.empty() ? key : token,
          ", expected it among the tokens");
    return *id;
  };
  const Id unknown = required("unk_token");
  parts.before = {required("cls_token")};
  parts.after = {required("sep_token")};
  parts.model = std::make_unique<WordPiece>(parts.vocabulary, WordPiece::Options{.unknown = unknown});
  config.add_tokens(parts);
  parts.decoder = {.kind = Decoder::Kind::word_piece};
  return std::make_unique<Pipeline>(std::move(parts));
}

namespace {

/// tokenizer_config.json beside a model has the last word on its marks.
Marks marks_beside(const fs::path& file, Marks marks) {
  const TokenizerConfig config(file);
  config.expect_class(
      {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizer", "TokenizersBackend"});
  if (!config.flag("add_prefix_space", true))
    config.given("add_prefix_space")->refuse("found false, which is not supported beside ", file.filename().string());
  return {config.flag("add_bos_token", marks.begin), config.flag("add_eos_token", marks.end)};
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
