// Tokens that are found in the text itself, before anything else happens to it. Private to data/tokenizers/.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <stet/data/tokenizers/vocabulary.h>

namespace stet::data::tokenizers {

struct AddedToken {
  std::string content;
  Id id = 0;
  bool special = false;
  bool strip_left = false, strip_right = false;  // takes the white space beside it along
  bool in_model = false;                         // also a token of the model's own vocabulary
  bool normalized = false;                       // looked for in the normalised text, after those that are not
};

/// The longest token wins where several start at one place, the leftmost where they overlap.
class AddedTokens {
 public:
  /// `searched` is what stands in the text for the token. Call seal() after the last.
  void add(const AddedToken& token, std::string_view searched);
  void seal();
  bool empty() const { return entries_.empty(); }

  struct Match {
    std::size_t begin, end;  // with stripped white space
    Id id;
  };
  /// The first match that starts at `from` or later; begin == npos where there is none.
  Match find(std::string_view text, std::size_t from, bool with_special) const;

 private:
  struct Entry {
    std::string text;
    AddedToken token;
  };
  const Entry* longest_at(std::string_view text, std::size_t at) const;

  std::vector<Entry> entries_;
  std::array<bool, 256> starts_{};                           // by first byte
  std::array<std::vector<std::size_t>, 256> by_first_byte_;  // longest first
};

}  // namespace stet::data::tokenizers
