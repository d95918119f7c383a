// llama2.c's tokenizer files (karpathy/llama2.c, tokenizer.py and encode/decode in run.c): the length of the longest
// token, then for each token a score (f32), a length (i32) and the bytes, all little-endian. Tokens 0 to 2 are
// <unk>, <s>, </s>, then 256 bytes as <0x00> to <0xFF>, then SentencePiece's pieces with plain spaces.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <stet/data/tokenizers/formats.h>
#include <stet/data/tokenizers/merge_symbols.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/json_file.h>

namespace stet::data::tokenizers {
namespace {

constexpr Id kBegin = 1, kEnd = 2, kFirstByte = 3, kFirstPiece = kFirstByte + 256;

std::string byte_token(int byte) {
  constexpr char digits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
}

class Llama2c final : public Tokenizer {
 public:
  explicit Llama2c(const std::filesystem::path& path);

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const std::int64_t> ids, const DecodeOptions& options) const override;
  std::int64_t vocab_size() const override { return static_cast<Id>(tokens_.size()); }
  std::optional<std::int64_t> id_of(std::string_view token) const override;
  std::string token_of(std::int64_t id) const override;
  std::vector<SpecialToken> special_tokens() const override {
    return {{token_of(0), 0}, {token_of(kBegin), kBegin}, {token_of(kEnd), kEnd}};
  }

 private:
  std::vector<float> read(const std::string& file, std::string_view bytes);
  void rank(const std::vector<float>& scores);

  std::vector<std::string> tokens_;
  std::vector<std::uint32_t> ranks_;  // by id: the best score is 0, equal scores are equal
  TextMap<Id> ids_, pieces_;          // pieces: what merging can make, so neither bytes nor special tokens
};

template <class T> T number_at(std::string_view bytes, std::size_t at) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::vector<float> Llama2c::read(const std::string& file, std::string_view bytes) {
  check(bytes.size() >= 4, kLoad, file, ": found ", bytes.size(), " bytes, expected the longest token's length");
  const auto longest = number_at<std::int32_t>(bytes, 0);
  check(longest > 0 && longest <= 1024, kLoad, file, ": byte 0: found a longest token of ", longest,
        " bytes, expected 1 to 1,024");
  std::vector<float> scores;
  for (std::size_t at = 4; at < bytes.size();) {
    const Id id = static_cast<Id>(tokens_.size());
    check(bytes.size() - at >= 8, kLoad, file, ": byte ", at, ": token ", id, ": the file ends inside its header");
    const auto score = number_at<float>(bytes, at);
    const auto size = number_at<std::int32_t>(bytes, at + 4);
    check(std::isfinite(score), kLoad, file, ": byte ", at, ": token ", id, ": found a score that is not finite");
    // The longest is that of SentencePiece's own spelling, with three bytes for a space: a bound, not a promise.
    check(size > 0 && size <= 3 * longest, kLoad, file, ": byte ", at + 4, ": token ", id, ": found a length of ", size,
          ", expected 1 to ", 3 * longest);
    check(bytes.size() - at - 8 >= static_cast<std::size_t>(size), kLoad, file, ": byte ", at + 8, ": token ", id,
          ": found ", bytes.size() - at - 8, " bytes, expected ", size);
    tokens_.emplace_back(bytes.substr(at + 8, static_cast<std::size_t>(size)));
    scores.push_back(score);
    if (id >= kFirstByte && id < kFirstPiece)
      check(tokens_.back() == byte_token(static_cast<int>(id - kFirstByte)), kLoad, file, ": byte ", at + 8, ": token ",
            id, ": found ", quoted(tokens_.back()), ", expected ", byte_token(static_cast<int>(id - kFirstByte)));
    // Where several tokens are spelled alike ("<0x0A>" and a piece), ids count from the first.
    ids_.emplace(tokens_.back(), id);
    if (id >= kFirstPiece)
      check(pieces_.emplace(tokens_.back(), id).second, kLoad, file, ": byte ", at + 8, ": token ", id, ": found ",
            quoted(tokens_.back()), " a second time, expected each token once");
    at += 8 + static_cast<std::size_t>(size);
  }
  check(vocab_size() >= kFirstPiece, kLoad, file, ": found ", vocab_size(), " tokens, expected at least ", kFirstPiece);
  return scores;
}

void Llama2c::rank(const std::vector<float>& scores) {
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const float score : scores)
    ranks_.push_back(static_cast<std::uint32_t>(
        std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>()) - sorted.begin()));
}

Llama2c::Llama2c(const std::filesystem::path& path) { rank(read(path.string(), read_bytes(path, kLoad))); }

std::vector<std::int64_t> Llama2c::encode(std::string_view text, const EncodeOptions& options) const {
  check(text.size() < (std::size_t{1} << 31) - 1, "encode", "found a text of ", text.size(),
        " bytes, expected below 2^31");
  std::vector<Id> ids;
  if (options.add_special_tokens) ids.push_back(kBegin);
  if (text.empty()) return ids;
  const std::size_t from = ids.size();
  const std::string whole = " " + std::string(text);  // SentencePiece's add_dummy_prefix
  for (std::size_t at = 0; at < whole.size();) {
    const std::size_t length = code_point_at(whole, at).length;
    const auto piece = pieces_.find(std::string_view(whole).substr(at, length));
    if (piece != pieces_.end()) ids.push_back(piece->second);
    else
      for (std::size_t i = at; i < at + length; ++i) ids.push_back(static_cast<unsigned char>(whole[i]) + kFirstByte);
    at += length;
  }
  std::string both;
  MergeTable::Merge merge{};
  merge_symbols(ids, from, [&](Id left, Id right) -> const MergeTable::Merge* {
    if (left < kFirstPiece || right < kFirstPiece) return nullptr;
    both = tokens_[static_cast<std::size_t>(left)];
    both += tokens_[static_cast<std::size_t>(right)];
    const auto piece = pieces_.find(both);
    if (piece == pieces_.end()) return nullptr;
    merge = {ranks_[static_cast<std::size_t>(piece->second)], static_cast<std::uint32_t>(piece->second)};
    return &merge;
  });
  return ids;
}

std::string Llama2c::decode(std::span<const std::int64_t> ids, const DecodeOptions& options) const {
  std::string text;
  bool at_start = true;  // the prefixed space goes again
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Id id = ids[i];
    check(id >= 0 && id < vocab_size(), "decode", "ids[", i, "]: found ", id, ", expected 0 to ", vocab_size() - 1);
    if (id < kFirstByte) {
      if (!options.skip_special_tokens && id != kBegin) text += tokens_[static_cast<std::size_t>(id)];
      continue;
    }
    if (id < kFirstPiece) text += static_cast<char>(id - kFirstByte);
    else
      text += std::string_view(tokens_[static_cast<std::size_t>(id)])
                  .substr(at_start && tokens_[static_cast<std::size_t>(id)].front() == ' ');
    at_start = false;
  }
  return text;
}

std::optional<std::int64_t> Llama2c::id_of(std::string_view token) const {
  const auto id = ids_.find(token);
  if (id == ids_.end()) return {};
  return id->second;
}

std::string Llama2c::token_of(std::int64_t id) const {
  check(id >= 0 && id < vocab_size(), "token_of", "found id ", id, ", expected 0 to ", vocab_size() - 1);
  return tokens_[static_cast<std::size_t>(id)];
}

}  // namespace

std::unique_ptr<Tokenizer> load_llama2c(const std::filesystem::path& file) { return std::make_unique<Llama2c>(file); }

}  // namespace stet::data::tokenizers
