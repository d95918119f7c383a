// ByteSource: plain files through ifstream, gzip through zlib's streaming inflate. The gzip checksum is
// verified by zlib when the stream ends, so a reader asks for one byte more than it needs.
#include <algorithm>
#include <string>

#include <stet/data/byte_source.h>
#include <stet/tensor/error.h>
#include <zlib.h>

namespace stet::data {

struct ByteSource::Inflater {
  z_stream stream{};
  bool finished = false;
  std::array<std::uint8_t, 1 << 16> input;

  Inflater() {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&stream, kGzipOnly) != Z_OK) fail<OutOfMemory>("inflate", "zlib could not be initialised");
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

ByteSource::ByteSource(std::string_view op, const std::filesystem::path& path) : op_(op), path_(path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(status.type() != std::filesystem::file_type::none, op, path.string(), ": ", error.message());
  check(std::filesystem::exists(status), op, path.string(), ": no such file");
  check(std::filesystem::is_regular_file(status), op, path.string(), ": not a regular file");
  file_size_ = std::filesystem::file_size(path, error);
  file_.open(path, std::ios::binary);
  check(!error && file_.is_open(), op, path.string(), ": cannot be read");
  if (file_.get() == 0x1f && file_.get() == 0x8b) inflater_ = std::make_unique<Inflater>();
  file_.clear();
  file_.seekg(0);
}

ByteSource::~ByteSource() = default;

std::uint64_t ByteSource::capacity() const {
  constexpr std::uint64_t kHighestRatio = 1032;
  return compressed() ? file_size_ * kHighestRatio : file_size_;
}

std::size_t ByteSource::read(std::span<std::uint8_t> out) { return compressed() ? inflate_into(out) : read_file(out); }

std::size_t ByteSource::read_file(std::span<std::uint8_t> out) {
  file_.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
  check(!file_.bad(), op_, path_.string(), ": byte ", file_offset_, ": the system reports a read error");
  const auto count = static_cast<std::size_t>(file_.gcount());
  file_offset_ += count;
  return count;
}

void ByteSource::refill() {
  auto& stream = inflater_->stream;
  stream.next_in = inflater_->input.data();
  stream.avail_in = static_cast<uInt>(read_file(inflater_->input));
  check(stream.avail_in > 0, op_, path_.string(), ": byte ", file_offset_,
        ": the gzip stream is truncated: found the end of the file, expected more compressed data");
}

std::size_t ByteSource::inflate_into(std::span<std::uint8_t> out) {
  auto& stream = inflater_->stream;
  std::size_t count = 0;
  while (count < out.size() && !inflater_->finished) {
    if (stream.avail_in == 0) refill();
    constexpr std::size_t kMost = 1 << 30;  // zlib counts in 32 bits
    const auto room = static_cast<uInt>(std::min(out.size() - count, kMost));
    stream.next_out = out.data() + count;
    stream.avail_out = room;
    const int status = inflate(&stream, Z_NO_FLUSH);
    count += room - stream.avail_out;
    const std::uint64_t offset = file_offset_ - stream.avail_in;
    check(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, op_, path_.string(), ": byte ", offset,
          ": the gzip stream is damaged: ", stream.msg ? stream.msg : "zlib gives no reason");
    inflater_->finished = status == Z_STREAM_END;
    check(!inflater_->finished || offset == file_size_, op_, path_.string(), ": byte ", offset, ": found ",
          file_size_ - offset, " bytes after the gzip stream, expected none");
  }
  return count;
}

}  // namespace stet::data
