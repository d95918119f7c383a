// The two directions of GPT-2's byte alphabet, as tables made once.
#include <stet/data/tokenizers/byte_level.h>

#include <array>
#include <cstdint>

#include <stet/data/tokenizers/unicode.h>

namespace stet::data::tokenizers {
namespace {

struct Alphabet {
  std::array<std::string, 256> spelled;
  std::array<std::int16_t, 324> byte_of;  // by code point

  Alphabet() {
    byte_of.fill(-1);
    std::int32_t next = 256;
    for (std::int32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      const std::int32_t code_point = printable ? byte : next++;
      append_utf8(spelled[static_cast<std::size_t>(byte)], code_point);
      byte_of[static_cast<std::size_t>(code_point)] = static_cast<std::int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet made;
  return made;
}

}  // namespace

std::string to_byte_level(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) token += alphabet().spelled[static_cast<unsigned char>(byte)];
  return token;
}

std::optional<std::string> from_byte_level(std::string_view token) {
  const auto& byte_of = alphabet().byte_of;
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    const CodePoint c = code_point_at(token, at);
    if (c.value < 0 || static_cast<std::size_t>(c.value) >= byte_of.size()) return {};
    const std::int16_t byte = byte_of[static_cast<std::size_t>(c.value)];
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    at += c.length;
  }
  return bytes;
}

}  // namespace stet::data::tokenizers
