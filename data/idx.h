// IDX files, the format of MNIST and its relatives: big-endian sizes, then bytes; plain or gzip-compressed.
// Nothing is allocated before the header's claim has been checked against the size of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace stet::data {

struct IdxFile {
  std::vector<std::int64_t> shape;  // rank 1 to 3
  std::vector<std::uint8_t> bytes;  // row-major, exactly the product of the shape
};

/// Reads a whole file of unsigned bytes, or throws an Error naming the file, the offset, what was found and
/// what was expected. Compression is recognised by content, not by name.
IdxFile read_idx(const std::filesystem::path& path);

}  // namespace stet::data
