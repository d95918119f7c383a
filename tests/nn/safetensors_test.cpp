// Weight files: round trips, every class of corrupt file with the message that a person would get, every
// truncation, and that a failed save leaves the old file alone. Files are made here, byte by byte.
#include <stet/nn/layers.h>
#include <stet/nn/safetensors.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/scratch.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data_bytes, '\1');
}

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string header_of(const fs::path& path) {
  const std::string bytes = read_bytes(path);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return bytes.substr(8, length);
}

using test::same_bits;

nn::State every_dtype() {
  nn::State state;
  for (const DType t : {boolean, u8, i32, i64, bf16, f32, f64}) {
    const std::string name(name_of(t));
    const Tensor wide = test::spread({3, 5}, t == boolean || t == u8 ? 0 : -100, 100, 1);
    state[name + ".matrix"] = cast(wide, t);
    state[name + ".scalar"] = cast(scalar(1), t);
    state[name + ".empty"] = cast(zeros({2, 0, 3}), t);
    state[name + ".odd"] = cast(ones({1, 1, 1, 1, 1, 1, 1, 7}), t);
  }
  state["fc1.weight/m"] = ones({2});
  state["ä \"quoted\" \\ name"] = ones({1});
  return state;
}

int entries_in(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

struct Corrupt {
  std::string what, bytes, message;
};

const std::string kX = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
std::string with_x(const std::string& entry) { return "{\"x\":" + entry + "}"; }
std::string named(const std::string& name) {
  return "{\"" + name + R"(":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
}

std::vector<Corrupt> corrupt_lengths_and_json() {
  std::string huge(8, '\xff');
  std::string capped = file_of("{" + kX + "}", 8);
  const std::uint64_t over = 100'000'001;
  std::memcpy(capped.data(), &over, sizeof over);
  return {
      {"empty file", "", "found 0 bytes, expected at least 8 for the header's length"},
      {"short length", "\1\2\3", "found 3 bytes"},
      {"length 0", file_of(""), "found a header length of 0 at byte 0, expected 2 to 100000000"},
      {"length over the cap", capped, "found a header length of 100000001 at byte 0"},
      {"length that wraps", huge, "found a header length of 18446744073709551615 at byte 0"},
      {"length past the end", file_of("{" + kX + "}").substr(0, 40), "expected at most 32, where the file ends"},
      {"not JSON", file_of("hello, world"), "the header at byte 8: found \"h\", expected '{'"},
      {"leading space", file_of(" {" + kX + "}", 8), "found \" \", expected '{'"},
      {"byte order mark", file_of("\xef\xbb\xbf{" + kX + "}", 8), "expected '{'"},
      {"an array", file_of("[]"), "found \"[\", expected '{'"},
      {"unterminated", file_of("{" + kX, 8), "the header is not JSON at byte 61"},
      {"trailing junk", file_of("{" + kX + "} x", 8), "the header is not JSON at byte 63"},
      {"two objects", file_of("{" + kX + "}{}", 8), "the header is not JSON at byte 62"},
      {"NUL and more after the end", file_of("{" + kX + "}" + std::string(1, '\0') + "PK", 8),
       "the header at byte 62: found a NUL"},
      {"not UTF-8", file_of(named("\xc3\x28"), 8), "the header is not JSON at byte"},
      {"surrogate half", file_of(named("\\ud800"), 8), "the header is not JSON at byte"},
      {"comment", file_of("{/**/" + kX + "}", 8), "the header is not JSON at byte 9"},
      {"trailing comma", file_of("{" + kX + ",}", 8), "the header is not JSON at byte"},
      {"number as big as infinity", file_of(with_x(R"({"dtype":"F32","shape":[1e999],"data_offsets":[0,8]})"), 8),
       "the header is not JSON at byte"},
      {"deep nesting", file_of(with_x(std::string(50'000, '[') + std::string(50'000, ']'))),
       "found an array, expected an object"},
      {"deep objects", file_of(R"({"__metadata__":{"a":{"b":{}}}})"), "found an object, expected a string"},
  };
}

std::vector<Corrupt> corrupt_entries() {
  return {
      {"duplicate tensor", file_of("{" + kX + "," + kX + "}", 8), "\"x\" near byte 65: found the name twice"},
      {"duplicate by escape", file_of("{" + kX + R"(,"\u0078":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
       "found the name twice"},
      {"duplicate dtype", file_of(with_x(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), 8),
       "found the key \"dtype\" twice"},
      {"duplicate shape", file_of(with_x(R"({"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]})"), 8),
       "found the key \"shape\" twice"},
      {"duplicate metadata", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "found the key \"a\" twice"},
      {"two metadata", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "\"__metadata__\" near byte"},
      {"metadata number", file_of(R"({"__metadata__":{"epoch":3}})"), "found the number 3, expected a string"},
      {"metadata null", file_of(R"({"__metadata__":{"epoch":null}})"), "found null, expected a string"},
      {"metadata string", file_of(R"({"__metadata__":"x"})"), "found the string \"x\", expected an object"},
      {"tensor is a number", file_of(with_x("7")), "\"x\" near byte 15: found the number 7, expected an object"},
      {"tensor is true", file_of(with_x("true")), "found true, expected an object"},
      {"missing dtype", file_of(with_x(R"({"shape":[2],"data_offsets":[0,8]})"), 8),
       "\"x\" near byte 47: found no dtype"},
      {"missing shape", file_of(with_x(R"({"dtype":"F32","data_offsets":[0,8]})"), 8), "found no shape"},
      {"missing offsets", file_of(with_x(R"({"dtype":"F32","shape":[2]})"), 8), "found no data_offsets"},
      {"extra field", file_of(with_x(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]})"), 8),
       "found the key \"strides\", expected dtype, shape and data_offsets"},
      {"unknown dtype", file_of(with_x(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"), 8),
       "found dtype \"F31\", expected one of F64, F32, BF16, I64, I32, U8, BOOL, F16"},
      {"half precision of a wrong size", file_of(with_x(R"({"dtype":"F16","shape":[4],"data_offsets":[0,16]})"), 16),
       "found 16 bytes, expected 8 for F16"},
      {"dtype number", file_of(with_x(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})"), 8),
       "found the number 32, expected a string"},
      {"shape number", file_of(with_x(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), 8),
       "found the number 2, expected an array"},
      {"shape string", file_of(with_x(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), 8),
       "found the string \"2\", expected a plain non-negative integer"},
      {"shape nested", file_of(with_x(R"({"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})"), 8),
       "found an array, expected a plain"},
      {"negative size", file_of(with_x(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), 8),
       "found the number -2, expected a plain"},
      {"minus zero", file_of(with_x(R"({"dtype":"F32","shape":[-0],"data_offsets":[0,0]})")), "found the number -0"},
      {"fraction", file_of(with_x(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), 8), "found the number 2.0"},
      {"exponent", file_of(with_x(R"({"dtype":"F32","shape":[2e0],"data_offsets":[0,8]})"), 8), "found the number 2e0"},
      {"leading zero", file_of(with_x(R"({"dtype":"F32","shape":[02],"data_offsets":[0,8]})"), 8),
       "the header is not JSON"},
      {"size over 2^63", file_of(with_x(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"), 8),
       "found the number 9223372036854775808, expected at most 2^63 - 1"},
      {"offset over 2^64", file_of(with_x(R"({"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551624]})"), 8),
       "found the number 18446744073709551624"},
      {"rank 9", file_of(with_x(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"), 8),
       "found more than 8 dimensions"},
      {"one offset", file_of(with_x(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), 8),
       "found 1 data_offsets, expected 2"},
      {"three offsets", file_of(with_x(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})"), 8),
       "found more than 2 data_offsets"},
  };
}

std::vector<Corrupt> corrupt_names() {
  return {
      {"empty name", file_of(named(""), 8), "\"\" near byte 11: found a name that is empty"},
      {"long name", file_of(named(std::string(257, 'n')), 8), "found a name that has 257 bytes"},
      {"control in a name", file_of(named("a\\u0001"), 8), "found a name that holds a control character"},
      {"NUL in a name", file_of(named("a\\u0000b"), 8), "\"a\\u0000b\" near byte"},
      {"newline in a name", file_of(named("a\\nb"), 8), "found a name that holds a control character"},
      {"absolute path", file_of(named("/etc/passwd"), 8), "found a name that starts with '/'"},
      {"parent folder", file_of(named("a/../b"), 8), "found a name that holds a '..' component"},
      {"parent folder at the end", file_of(named("a/.."), 8), "found a name that holds a '..' component"},
  };
}

std::vector<Corrupt> corrupt_layouts() {
  const auto x = [](const std::string& shape, const std::string& offsets) {
    return with_x(R"({"dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[)" + offsets + "]}");
  };
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[)" + a +
           R"(]},"y":{"dtype":"F32","shape":[2],"data_offsets":[)" + b + "]}}";
  };
  std::string three_bools = file_of(with_x(R"({"dtype":"BOOL","shape":[3],"data_offsets":[0,3]})"), 3);
  three_bools.back() = '\2';
  return {
      {"end before begin", file_of(x("2", "8,0"), 8), "found data_offsets [8, 0], expected begin <= end"},
      {"data past the end", file_of(x("2", "0,8"), 7), "found data up to byte 8 of the data, expected at most 7"},
      {"size does not match", file_of(x("3", "0,8"), 8), "\"x\" at byte 62: found 8 bytes, expected 12 for F32 (3,)"},
      {"count wraps to a fit", file_of(x("4611686018427387904,4,2", "0,8"), 8), "expected a size below 2^63 bytes"},
      {"bytes wrap", file_of(x("4611686018427387904", "0,0")),
       "found shape (4611686018427387904,), expected a size below 2^63 bytes"},
      {"strides wrap", file_of(x("0,4611686018427387904,4611686018427387904", "0,0")),
       "expected a size below 2^63 bytes"},
      {"terabytes claimed", file_of(x("274877906944", "0,1099511627776"), 8), "found data up to byte 1099511627776"},
      {"hole at the start", file_of(x("1", "4,8"), 8), "found a hole of 4 bytes before it"},
      {"hole between", file_of(two("0,8", "12,20"), 20),
       "\"y\" at byte 129: found a hole of 4 bytes before it, expected data from byte 125"},
      {"overlap", file_of(two("0,8", "4,12"), 12), "\"y\" at byte 120: found an overlap of 4 bytes"},
      {"same bytes twice", file_of(two("0,8", "0,8"), 8), "\"y\" at byte 115: found an overlap of 8 bytes"},
      {"bytes after the last tensor", file_of("{" + kX + "}", 9),
       "found 1 bytes after the last tensor at byte 70, expected the end of the file"},
      {"data without tensors", file_of("{}", 3), "found 3 bytes after the last tensor at byte 10"},
      {"a bool of 2", three_bools, "\"x\" at byte 65: found 2, expected 0 or 1 in a BOOL tensor"},
  };
}

}  // namespace

TEST_CASE("A safetensors round trip keeps every bit of every dtype") {
  const Scratch scratch;
  const nn::State state = every_dtype();
  const nn::Metadata written{{"format", "stet"}, {"a \"b\"", "\n\xc3\xa4"}};
  const fs::path path = scratch.path() / "all.safetensors";
  nn::save_safetensors(path, state, written);
  nn::Metadata read;
  const nn::State back = nn::load_safetensors(path, &read);
  CHECK(read == written);
  CHECK(back.size() == state.size());
  for (const auto& [name, value] : state) {
    INFO(name);
    REQUIRE(back.contains(name));
    CHECK(same_bits(back.at(name), value));
  }
  CHECK(header_of(path).size() % 8 == 0);
  CHECK(entries_in(scratch.path()) == 1);  // no temporary file is left
}

TEST_CASE("Special values and strided tensors are written as they are") {
  const Scratch scratch;
  const Tensor special = tensor({NAN, -NAN, INFINITY, -INFINITY, -0.0f, 1e-45f});
  const Tensor base = test::spread({4, 6}, -1, 1, 0);
  nn::save_safetensors(scratch.path() / "s",
                       {{"special", special}, {"t", transpose(base)}, {"e", expand(ones({1}), {3})}});
  const nn::State back = nn::load_safetensors(scratch.path() / "s");
  CHECK(same_bits(back.at("special"), special));
  CHECK(same_bits(back.at("t"), transpose(base).clone()));
  CHECK(same_bits(back.at("e"), ones({3})));
}

TEST_CASE("The layout of a file is canonical") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "x";
  nn::save_safetensors(path, {{"a", cast(ones({3}), u8)}, {"b", ones({2})}, {"c", ones({1}, f64)}}, {{"k", "v"}});
  CHECK(
      header_of(path) ==
      R"({"__metadata__":{"k":"v"},"c":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})"
      "     ");
  nn::save_safetensors(path, {});
  CHECK(header_of(path) == "{}      ");
  CHECK(nn::load_safetensors(path).empty());
}

TEST_CASE("Files of other writers: any order of tensors and keys, space in the header") {
  const Scratch scratch;
  const auto path =
      scratch.write("x", file_of(R"({ "b" : {"data_offsets":[8,12],"shape":[1],"dtype":"F32"}, "__metadata__":{},
    "a":{"shape":[],"dtype":"F64","data_offsets":[0,8]}, "none":{"dtype":"U8","shape":[0,5],"data_offsets":[8,8]} }    )",
                                 12));
  const nn::State state = nn::load_safetensors(path);
  CHECK(state.size() == 3);
  CHECK(state.at("a").rank() == 0);
  CHECK(state.at("none").shape() == Shape{0, 5});
}

