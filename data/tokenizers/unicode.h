// What the tokenizers need to know of Unicode, from utf8proc. Private to data/tokenizers/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stet::data::tokenizers {

/// One character of a text, or one byte that is not part of any (value -1, length 1).
struct CodePoint {
  std::int32_t value;
  std::uint32_t length;  // bytes
};

CodePoint code_point_at(std::string_view text, std::size_t at);
void append_utf8(std::string& text, std::int32_t code_point);

/// \p{L}, \p{N}, \s (the property White_Space) and everything else, invalid bytes included.
enum class CharClass : std::uint8_t { letter, number, space, other };
CharClass class_of(std::int32_t code_point);

bool is_nonspacing_mark(std::int32_t code_point);  // Mn
bool is_control(std::int32_t code_point);          // Cc, Cf, Co
bool is_punctuation(std::int32_t code_point);      // P*
bool is_cjk_ideograph(std::int32_t code_point);    // the blocks that BERT surrounds with spaces

/// Full lower case of one character, without context: U+0130 gives two.
void append_lower(std::string& text, std::int32_t code_point);

enum class Form { nfc, nfd, nfkc, nfkd };
/// Unicode normalisation; bytes that are not UTF-8 stay as they are.
std::string normalized(std::string_view text, Form form);

bool is_ascii(std::string_view text);
bool is_utf8(std::string_view text);

}  // namespace stet::data::tokenizers
