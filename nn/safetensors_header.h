// The header of a safetensors file as plain data, and its strict parser. Private to nn/: safetensors.cpp uses
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <stet/nn/safetensors.h>

namespace stet::nn::safetensors {

inline constexpr std::uint64_t kHeaderCap = 100'000'000;
inline constexpr std::size_t kTensorCap = 65'536, kNameCap = 256;
inline constexpr std::string_view kMetadataKey = "__metadata__";

/// One tensor; begin and end count from the first byte after the header.
struct Entry {
  std::string name;
  DType dtype = DType::f32;  ///< in memory
  bool half = false;         ///< F16 in the file, where an element has 2 bytes; f32 in memory
  Shape shape;
  std::uint64_t begin = 0, end = 0;
};

struct Header {
  std::vector<Entry> entries;  ///< in order of their bytes
  Metadata metadata;
};

std::string_view format_name(DType dtype);

/// What is wrong with a tensor's name, or nothing.
std::optional<std::string> name_problem(std::string_view name);

/// A string as it stands in JSON, quotes included. Bytes that are not UTF-8 are replaced.
std::string as_json(std::string_view text);

/// Parses and checks the whole header. `data_bytes`: what the file holds after it. Throws an Error that
/// starts with `file`.
Header parse_header(const std::string& file, std::string_view text, std::uint64_t data_bytes);

}  // namespace stet::nn::safetensors
