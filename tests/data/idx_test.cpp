// The IDX reader and the image loader on good files and on every kind of corrupt file, each with the message
// that a person would get. Files are made here, byte by byte.
#include <cstdlib>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <numeric>
#include <string>

#include <stet/data/idx.h>
#include <stet/data/images.h>
#include <stet/tensor/error.h>
#include <zlib.h>

#include "support/catch.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;
using test::Scratch;
using Bytes = std::string;

namespace {

Bytes big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

Bytes header(std::initializer_list<std::uint32_t> shape) {
  Bytes bytes = {0, 0, 8, static_cast<char>(shape.size())};
  for (const auto size : shape) bytes += big_endian(size);
  return bytes;
}

Bytes payload(std::size_t count) {
  Bytes bytes(count, '\0');
  std::iota(bytes.begin(), bytes.end(), '\0');
  return bytes;
}

Bytes gzip(const Bytes& plain) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes out(deflateBound(&stream, plain.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

struct Corrupt {
  const char* name;
  Bytes bytes;
  std::vector<std::string> expected;  // all of them stand in the message
};

Bytes changed(Bytes bytes, std::size_t at, int value) {
  bytes.at(at) = static_cast<char>(value);
  return bytes;
}

void require_messages(const std::vector<Corrupt>& cases) {
  const Scratch scratch;
  for (const auto& corrupt : cases) {
    INFO(corrupt.name);
    const fs::path path = scratch.write("corrupt-ubyte", corrupt.bytes);
    const std::string message = message_of([&] { data::read_idx(path); });
    INFO(message);
    CHECK(message.starts_with("[read_idx] "));
    CHECK(message.find(path.string()) != std::string::npos);
    for (const auto& part : corrupt.expected) {
      INFO(part);
      CHECK(message.find(part) != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE("IDX files of rank 1 to 3 are read, plain and compressed") {
  const Scratch scratch;
  const std::vector<std::pair<Bytes, std::vector<std::int64_t>>> files = {
      {header({5}) + payload(5), {5}},
      {header({2, 3}) + payload(6), {2, 3}},
      {header({2, 3, 4}) + payload(24), {2, 3, 4}},
      {header({0}), {0}},
      {header({0, 28, 28}), {0, 28, 28}},
  };
  for (const auto& [bytes, shape] : files) {
    for (const auto& stored : {bytes, gzip(bytes)}) {
      const auto idx = data::read_idx(scratch.write("file", stored));
      CHECK(idx.shape == shape);
      REQUIRE(idx.bytes.size() == bytes.size() - 4 - 4 * shape.size());
      for (std::size_t i = 0; i < idx.bytes.size(); ++i) CHECK(idx.bytes[i] == i);
    }
  }
}

TEST_CASE("A large compressed file crosses the reader's buffer") {
  const Scratch scratch;
  Bytes noise(300'000, '\0');
  std::uint32_t state = 1;
  for (auto& byte : noise) byte = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
  const auto idx = data::read_idx(scratch.write("file", gzip(header({300, 1000}) + noise)));
  CHECK(std::equal(idx.bytes.begin(), idx.bytes.end(), noise.begin(), noise.end(),
                   [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }));
}

TEST_CASE("Corrupt plain IDX files are refused by name, offset, found and expected") {
  const Bytes good = header({2, 3}) + payload(6);
  const std::uint32_t most = 0xffffffff;
  require_messages({
      {"empty file", "", {"byte 0", "magic number", "found 0 bytes, expected 4"}},
      {"half a magic number", good.substr(0, 2), {"byte 2", "found 2 bytes, expected 4"}},
      {"first byte", changed(good, 0, 1), {"byte 0", "found 256", "expected two zero bytes"}},
      {"second byte", changed(good, 1, 1), {"byte 0", "found 1,", "expected two zero bytes"}},
      {"signed bytes", changed(good, 2, 9), {"byte 2", "type 9", "expected 8"}},
      {"floats", changed(good, 2, 13), {"byte 2", "type 13", "expected 8"}},
      {"a type out of any range", changed(good, 2, 255), {"byte 2", "type 255"}},
      {"rank 0", changed(good, 3, 0), {"byte 3", "rank 0", "expected 1 to 3"}},
      {"rank 4", changed(good, 3, 4), {"byte 3", "rank 4", "expected 1 to 3"}},
      {"rank 255", changed(good, 3, 255), {"byte 3", "rank 255"}},
      {"no sizes", good.substr(0, 4), {"byte 4", "inside size 0", "found 0 bytes"}},
      {"one and a half sizes", good.substr(0, 10), {"byte 10", "inside size 1", "found 2 bytes"}},
      {"no data", good.substr(0, 12), {"byte 4", "(2, 3) needs 6 bytes", "more than 0"}},
      {"one byte short", good.substr(0, 17), {"byte 4", "needs 6 bytes", "more than 5"}},
      {"one byte more", good + "x", {"byte 18", "after the data"}},
      {"little-endian sizes", changed(changed(good, 4, 2), 7, 0), {"(33554432, 3) needs 100663296 bytes"}},
      {"large claim", header({most}), {"(4294967295) needs 4294967295 bytes", "more than 0"}},
      {"a product that wraps 32 bits", header({65536, 65536}) + payload(6), {"needs 4294967296 bytes"}},
      {"a product that wraps 64 bits", header({most, most, most}), {"more elements than 64 bits"}},
      {"a product that wraps 64 bits to 0", header({1u << 31, 1u << 31, 4}), {"more elements than 64 bits"}},
  });
}

TEST_CASE("Corrupt compressed IDX files are refused by name, offset, found and expected") {
  const Bytes good = header({2, 3}) + payload(6);
  const Bytes packed = gzip(good);
  const std::size_t checksum = packed.size() - 8;
  require_messages({
      {"only the gzip magic", packed.substr(0, 2), {"byte 2", "truncated"}},
      {"cut inside the stream", packed.substr(0, packed.size() - 12), {"truncated", "expected more"}},
      {"cut before the checksum", packed.substr(0, checksum), {"truncated"}},
      {"cut inside the length", packed.substr(0, packed.size() - 1), {"truncated"}},
      {"wrong checksum", changed(packed, checksum, packed[checksum] ^ 1), {"damaged", "incorrect data check"}},
      {"wrong length", changed(packed, checksum + 4, 99), {"damaged", "incorrect length check"}},
      {"unknown compression method", changed(packed, 2, 7), {"damaged", "unknown compression method"}},
      {"bytes after the stream", packed + "xyz", {"found 3 bytes after the gzip stream"}},
      {"a second stream", packed + packed, {"after the gzip stream, expected none"}},
      {"empty contents", gzip(""), {"byte 0", "magic number", "found 0 bytes"}},
      {"wrong magic inside", gzip(changed(good, 3, 7)), {"byte 3", "rank 7"}},
      {"fewer data than claimed", gzip(good.substr(0, 15)), {"byte 15", "truncated", "found 3 bytes, expected 6"}},
      {"more data than claimed", gzip(good + "x"), {"byte 18", "after the data"}},
      {"a bomb behind a small claim", gzip(good + Bytes(10'000'000, 'x')), {"byte 18", "after the data"}},
      {"a claim over zlib's ratio", gzip(header({60000, 1000, 1000})), {"needs 60000000000 bytes", "compressed"}},
      {"compressed twice", gzip(packed), {"byte 0", "expected two zero bytes"}},
  });
}

TEST_CASE("Files that cannot be read are refused by name") {
  const Scratch scratch;
  CHECK(message_of([&] { data::read_idx(scratch.path() / "none"); }).find("none: no such file") != std::string::npos);
  CHECK(message_of([&] { data::read_idx(scratch.path()); }).find("not a regular file") != std::string::npos);
}

TEST_CASE("Images and labels must agree") {
  const Scratch scratch;
  const auto write = [&](const Bytes& images, const Bytes& labels) {
    scratch.write("set/train-images-idx3-ubyte", images);
    scratch.write("set/train-labels-idx1-ubyte.gz", gzip(labels));
  };
  const std::string folder = (scratch.path() / "set").string();
  const auto message = [&] { return message_of([&] { data::load_images(folder, data::Split::train); }); };
  const Bytes images = header({3, 2, 2}) + payload(12);

  write(images, header({3}) + Bytes{9, 0, 5});
  const auto set = data::load_images(folder, data::Split::train);
  CHECK((set.count == 3 && set.height == 2 && set.width == 2 && set.classes == 10));
  CHECK(set.images[11] == 11);
  CHECK(set.labels == std::vector<std::uint8_t>{9, 0, 5});

  write(images, header({2}) + Bytes{9, 0});
  CHECK(message().find("found 2 train labels, expected 3") != std::string::npos);
  write(images, header({3}) + Bytes{9, 0, 10});
  CHECK(message().find("train label 2 is 10, expected 0 to 9") != std::string::npos);
  write(images, header({3, 1}) + Bytes{9, 0, 1});
  CHECK(message().find("found rank 2, expected 1") != std::string::npos);
  write(header({3, 4}) + payload(12), header({3}) + Bytes{9, 0, 1});
  CHECK(message().find("found rank 2, expected 3") != std::string::npos);
  CHECK(message_of([&] {
          data::load_images(folder, data::Split::test);
        }).find("t10k-images-idx3-ubyte[.gz]: no such file") != std::string::npos);
}

TEST_CASE("Data sets are looked for in STET_DATA_DIR, the user's folder, then the system's") {
  const Scratch scratch;
  const test::Environment own("STET_DATA_DIR", (scratch.path() / "own").string());
  const test::Environment xdg("XDG_DATA_HOME", (scratch.path() / "xdg").string());
  const std::string message = message_of([] { data::find_dataset("no-such-set"); });
  CHECK(message == "[find_dataset] no data set 'no-such-set' in " + (scratch.path() / "own/no-such-set").string() +
                       ", " + (scratch.path() / "xdg/stet/datasets/no-such-set").string() +
                       ", /usr/share/datasets/no-such-set: set STET_DATA_DIR to the folder that contains it, "
                       "or name its own folder with a /");

  const fs::path second = scratch.write("xdg/stet/datasets/mine/train-images-idx3-ubyte", "x").parent_path();
  CHECK(data::find_dataset("mine") == second);
  const fs::path first = scratch.write("own/mine/train-images-idx3-ubyte.gz", "x").parent_path();
  CHECK(data::find_dataset("mine") == first);
}

TEST_CASE("Fashion-MNIST is found and has its published sizes") {
  try {
    data::find_dataset("fashion-mnist");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("apt-get install dataset-fashion-mnist") != std::string::npos);
    WARN("not installed: " << error.what());
    return;
  }
  const auto train = data::load_images("fashion-mnist", data::Split::train);
  const auto test = data::load_images("fashion-mnist", data::Split::test);
  CHECK((train.count == 60000 && train.height == 28 && train.width == 28));
  CHECK(test.count == 10000);
  for (int label = 0; label < 10; ++label) CHECK(std::count(train.labels.begin(), train.labels.end(), label) == 6000);
}
