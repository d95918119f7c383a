// A file of weights that is read, and tensors that are written, in pieces: no second copy of a model is made on the
// way. Private to nn/: safetensors.cpp and llama2c.cpp use it.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <stet/autograd/ops.h>

namespace stet::nn {

/// A file descriptor that closes itself.
class File {
 public:
  File(const std::filesystem::path& path, int flags, mode_t mode = 0)
      : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
};

inline constexpr std::int64_t kPieceBytes = 1 << 17;  // stays in a core's cache

/// visit(piece, first) for views of at most `values` elements that are `whole` together, in row-major order; `first`
/// elements stand before the piece.
template <class Visit>
void each_piece(const Tensor& whole, std::int64_t values, const Visit& visit, std::int64_t first = 0) {
  if (whole.numel() == 0) return;
  if (whole.numel() <= values) return visit(whole, first);
  const std::int64_t rows = whole.shape()[0], row = whole.numel() / rows,
                     step = std::max(values / row, std::int64_t{1});
  for (std::int64_t i = 0; i < rows; i += step) {
    const Tensor part = row > values ? select(whole, 0, i) : slice(whole, 0, i, std::min(i + step, rows));
    each_piece(part, values, visit, first + i * row);
  }
}

/// A regular file, open for reading. Errors start with `[op] path: `.
class WeightFile {
 public:
  WeightFile(const std::filesystem::path& path, std::string_view op);

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return size_; }
  void read(void* to, std::uint64_t bytes, std::uint64_t offset) const;
  /// The values that stand at `offset` as `stored` (`half`: in half precision, which becomes f32) in row-major order.
  /// The target may be a view, have another dtype and be on another device: what is on its way there takes few pieces.
  void read(const Tensor& target, std::uint64_t offset, DType stored, bool half = false) const;

 private:
  std::string_view op_;
  std::string name_;
  File file_;
  std::uint64_t size_ = 0;
};

}  // namespace stet::nn
