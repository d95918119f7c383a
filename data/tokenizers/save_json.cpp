// A byte-level BPE as tokenizer.json: what tokenizer_json.cpp reads, written in the form that Hugging Face's library
// writes. The file is replaced as a whole: written beside it, then renamed.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include <stet/data/tokenizers/pipeline.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/json_file.h>

namespace stet::data::tokenizers {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSave = "Tokenizer::save";

ordered_json sequence(const char* list, ordered_json items) {
  if (items.empty()) return nullptr;
  if (items.size() == 1) return items[0];
  return {{"type", "Sequence"}, {list, std::move(items)}};
}

ordered_json normalizer_json(const Normalizer& normalizer) {
  ordered_json items = ordered_json::array();
  for (const Step step : normalizer.steps()) {
    switch (step) {
      case Step::nfc: items.push_back({{"type", "NFC"}}); break;
      case Step::nfd: items.push_back({{"type", "NFD"}}); break;
      case Step::nfkc: items.push_back({{"type", "NFKC"}}); break;
      case Step::nfkd: items.push_back({{"type", "NFKD"}}); break;
      case Step::lower: items.push_back({{"type", "Lowercase"}}); break;
      default: fail(kSave, "a byte-level BPE with BERT's normalizer cannot be written");
    }
  }
  return sequence("normalizers", std::move(items));
}

ordered_json byte_level_json(bool prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

/// The steps again as pre-tokenizers, the last of which is ByteLevel: it spells the bytes, and may put the space
/// and cut by GPT-2's expression.
ordered_json pre_tokenizer_json(const std::vector<Cut>& cuts) {
  ordered_json items = ordered_json::array();
  std::size_t i = 0;
  for (; i < cuts.size() && !cuts[i].prefix_space && cuts[i].split != Split::gpt2; ++i) {
    if (cuts[i].split == Split::digits) items.push_back({{"type", "Digits"}, {"individual_digits", true}});
    else
      items.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", std::string(regex_of(cuts[i].split))}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
  }
  const bool prefix_space = i < cuts.size() && cuts[i].prefix_space;
  i += prefix_space;
  const bool use_regex = i < cuts.size() && cuts[i].split == Split::gpt2;
  i += use_regex;
  check(i == cuts.size(), kSave, "this order of pre-tokenizers cannot be written");
  items.push_back(byte_level_json(prefix_space, use_regex));
  return sequence("pretokenizers", std::move(items));
}

ordered_json post_processor_json(const Parts& parts) {
  if (parts.before.empty() && parts.after.empty()) return nullptr;
  ordered_json single = ordered_json::array(), tokens = ordered_json::object();
  const auto add = [&](Id id) {
    const std::string& token = parts.vocabulary.token(id);
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    tokens[token] = {{"id", token}, {"ids", ordered_json::array({id})}, {"tokens", ordered_json::array({token})}};
  };
  std::for_each(parts.before.begin(), parts.before.end(), add);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  std::for_each(parts.after.begin(), parts.after.end(), add);
  ordered_json pair = single;
  for (auto item : single) {
    for (auto& [kind, value] : item.items()) {
      value["type_id"] = 1;
      if (kind == "Sequence") value["id"] = "B";
    }
    pair.push_back(std::move(item));
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

ordered_json added_json(std::vector<AddedToken> added) {
  std::sort(added.begin(), added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  ordered_json items = ordered_json::array();
  for (const AddedToken& t : added) {
    items.push_back({{"id", t.id},
                     {"content", t.content},
                     {"single_word", false},
                     {"lstrip", t.strip_left},
                     {"rstrip", t.strip_right},
                     {"normalized", t.normalized},
                     {"special", t.special}});
  }
  return items;
}

ordered_json model_json(const Parts& parts, const ByteBpe& model) {
  const auto& options = model.options();
  ordered_json vocab = ordered_json::object(), merges = ordered_json::array();
  // A token that the model has itself stays: merges may make it, and other libraries number the rest anew without it.
  std::vector<bool> added(static_cast<std::size_t>(parts.vocabulary.size()), false);
  for (const AddedToken& t : parts.added) added[static_cast<std::size_t>(t.id)] = !t.in_model;
  std::vector<std::pair<std::string, Id>> entries;
  for (Id id = 0; id < parts.vocabulary.size(); ++id)
    if (parts.vocabulary.has(id) && !added[static_cast<std::size_t>(id)])
      entries.emplace_back(parts.vocabulary.token(id), id);
  // ordered_json's own insertion looks through all that is there already.
  auto& members = vocab.get_ref<ordered_json::object_t&>();
  for (auto& [token, id] : entries) members.push_back({token, id});
  for (const auto& rule : model.rules())
    merges.push_back(ordered_json::array({parts.vocabulary.token(rule.left), parts.vocabulary.token(rule.right)}));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", options.unknown < 0 ? ordered_json() : ordered_json(parts.vocabulary.token(options.unknown))},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", options.fuse_unknown},
          {"byte_fallback", false},
          {"ignore_merges", options.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

}  // namespace

void save_json(const Parts& parts, const ByteBpe& model, const std::filesystem::path& file) {
  for (const AddedToken& t : parts.added)
    check(is_utf8(t.content), kSave, file.string(), ": the token ", quoted(t.content), " is not UTF-8");
  const ordered_json json = {{"version", "1.0"},
                             {"truncation", nullptr},
                             {"padding", nullptr},
                             {"added_tokens", added_json(parts.added)},
                             {"normalizer", normalizer_json(parts.normalizer)},
                             {"pre_tokenizer", pre_tokenizer_json(parts.cuts)},
                             {"post_processor", post_processor_json(parts)},
                             {"decoder", byte_level_json(true, true)},
                             {"model", model_json(parts, model)}};
  std::filesystem::path beside = file;
  beside += ".part";
  std::ofstream out(beside, std::ios::binary | std::ios::trunc);
  out << json.dump(2) << '\n';
  out.close();
  std::error_code error;
  if (out.good()) std::filesystem::rename(beside, file, error);
  if (out.good() && !error) return;
  std::error_code ignored;
  std::filesystem::remove(beside, ignored);
  fail(kSave, file.string(), ": could not be written", error ? ": " + error.message() : std::string());
}

}  // namespace stet::data::tokenizers