TEST_CASE("Half precision becomes f32: zeros, subnormals, normals, infinities, NaN") {
  const Scratch scratch;
  const std::uint16_t halves[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00,
                                  0xc000, 0x7bff, 0x7c00, 0xfc00, 0x7e01};
  std::string bytes = file_of(R"({"x":{"dtype":"F16","shape":[11],"data_offsets":[0,22]}})");
  bytes.append(reinterpret_cast<const char*>(halves), sizeof halves);
  const Tensor x = nn::load_safetensors(scratch.write("half.safetensors", bytes)).at("x");
  REQUIRE(x.dtype() == f32);
  const auto values = x.to_vector<float>();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> expected{0, -0.0f, 0x1p-24f, -0x3ffp-24f, 0x1p-14f, 1, -2, 65504, inf, -inf};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(i);
    CHECK(values[i] == expected[i]);
    CHECK(std::signbit(values[i]) == std::signbit(expected[i]));
  }
  CHECK(std::isnan(values[10]));
}

TEST_CASE("Every class of corrupt safetensors file is refused with its reason") {
  const Scratch scratch;
  int classes = 0;
  for (const auto& list : {corrupt_lengths_and_json(), corrupt_entries(), corrupt_names(), corrupt_layouts()})
    for (const Corrupt& c : list) {
      INFO(c.what);
      const auto path = scratch.write("bad.safetensors", c.bytes);
      const std::string message = message_of([&] { nn::load_safetensors(path); });
      CHECK_THAT(message, Contains(c.message));
      CHECK(message.starts_with("[load_safetensors] " + path.string() + ": "));
      ++classes;
    }
  CHECK(classes == 74);
}

