// Reading with pread, piece by piece where values are converted or moved on.
#include <stet/nn/weight_file.h>

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

/// IEEE 754 half precision, all of whose values f32 has. Without branches, so that the loop becomes vectors.
Tensor from_halves(const Tensor& bits) {
  const Tensor out = empty(bits.shape(), {DType::f32, Device::cpu()});
  const auto* in = static_cast<const std::uint16_t*>(bits.raw());
  auto* values = out.mutable_data<float>();
  const std::int64_t count = out.numel();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t half = in[i], rest = half & 0x7fffu, wide = rest << 13;
    const std::uint32_t normal = wide + (rest < 0x7c00u ? 112u << 23 : 224u << 23);  // infinities and NaN: 255 - 31
    const float subnormal = std::bit_cast<float>(wide + (113u << 23)) - 0x1p-14f;
    const std::uint32_t is_subnormal = rest < 0x400u ? ~0u : 0u;
    values[i] = std::bit_cast<float>((half & 0x8000u) << 16 | (normal & ~is_subnormal) |
                                     (std::bit_cast<std::uint32_t>(subnormal) & is_subnormal));
  }
  return out;
}

}  // namespace

// O_NONBLOCK: a pipe without a writer is refused, not waited for.
WeightFile::WeightFile(const std::filesystem::path& path, std::string_view op)
    : op_(op), name_(path.string()), file_(path, O_RDONLY | O_NONBLOCK) {
  check(file_.is_open(), op_, name_, ": cannot be opened: ", std::strerror(errno));
  struct stat status {};
  check(fstat(file_.fd(), &status) == 0, op_, name_, ": ", std::strerror(errno));
  check(S_ISREG(status.st_mode), op_, name_, ": found something that is not a regular file");
  size_ = static_cast<std::uint64_t>(status.st_size);
}

void WeightFile::read(void* to, std::uint64_t bytes, std::uint64_t offset) const {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file_.fd(), at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, op_, name_, ": reading at byte ", offset, ": ", std::strerror(errno));
    check(got > 0, op_, name_, ": the file ended at byte ", offset, " while it was read, expected ", bytes,
          " more bytes");
    at += got;
    bytes -= static_cast<std::uint64_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
}

void WeightFile::read(const Tensor& target, std::uint64_t offset, DType stored, bool half) const {
  const std::int64_t size = half ? 2 : size_of(stored);
  const bool as_it_is = !half && target.dtype() == stored && target.device() == Device::cpu() && target.is_contiguous();
  each_piece(target, as_it_is ? target.numel() : kPieceBytes / size, [&](const Tensor& piece, std::int64_t first) {
    const DType bits = half ? DType::bf16 : stored;  // bf16: as wide as a half
    const Tensor read_here = as_it_is ? piece : empty(piece.shape(), {bits, Device::cpu()});
    read(read_here.raw_mutable(), static_cast<std::uint64_t>(read_here.bytes()),
         offset + static_cast<std::uint64_t>(first * size));
    if (!as_it_is) piece.copy_(half ? from_halves(read_here) : read_here);
  });
}

}  // namespace stet::nn
