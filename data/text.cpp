// Text files and windows of bytes.
#include <stet/data/text.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include <stet/data/byte_source.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/error.h>

namespace stet::data {
namespace {

/// Where the held-out part begins: at the first document after `wanted`, at a whole character where that one would
/// leave less than half of the part, or where there is none.
std::size_t cut_of(std::string_view text, std::size_t wanted) {
  const std::string_view near = text.substr(0, wanted + (text.size() - wanted) / 2);
  const std::size_t blank = near.find("\n\n", wanted), windows = near.find("\n\r\n", wanted);
  if (blank != windows) return blank < windows ? blank + 2 : windows + 3;  // npos is the largest
  while (wanted < text.size() && (static_cast<unsigned char>(text[wanted]) & 0xc0) == 0x80) ++wanted;
  return wanted;
}

/// A document in another form than text would be learned like one, and nothing would tell.
void check_is_text(std::string_view text, const std::string& file) {
  for (const auto& [start, what] : {std::pair("%PDF-", "a PDF"), std::pair("{\\rtf", "an RTF document")})
    check(!text.starts_with(start), "load_text", file, ": found ", what, ", expected its text alone, in UTF-8");
  std::int64_t line = 1;
  for (std::size_t at = 0; at < text.size();) {
    const auto [value, length] = tokenizers::code_point_at(text, at);
    if (value <= 0)
      fail("load_text", file, ": found ", value == 0 ? "a zero byte" : "what is no UTF-8", " at byte ", at, " in line ",
           line, ", expected text in UTF-8: other encodings have to be converted, documents saved as text");
    line += value == '\n';
    at += length;
  }
}

/// The last offset at which a window may begin; `unit` is what the text consists of.
std::int64_t room_for(std::string_view op, std::string_view unit, std::size_t size, std::int64_t count,
                      std::int64_t length) {
  check(count > 0 && length > 0, op, count, " windows of ", length, " ", unit);
  const std::int64_t room = static_cast<std::int64_t>(size) - length;
  check(room >= 0, op, "windows of ", length, " ", unit, " from a text of ", size);
  return room;
}

/// (count, length) on the CPU: window i begins at offset_of(i). Memory comes first, so that there is an Error for too
/// many.
template <class T, class Offset>
Tensor windows(std::span<const T> text, std::int64_t count, std::int64_t length, const Offset& offset_of) {
  Tensor out = empty({count, length}, {DType::i64, Device::cpu()});
  auto* to = out.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto window = text.subspan(static_cast<std::size_t>(offset_of(i)), static_cast<std::size_t>(length));
    to = std::copy(window.begin(), window.end(), to);
  }
  return out;
}

auto random_offsets(std::int64_t room, Generator& generator) {
  return [room, key = generator.next()](std::int64_t i) {
    return randint(key, static_cast<std::uint64_t>(i), 0, room + 1);
  };
}

auto even_offsets(std::int64_t room, std::int64_t count) {
  return [=](std::int64_t i) { return count > 1 ? i * room / (count - 1) : 0; };
}

std::span<const unsigned char> bytes_of(std::string_view text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

}  // namespace

Text load_text(const std::filesystem::path& path, double held_out) {
  check(held_out > 0 && held_out < 1, "load_text", "held_out ", held_out, ": expected a part between 0 and 1");
  ByteSource source("load_text", path);
  std::string all;
  std::array<std::uint8_t, 65536> part;
  while (const std::size_t got = source.read(part)) all.append(part.begin(), part.begin() + got);
  if (all.starts_with("\xef\xbb\xbf")) all.erase(0, 3);
  check_is_text(all, path.string());
  const auto wanted = static_cast<std::size_t>(static_cast<double>(all.size()) * (1 - held_out));
  const std::size_t cut = cut_of(all, wanted);
  check(cut > 0 && cut < all.size(), "load_text", path.string(), ": ", all.size(),
        " bytes are too few for a part to train on and one to hold out");
  return {path.stem().string(), all.substr(0, cut), all.substr(cut)};
}

Tensor byte_windows(std::string_view text, std::span<const std::int64_t> offsets, std::int64_t length) {
  const std::int64_t room = room_for("byte_windows", "bytes", text.size(), std::ssize(offsets), length);
  for (const std::int64_t offset : offsets)
    check(offset >= 0 && offset <= room, "byte_windows", "offset ", offset, ": a window of ", length,
          " bytes may begin at 0 to ", room);
  return windows(bytes_of(text), std::ssize(offsets), length,
                 [&](std::int64_t i) { return offsets[static_cast<std::size_t>(i)]; });
}

Tensor random_byte_windows(std::string_view text, std::int64_t count, std::int64_t length, Generator& generator) {
  const std::int64_t room = room_for("random_byte_windows", "bytes", text.size(), count, length);
  return windows(bytes_of(text), count, length, random_offsets(room, generator));
}

Tensor even_byte_windows(std::string_view text, std::int64_t count, std::int64_t length) {
  const std::int64_t room = room_for("even_byte_windows", "bytes", text.size(), count, length);
  return windows(bytes_of(text), count, length, even_offsets(room, count));
}

Tensor random_token_windows(std::span<const std::int64_t> tokens, std::int64_t count, std::int64_t length,
                            Generator& generator) {
  const std::int64_t room = room_for("random_token_windows", "tokens", tokens.size(), count, length);
  return windows(tokens, count, length, random_offsets(room, generator));
}

Tensor even_token_windows(std::span<const std::int64_t> tokens, std::int64_t count, std::int64_t length) {
  const std::int64_t room = room_for("even_token_windows", "tokens", tokens.size(), count, length);
  return windows(tokens, count, length, even_offsets(room, count));
}

}  // namespace stet::data