TEST_CASE("More tensors than the cap are refused") {
  const Scratch scratch;
  std::string header = "{";
  for (int i = 0; i <= 65'536; ++i)
    header += (i ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  const auto path = scratch.write("many", file_of(header + "}"));
  CHECK_THAT(message_of([&] { nn::load_safetensors(path); }), Contains("found more than 65,536 tensors"));
}

TEST_CASE("Every truncation and every added byte of a file is refused") {
  const Scratch scratch;
  nn::save_safetensors(scratch.path() / "whole",
                       {{"a", ones({300})}, {"b", ones({90}, f64)}, {"c", cast(ones({5}), u8)}});
  const std::string whole = read_bytes(scratch.path() / "whole");
  REQUIRE(whole.size() > 2000);
  int refused = 0;
  for (std::size_t n = 0; n < whole.size(); ++n)
    if (message_of([&] { nn::load_safetensors(scratch.write("part", whole.substr(0, n))); }) != "no error") ++refused;
  CHECK(refused == static_cast<int>(whole.size()));
  CHECK_THAT(message_of([&] { nn::load_safetensors(scratch.write("more", whole + "x")); }),
             Contains("after the last tensor"));
}

TEST_CASE("Flipping any bit of the header gives an Error or a readable file, never a crash") {
  const Scratch scratch;
  nn::save_safetensors(scratch.path() / "whole", {{"a", ones({3})}, {"b.c/d", ones({2}, f64)}}, {{"key", "value"}});
  const std::string whole = read_bytes(scratch.path() / "whole");
  const std::size_t end = 8 + header_of(scratch.path() / "whole").size();
  for (std::size_t bit = 0; bit < 8 * end; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    const auto path = scratch.write("flipped", bytes);
    message_of([&] { nn::load_safetensors(path); });  // anything but an Error ends the test
  }
  SUCCEED();
}

TEST_CASE("What is not a file of tensors") {
  const Scratch scratch;
  CHECK_THAT(message_of([&] { nn::load_safetensors(scratch.path() / "none"); }),
             Contains("none: cannot be opened: No such file"));
  CHECK_THAT(message_of([&] { nn::load_safetensors(scratch.path()); }), Contains("not a regular file"));
  const fs::path pipe = scratch.path() / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THAT(message_of([&] { nn::load_safetensors(pipe); }), Contains("not a regular file"));
}

TEST_CASE("Saving refuses what could not be loaded") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "x";
  const auto save = [&](const nn::State& state) { return message_of([&] { nn::save_safetensors(path, state); }); };
  CHECK_THAT(save({{"", ones({1})}}),
             Contains("[save_safetensors] " + path.string() + ": a tensor's name \"\" is empty"));
  CHECK_THAT(save({{"/a", ones({1})}}), Contains("starts with '/'"));
  CHECK_THAT(save({{"a/../b", ones({1})}}), Contains("'..' component"));
  CHECK_THAT(save({{"__metadata__", ones({1})}}), Contains("belongs to the format"));
  CHECK_THAT(save({{std::string(257, 'x'), ones({1})}}), Contains("has 257 bytes"));
  CHECK_THAT(save({{"a\nb", ones({1})}}), Contains("control character"));
  CHECK_THAT(save({{"\xff", ones({1})}}), Contains("is not UTF-8"));
  CHECK_THAT(save({{"a", Tensor()}}), Contains("\"a\" is undefined"));
  CHECK(entries_in(scratch.path()) == 0);
}

TEST_CASE("A failed save leaves the old file and no temporary one") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "model.safetensors";
  nn::save_safetensors(path, {{"a", ones({3})}});
  const std::string before = read_bytes(path);
  const auto unchanged = [&] { return read_bytes(path) == before && entries_in(scratch.path()) == 1; };

  CHECK(message_of([&] { nn::save_safetensors(path, {{"a", ones({4})}, {"/", ones({1})}}); }) != "no error");
  CHECK(unchanged());

  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t limit : {0, 5, 100, 4000}) {  // the disk is full after so many bytes
    rlimit small = old;
    small.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of([&] { nn::save_safetensors(path, {{"a", ones({2000})}}); });
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_THAT(message, Contains(path.string() + ": writing: File too large (what stood there is unchanged)"));
    CHECK(unchanged());
  }
  std::signal(SIGXFSZ, handler);

  nn::save_safetensors(path, {{"a", ones({4})}});
  CHECK(nn::load_safetensors(path).at("a").shape() == Shape{4});
  CHECK_THAT(message_of([&] { nn::save_safetensors(scratch.path(), {}); }), Contains("renaming the new file to it"));
  CHECK_THAT(message_of([&] { nn::save_safetensors(scratch.path() / "no" / "x", {}); }),
             Contains("creating a file beside it: No such file"));
  CHECK(entries_in(scratch.path()) == 1);
}

