// A file as a stream of bytes, decompressed on the way if it is gzip. Private to data/.
// Holds one small buffer: memory does not grow with what a hostile file claims or expands to.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string_view>

namespace stet::data {

class ByteSource {
 public:
  ByteSource(std::string_view op, const std::filesystem::path& path);
  ~ByteSource();

  /// Fills `out` as far as the contents go and returns the number of bytes written. A damaged or truncated
  /// gzip stream, or bytes after its end, throw.
  std::size_t read(std::span<std::uint8_t> out);
  bool compressed() const { return inflater_ != nullptr; }
  std::uint64_t file_size() const { return file_size_; }
  /// The most bytes that a file of this size can hold: its size, or zlib's highest ratio of 1032 to 1.
  std::uint64_t capacity() const;

 private:
  struct Inflater;
  std::size_t read_file(std::span<std::uint8_t> out);
  std::size_t inflate_into(std::span<std::uint8_t> out);
  void refill();

  std::string_view op_;
  std::filesystem::path path_;
  std::ifstream file_;
  std::uint64_t file_size_ = 0;
  std::uint64_t file_offset_ = 0;  // bytes taken from the file so far
  std::unique_ptr<Inflater> inflater_;
};

}  // namespace stet::data
