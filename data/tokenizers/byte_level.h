// GPT-2's spelling of bytes as printable characters (bytes_to_unicode in its encoder.py). Private to
// data/tokenizers/.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace stet::data::tokenizers {

/// Printable Latin-1 bytes are themselves, the 68 others U+0100 and on, in their order: a space is "Ġ".
std::string to_byte_level(std::string_view bytes);
/// The bytes again; nothing where the token holds any other character.
std::optional<std::string> from_byte_level(std::string_view token);

}  // namespace stet::data::tokenizers
