// Pre-tokenisation: the cutting of a text into pieces, within which the model's tokens lie. The published regular
// expressions, written out by hand. Private to data/tokenizers/.
#pragma once

#include <cstddef>
#include <string_view>

namespace stet::data::tokenizers {

enum class Split {
  gpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  llama3,  // contractions in any case, a mark before letters, numbers by threes, line ends kept together
  qwen2,   // as llama3, each number on its own
  digits,  // every \p{N} on its own, the rest uncut
  bert,    // white space removed, every punctuation mark on its own
};

/// The regular expression as a tokenizer.json writes it; empty for digits and bert.
std::string_view regex_of(Split split);

/// The end of the piece that starts at `at`: every byte lies in exactly one piece.
std::size_t piece_end(Split split, std::string_view text, std::size_t at);
/// Is the piece that starts at `at` white space that the rule removes?
bool is_dropped(Split split, std::string_view text, std::size_t at);

/// Calls emit(piece) for each piece of the text in order. Pieces are views into the text.
template <class Emit> void for_each_piece(Split split, std::string_view text, Emit&& emit) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = piece_end(split, text, at);
    if (!is_dropped(split, text, at)) emit(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace stet::data::tokenizers
