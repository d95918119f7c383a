// read_idx: the header is read and checked number by number, its claim is compared with what the file can
// hold, and only then is memory taken.
#include <array>
#include <span>
#include <string>

#include <stet/data/byte_source.h>
#include <stet/data/idx.h>
#include <stet/tensor/error.h>

namespace stet::data {
namespace {

constexpr std::string_view kOp = "read_idx";

std::uint32_t read_u32(ByteSource& source, const std::string& file, std::uint64_t offset, std::string_view what) {
  std::array<std::uint8_t, 4> b;
  const std::size_t found = source.read(b);
  check(found == b.size(), kOp, file, ": byte ", offset + found, ": the file ends inside ", what, ": found ", found,
        " bytes, expected 4");
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

/// Checks the magic number (two zeros, type 8 = unsigned byte, rank) and returns the rank.
int read_rank(ByteSource& source, const std::string& file) {
  const std::uint32_t magic = read_u32(source, file, 0, "the magic number");
  check(magic >> 16 == 0, kOp, file, ": byte 0: found ", magic >> 16, ", expected two zero bytes of an IDX file");
  const std::uint32_t type = magic >> 8 & 0xff;
  check(type == 0x08, kOp, file, ": byte 2: found element type ", type, ", expected 8 (unsigned bytes)");
  const std::uint32_t rank = magic & 0xff;
  check(rank >= 1 && rank <= 3, kOp, file, ": byte 3: found rank ", rank, ", expected 1 to 3");
  return static_cast<int>(rank);
}

std::string to_string(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (const auto size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

/// The number of bytes that the shape asks for, once it is certain that the file can hold them.
std::uint64_t checked_size(const ByteSource& source, const std::string& file, const std::vector<std::int64_t>& shape) {
  std::uint64_t size = 1;
  for (const auto n : shape) {
    check(!__builtin_mul_overflow(size, static_cast<std::uint64_t>(n), &size), kOp, file, ": byte 4: shape ",
          to_string(shape), " has more elements than 64 bits can count");
  }
  const std::uint64_t header = 4 + 4 * shape.size();
  const std::uint64_t capacity = source.capacity();
  const std::uint64_t room = capacity > header ? capacity - header : 0;
  check(size <= room, kOp, file, ": byte 4: shape ", to_string(shape), " needs ", size, " bytes after the header, ",
        source.compressed() ? "but a compressed file of " : "but a file of ", source.file_size(),
        " bytes cannot hold more than ", room);
  return size;
}

}  // namespace

IdxFile read_idx(const std::filesystem::path& path) {
  const std::string file = path.string();
  ByteSource source(kOp, path);
  const int rank = read_rank(source, file);

  IdxFile idx;
  std::uint64_t offset = 4;
  for (int axis = 0; axis < rank; ++axis, offset += 4)
    idx.shape.push_back(read_u32(source, file, offset, "size " + std::to_string(axis)));

  idx.bytes.resize(checked_size(source, file, idx.shape));
  const std::size_t found = source.read(idx.bytes);
  check(found == idx.bytes.size(), kOp, file, ": byte ", offset + found, ": the data are truncated: found ", found,
        " bytes, expected ", idx.bytes.size(), " for shape ", to_string(idx.shape));

  std::uint8_t extra = 0;  // also lets zlib reach the end of its stream and verify the checksum
  check(source.read({&extra, 1}) == 0, kOp, file, ": byte ", offset + found,
        ": found bytes after the data, expected the end for shape ", to_string(idx.shape));
  return idx;
}

}  // namespace stet::data
