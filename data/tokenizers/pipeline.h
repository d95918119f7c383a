// A tokenizer as a chain: added tokens, normaliser, pre-tokenisation, model; special tokens around, and the way
// back. Private to data/tokenizers/.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <stet/data/tokenizers/added_tokens.h>
#include <stet/data/tokenizers/model.h>
#include <stet/data/tokenizers/normalizer.h>
#include <stet/data/tokenizers/split.h>
#include <stet/data/tokenizers/tokenizer.h>
#include <stet/data/tokenizers/vocabulary.h>

namespace stet::data::tokenizers {

/// One step of pre-tokenisation: a rule that cuts, or a space put before each piece that has none.
struct Cut {
  bool prefix_space = false;
  Split split = Split::gpt2;
};

struct Decoder {
  enum class Kind { byte_level, word_piece } kind = Kind::byte_level;
  std::string prefix = "##";  // word_piece: of tokens that continue a word
  bool cleanup = true;        // word_piece: no space before . ? ! , and the English contractions
};

struct Parts {
  Vocabulary vocabulary;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  std::vector<Cut> cuts;
  std::vector<Id> before, after;  // added around a text
  Decoder decoder;
  std::unique_ptr<Model> model;
};

/// Ids of pieces that came before: words repeat. Holds the first 65,536 short ones; takes memory at its
/// first use.
class PieceCache {
 public:
  /// Appends the ids of the piece, from memory or from the model.
  void append_ids(const Model& model, std::string_view piece, std::vector<Id>& ids);

 private:
  struct Slot {
    std::size_t hash = 0;
    std::uint32_t text = 0, ids = 0;
    std::uint16_t text_size = 0, ids_size = 0;  // text_size 0: free
  };
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
  std::string texts_;
  std::vector<Id> ids_;
};

class Pipeline final : public Tokenizer {
 public:
  explicit Pipeline(Parts parts);

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options = {}) const override;
  std::string decode(std::span<const std::int64_t> ids, const DecodeOptions& options = {}) const override;
  std::int64_t vocab_size() const override { return parts_.vocabulary.size(); }
  std::optional<std::int64_t> id_of(std::string_view token) const override { return parts_.vocabulary.id_of(token); }
  std::string token_of(std::int64_t id) const override;
  std::vector<SpecialToken> special_tokens() const override;
  void save(const std::filesystem::path& file) const override;

 private:
  class Run;
  std::string decode_bytes(std::span<const std::int64_t> ids, const DecodeOptions& options) const;
  std::string decode_words(std::span<const std::int64_t> ids, const DecodeOptions& options) const;
  void check_id(std::span<const std::int64_t> ids, std::size_t at) const;

  Parts parts_;
  AddedTokens raw_, normalized_;    // looked for in the whole text, then, normalised, in what is left
  std::vector<std::string> bytes_;  // by id: what a token stands for
  std::vector<bool> special_;       // by id
  mutable std::mutex cache_mutex_;
  mutable PieceCache cache_;
};

/// Writes the parts of a byte-level BPE as tokenizer.json (save_json.cpp).
void save_json(const Parts& parts, const ByteBpe& model, const std::filesystem::path& file);

}  // namespace stet::data::tokenizers