TEST_CASE("What a process that was ended while it wrote has left goes with the next write") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "model.safetensors";
  const pid_t child = fork();
  if (child == 0) {  // ended by the system in the middle of the file
    const rlimit small{100, 100}, no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_FSIZE, &small);
    std::signal(SIGXFSZ, SIG_DFL);
    nn::replace_file(path, std::string(4000, 'x'), "test");
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(entries_in(scratch.path()) == 1);
  CHECK_FALSE(fs::exists(path));
  const auto other = scratch.write("other.safetensors.tmp-1-1", "x"),
             notes = scratch.write("model.safetensors.tmp-notes", "x");
  const auto written = scratch.write("model.safetensors.tmp-1-1", "x");  // by another process that is still there
  const int held = open(written.c_str(), O_RDONLY);
  REQUIRE(flock(held, LOCK_EX) == 0);
  nn::save_safetensors(path, {{"a", ones({3})}});
  CHECK(entries_in(scratch.path()) == 4);
  for (const fs::path& kept : {path, other, notes, written}) CHECK(fs::exists(kept));
  close(held);
  nn::replace_file(path, "x", "test");
  CHECK_FALSE(fs::exists(written));
}

TEST_CASE("Writers of one file do not take each other's for abandoned") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "model.safetensors";
  std::vector<std::thread> writers;
  std::atomic<int> failures{0};
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([&] {
      for (int k = 0; k < 50; ++k)
        if (message_of([&] { nn::replace_file(path, "some bytes", "test"); }) != "no error") ++failures;
    });
  for (std::thread& writer : writers) writer.join();
  CHECK(failures == 0);
  CHECK(read_bytes(path) == "some bytes");
  CHECK(entries_in(scratch.path()) == 1);
}

TEST_CASE("A model goes to a file and back") {
  const Scratch scratch;
  const fs::path path = scratch.path() / "mlp.safetensors";
  const nn::Mlp model({4, 8, 2});
  nn::save(model, path);
  nn::Mlp other({4, 8, 2});
  other.layer(0).weight.set(zeros({8, 4}));
  CHECK(nn::load(other, path).empty());
  CHECK(same(model(ones({1, 4})), other(ones({1, 4}))));

  nn::Mlp wider({4, 9, 2, 2});
  CHECK(message_of([&] { nn::load(wider, path); }) == "[load] " + path.string() +
                                                          ": 5 names do not fit the model:\n"
                                                          "  mismatched: fc1.bias is (8,), the model has (9,)\n"
                                                          "  mismatched: fc1.weight is (8, 4), the model has (9, 4)\n"
                                                          "  mismatched: fc2.weight is (2, 8), the model has (2, 9)\n"
                                                          "  missing: fc3.bias (2,)\n"
                                                          "  missing: fc3.weight (2, 2)");
  CHECK(nn::load(wider, path, false).size() == 5);
  CHECK(same(*wider.layer(1).bias, *model.layer(1).bias));
}
