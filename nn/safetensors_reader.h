// A safetensors file whose tensors are read one by one, or not at all. Private to nn/.
#pragma once

#include <filesystem>
#include <string>

#include <stet/nn/safetensors_header.h>
#include <stet/nn/weight_file.h>

namespace stet::nn::safetensors {

/// A file of which the header is read and checked.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path);

  /// Here the entries' begin and end count from the first byte of the file.
  const Header& header() const { return header_; }
  /// The tensor's values over those of `target`, a tensor or a view of its shape, as WeightFile does it.
  void read(const Entry& e, const Tensor& target) const;
  /// Whether a tensor here and one there have one shape and the same bytes; of two floating types, the same numbers.
  bool same(const Entry& here, const Reader& other, const Entry& there) const;

 private:
  bool same_numbers(const Entry& here, const Reader& other, const Entry& there) const;

  WeightFile file_;
  Header header_;
};

}  // namespace stet::nn::safetensors
