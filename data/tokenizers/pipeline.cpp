// Encoding walks the chain without copying more than a normaliser or a prefixed space asks for.
#include <stet/data/tokenizers/pipeline.h>

#include <algorithm>

#include <stet/data/tokenizers/byte_level.h>
#include <stet/tensor/error.h>

namespace stet::data {

void Tokenizer::save(const std::filesystem::path& file) const {
  fail("Tokenizer::save", file.string(), ": this kind of tokenizer cannot be written, only byte-level BPE can");
}

namespace tokenizers {
namespace {

constexpr std::size_t kCachedPieces = 1 << 16, kCachedBytes = 64;

void replace(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// What the reference does to each token, with the space before it, when `cleanup` is set.
void clean_up(std::string& token) {
  constexpr std::string_view pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                           {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : pairs) replace(token, from, to);
}

}  // namespace

void PieceCache::append_ids(const Model& model, std::string_view piece, std::vector<Id>& ids) {
  if (piece.size() > kCachedBytes || piece.empty()) return model.append_ids(piece, ids);
  if (slots_.empty()) slots_.resize(2 * kCachedPieces);
  const std::size_t hash = TextHash()(piece), mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  for (; slots_[at].text_size; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.hash == hash && std::string_view(texts_).substr(slot.text, slot.text_size) == piece) {
      ids.insert(ids.end(), ids_.begin() + slot.ids, ids_.begin() + slot.ids + slot.ids_size);
      return;
    }
  }
  const std::size_t from = ids.size();
  model.append_ids(piece, ids);
  if (used_ == kCachedPieces) return;
  ++used_;
  slots_[at] = {hash, static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(ids_.size()),
                static_cast<std::uint16_t>(piece.size()), static_cast<std::uint16_t>(ids.size() - from)};
  texts_ += piece;
  ids_.insert(ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end());
}

/// One call of encode.
class Pipeline::Run {
 public:
  Run(const Pipeline& pipeline, const EncodeOptions& options, std::vector<Id>& ids)
      : pipeline_(pipeline),
        options_(options),
        ids_(ids),
        lock_(pipeline.cache_mutex_, std::try_to_lock),
        cache_(lock_ ? &pipeline.cache_ : nullptr) {}  // another thread has it: the model alone then

  void text(std::string_view whole) {
    between(pipeline_.raw_, whole, [this](std::string_view part) {
      if (pipeline_.parts_.normalizer.empty()) return normalized(part);
      const std::string changed = pipeline_.parts_.normalizer(part);
      normalized(changed);
    });
  }

 private:
  /// Ids for the tokens that are found, visit(part) for what lies between.
  template <class Visit> void between(const AddedTokens& tokens, std::string_view text, Visit visit) {
    for (std::size_t from = 0; from < text.size();) {
      const auto match = tokens.find(text, from, options_.parse_special_tokens);
      const bool found = match.begin != std::string_view::npos;
      const std::size_t end = found ? match.begin : text.size();
      if (end > from) visit(text.substr(from, end - from));
      if (found) ids_.push_back(match.id);
      from = found ? match.end : end;
    }
  }
  void normalized(std::string_view part) {
    between(pipeline_.normalized_, part, [this](std::string_view rest) { cut(0, rest); });
  }
  void cut(std::size_t step, std::string_view part) {
    const auto& cuts = pipeline_.parts_.cuts;
    if (step == cuts.size()) {
      if (cache_) cache_->append_ids(*pipeline_.parts_.model, part, ids_);
      else pipeline_.parts_.model->append_ids(part, ids_);
    } else if (cuts[step].prefix_space) {
      if (part.starts_with(' ')) cut(step + 1, part);
      else cut(step + 1, " " + std::string(part));
    } else {
      for_each_piece(cuts[step].split, part, [&](std::string_view piece) { cut(step + 1, piece); });
    }
  }

