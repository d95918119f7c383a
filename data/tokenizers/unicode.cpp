// Unicode classes and normalisation through utf8proc, with a table for ASCII in front.
#include <stet/data/tokenizers/unicode.h>

#include <utf8proc.h>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include <stet/tensor/error.h>

namespace stet::data::tokenizers {
namespace {

bool is_white_space(std::int32_t c) {  // the property White_Space, unchanged since Unicode 6.3
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

CharClass look_up(std::int32_t c) {
  if (c < 0) return CharClass::other;
  if (is_white_space(c)) return CharClass::space;
  const auto category = utf8proc_category(c);
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return CharClass::letter;
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return CharClass::number;
  return CharClass::other;
}

std::array<CharClass, 128> ascii_classes() {
  std::array<CharClass, 128> table{};
  for (std::size_t c = 0; c < table.size(); ++c) table[c] = look_up(static_cast<std::int32_t>(c));
  return table;
}

struct Free {
  void operator()(utf8proc_uint8_t* memory) const { std::free(memory); }
};

void append_normalized(std::string& out, std::string_view run, utf8proc_option_t options) {
  if (run.empty()) return;  // utf8proc takes a null pointer amiss
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(run.data()),
                                             static_cast<utf8proc_ssize_t>(run.size()), &mapped, options);
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(mapped);
  if (size == UTF8PROC_ERROR_NOMEM) fail<OutOfMemory>("tokenizer", "no memory to normalise ", run.size(), " bytes");
  if (size < 0) fail<BugError>("tokenizer", "normalisation failed: ", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size));
}

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  utf8proc_int32_t value = -1;
  const auto length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                       static_cast<utf8proc_ssize_t>(std::min<std::size_t>(text.size() - at, 4)), &value);
  if (length <= 0) return {-1, 1};
  return {value, static_cast<std::uint32_t>(length)};
}

void append_utf8(std::string& text, std::int32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code_point, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

CharClass class_of(std::int32_t c) {
  static const std::array<CharClass, 128> ascii = ascii_classes();
  return c >= 0 && c < 128 ? ascii[static_cast<std::size_t>(c)] : look_up(c);
}

bool is_nonspacing_mark(std::int32_t c) { return c >= 0x300 && utf8proc_category(c) == UTF8PROC_CATEGORY_MN; }

bool is_control(std::int32_t c) {
  const auto category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

bool is_punctuation(std::int32_t c) {
  const auto category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_cjk_ideograph(std::int32_t c) {
  constexpr std::int32_t blocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  return c >= 0x3400 && std::any_of(std::begin(blocks), std::end(blocks),
                                    [c](const auto& block) { return c >= block[0] && c <= block[1]; });
}

void append_lower(std::string& text, std::int32_t code_point) {
  if (code_point == 0x130) {  // the one character whose lower case has two; utf8proc gives the first alone
    text += "i\xcc\x87";
    return;
  }
  append_utf8(text, utf8proc_tolower(code_point));
}

std::string normalized(std::string_view text, Form form) {
  if (is_ascii(text)) return std::string(text);
  int options = UTF8PROC_STABLE;
  options |= form == Form::nfc || form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == Form::nfkc || form == Form::nfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value < 0) {
      append_normalized(out, text.substr(start, at - start), static_cast<utf8proc_option_t>(options));
      out += text[at];
      start = at + 1;
    }
    at += c.length;
  }
  append_normalized(out, text.substr(start), static_cast<utf8proc_option_t>(options));
  return out;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value < 0) return false;
    at += c.length;
  }
  return true;
}

}  // namespace stet::data::tokenizers
