// Tokens and their ids. Private to data/tokenizers/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace stet::data::tokenizers {

using Id = std::int64_t;
/// Largest id that a file may name: far above any vocabulary, and small enough for a table.
inline constexpr Id kMaxId = (1 << 24) - 1;

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class T> using TextMap = std::unordered_map<std::string, T, TextHash, std::equal_to<>>;

class Vocabulary {
 public:
  /// Adds a token, or says what is wrong with it: an id or a content that is already taken.
  std::optional<std::string> add(std::string_view text, Id id);
  /// Ids may leave holes, but not so many that a small file asks for a large table. Tokens
  /// count once sealed, and more may follow.
  std::optional<std::string> seal();

  std::optional<Id> id_of(std::string_view token) const;
  bool has(Id id) const { return id >= 0 && id < size() && tokens_[static_cast<std::size_t>(id)] != nullptr; }
  /// The token of an id that is there.
  const std::string& token(Id id) const { return *tokens_[static_cast<std::size_t>(id)]; }
  /// One more than the largest id, once sealed.
  Id size() const { return static_cast<Id>(tokens_.size()); }

 private:
  TextMap<Id> ids_;
  std::unordered_map<Id, const std::string*> by_id_;  // until sealed
  std::vector<const std::string*> tokens_;            // point into ids_, whose nodes stay where they are
};

}  // namespace stet::data::tokenizers