  const Pipeline& pipeline_;
  const EncodeOptions& options_;
  std::vector<Id>& ids_;
  std::unique_lock<std::mutex> lock_;
  PieceCache* cache_;
};

Pipeline::Pipeline(Parts parts) : parts_(std::move(parts)) {
  const auto size = static_cast<std::size_t>(parts_.vocabulary.size());
  special_.assign(size, false);
  bytes_.resize(size);
  for (Id id = 0; id < parts_.vocabulary.size(); ++id) {
    if (!parts_.vocabulary.has(id)) continue;
    const std::string& token = parts_.vocabulary.token(id);
    auto bytes = parts_.decoder.kind == Decoder::Kind::byte_level ? from_byte_level(token) : std::nullopt;
    bytes_[static_cast<std::size_t>(id)] = bytes ? std::move(*bytes) : token;
  }
  for (const AddedToken& token : parts_.added) {
    bytes_[static_cast<std::size_t>(token.id)] = token.content;
    if (token.special) special_[static_cast<std::size_t>(token.id)] = true;
    if (token.normalized) normalized_.add(token, parts_.normalizer(token.content));
    else raw_.add(token, token.content);
  }
  raw_.seal();
  normalized_.seal();
}

std::vector<std::int64_t> Pipeline::encode(std::string_view text, const EncodeOptions& options) const {
  check(text.size() < (std::size_t{1} << 31), "encode", "found a text of ", text.size(), " bytes, expected below 2^31");
  std::vector<Id> ids;
  ids.reserve(text.size() / 4 + 8);
  if (options.add_special_tokens) ids = parts_.before;
  Run(*this, options, ids).text(text);
  if (options.add_special_tokens) ids.insert(ids.end(), parts_.after.begin(), parts_.after.end());
  return ids;
}

void Pipeline::check_id(std::span<const std::int64_t> ids, std::size_t at) const {
  check(parts_.vocabulary.has(ids[at]), "decode", "ids[", at, "]: found ", ids[at],
        ", expected the id of a token, below ", parts_.vocabulary.size());
}

std::string Pipeline::decode(std::span<const std::int64_t> ids, const DecodeOptions& options) const {
  return parts_.decoder.kind == Decoder::Kind::byte_level ? decode_bytes(ids, options) : decode_words(ids, options);
}

std::string Pipeline::decode_bytes(std::span<const std::int64_t> ids, const DecodeOptions& options) const {
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check_id(ids, i);
    const auto id = static_cast<std::size_t>(ids[i]);
    if (!options.skip_special_tokens || !special_[id]) text += bytes_[id];
  }
  return text;
}

std::string Pipeline::decode_words(std::span<const std::int64_t> ids, const DecodeOptions& options) const {
  std::string text;
  bool first = true;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check_id(ids, i);
    const auto id = static_cast<std::size_t>(ids[i]);
    if (options.skip_special_tokens && special_[id]) continue;
    std::string token = bytes_[id];
    if (!first) {
      if (token.starts_with(parts_.decoder.prefix)) token.erase(0, parts_.decoder.prefix.size());
      else token.insert(0, " ");
    }
    first = false;
    if (parts_.decoder.cleanup) clean_up(token);
    text += token;
  }
  return text;
}

std::string Pipeline::token_of(std::int64_t id) const {
  check(parts_.vocabulary.has(id), "token_of", "found id ", id, ", expected the id of a token, below ",
        parts_.vocabulary.size());
  return parts_.vocabulary.token(id);
}

std::vector<SpecialToken> Pipeline::special_tokens() const {
  std::vector<SpecialToken> tokens;
  for (std::size_t id = 0; id < special_.size(); ++id)
    if (special_[id]) tokens.push_back({bytes_[id], static_cast<std::int64_t>(id)});
  return tokens;
}

void Pipeline::save(const std::filesystem::path& file) const {
  const auto* model = dynamic_cast<const ByteBpe*>(parts_.model.get());
  if (!model) return Tokenizer::save(file);
  save_json(parts_, *model, file);
}

}  // namespace tokenizers
}  // namespace stet::data
