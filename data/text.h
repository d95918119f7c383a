// Text for language models: a file of documents, the part to train on and the part held out, and windows of bytes
// or tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <stet/tensor/random.h>
#include <stet/tensor/tensor.h>

namespace stet::data {

/// A text in two parts. Texts repeat themselves (licences, questions of one source), so they are cut by position and
/// never by shuffled lines: the end is held out.
struct Text {
  std::string name, train, held_out;
};

/// Reads a plain or gzip-compressed file; the last `held_out` of its bytes, from the next blank line on (from the next
/// character where no blank line leaves at least half of them), are held out. A byte order mark is left out. Throws an
/// Error that names the file where it cannot be read or is no text in UTF-8 (with the byte and the line), where
/// `held_out` is not between 0 and 1, or where either part would be empty.
Text load_text(const std::filesystem::path& path, double held_out = 0.1);

/// Bytes as token ids: row i is the `length` bytes of `text` from offsets[i] on -> (offsets, length) i64 on the CPU.
/// Throws an Error for a window that ends beyond the text.
Tensor byte_windows(std::string_view text, std::span<const std::int64_t> offsets, std::int64_t length);
/// `count` windows at offsets that are drawn uniformly.
Tensor random_byte_windows(std::string_view text, std::int64_t count, std::int64_t length, Generator& generator);
/// `count` windows, evenly spaced: the same each time, for measuring.
Tensor even_byte_windows(std::string_view text, std::int64_t count, std::int64_t length);

/// The same of a text that a tokenizer has encoded: `count` windows of `length` ids -> (count, length) i64 on the CPU.
Tensor random_token_windows(std::span<const std::int64_t> tokens, std::int64_t count, std::int64_t length,
                            Generator& generator);
Tensor even_token_windows(std::span<const std::int64_t> tokens, std::int64_t count, std::int64_t length);

}  // namespace stet::data
