// Texts: where they are cut, and windows of bytes.
#include <string>
#include <vector>

#include <stet/autograd/ops.h>
#include <stet/data/text.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

std::string as_text(const Tensor& windows, std::int64_t row) {
  std::string out;
  for (std::int64_t i = 0; i < windows.shape()[1]; ++i)
    out += static_cast<char>(windows.data<std::int64_t>()[row * windows.shape()[1] + i]);
  return out;
}

}  // namespace

TEST_CASE("A text is cut between documents, and no byte is lost") {
  const test::Scratch scratch;
  std::string all;
  for (int i = 0; i < 40; ++i) all += "document " + std::to_string(i) + "\nsecond line\n\n";
  const auto text = data::load_text(scratch.write("prose.txt", all), 0.25);
  CHECK(text.name == "prose");
  CHECK(text.train + text.held_out == all);
  CHECK(text.held_out.starts_with("document "));
  CHECK(static_cast<double>(text.held_out.size()) / static_cast<double>(all.size()) == Approx(0.25).margin(0.03));

  std::string windows;  // lines that end in \r\n
  for (int i = 0; i < 40; ++i) windows += "document " + std::to_string(i) + "\r\nsecond line\r\n\r\n";
  const auto same = data::load_text(scratch.write("windows.txt", windows), 0.25);
  CHECK(same.train + same.held_out == windows);
  CHECK(same.held_out.starts_with("document "));
}

TEST_CASE("A text of one document is cut between characters") {
  const test::Scratch scratch;
  std::string all = "a";  // so that the middle lies inside a character
  for (int i = 0; i < 50; ++i) all += "é";
  const auto text = data::load_text(scratch.write("accents.txt", all), 0.5);
  CHECK(text.train + text.held_out == all);
  CHECK(text.held_out.starts_with("é"));
}

TEST_CASE("A blank line near the end of a text does not take the held-out part away") {
  const test::Scratch scratch;
  for (const std::string end : {"\n\n\n", "\n\nlast words\n"}) {
    const std::string all = std::string(1000, 'a') + end;
    const auto text = data::load_text(scratch.write("paragraph.txt", all));
    CHECK(text.train + text.held_out == all);
    CHECK(text.train.size() == static_cast<std::size_t>(static_cast<double>(all.size()) * 0.9));
  }
}

TEST_CASE("What is no text is refused by byte and line, and a byte order mark is left out") {
  const test::Scratch scratch;
  const auto refused = [&](const std::string& bytes) {
    return message_of([&] { data::load_text(scratch.write("letter.txt", bytes)); });
  };
  const std::string lines = "one\ntwo\nthree";
  CHECK_THAT(refused(lines + "\xff" + lines), Contains("letter.txt: found what is no UTF-8 at byte 13 in line 3"));
  CHECK_THAT(refused(lines + std::string("\0", 1) + lines), Contains("found a zero byte at byte 13 in line 3"));
  CHECK_THAT(refused("\xff\xfeo\0n\0e\0"), Contains("found what is no UTF-8 at byte 0 in line 1"));
  CHECK_THAT(refused("%PDF-1.7\n" + lines), Contains("found a PDF, expected its text alone"));
  CHECK_THAT(refused("{\\rtf1 " + lines), Contains("found an RTF document"));
  const auto marked = data::load_text(scratch.write("marked.txt", "\xef\xbb\xbf" + lines));
  CHECK(marked.train + marked.held_out == lines);
}

TEST_CASE("Texts that cannot be used are named") {
  const test::Scratch scratch;
  CHECK_THAT(message_of([&] { data::load_text(scratch.path() / "none.txt"); }), Contains("none.txt"));
  CHECK_THAT(message_of([&] { data::load_text(scratch.write("empty.txt", "")); }),
             Contains("[load_text]") && Contains("empty.txt") && Contains("0 bytes are too few"));
  CHECK_THAT(message_of([&] { data::load_text(scratch.write("short.txt", "x")); }), Contains("1 bytes are too few"));
  for (const double part : {0.0, 1.0, -0.5})
    CHECK_THAT(message_of([&] { data::load_text(scratch.write("some.txt", "some text"), part); }),
               Contains("expected a part between 0 and 1"));
}

TEST_CASE("Windows are the bytes at their offsets") {
  const std::string text =
      "abc\xff"
      "defgh";
  const std::vector<std::int64_t> offsets{0, 3, 4};
  const Tensor w = data::byte_windows(text, offsets, 5);
  CHECK(w.shape() == Shape{3, 5});
  CHECK(w.dtype() == DType::i64);
  CHECK(as_text(w, 0) ==
        "abc\xff"
        "d");
  CHECK(w.data<std::int64_t>()[5] == 255);
  CHECK(as_text(w, 2) == "defgh");
  CHECK_THAT(message_of([&] { data::byte_windows(text, std::vector<std::int64_t>{5}, 5); }),
             Contains("offset 5") && Contains("0 to 4"));
  CHECK_THAT(message_of([&] { data::byte_windows(text, std::vector<std::int64_t>{-1}, 5); }), Contains("offset -1"));
  CHECK_THAT(message_of([&] { data::even_byte_windows(text, 2, 10); }),
             Contains("windows of 10 bytes from a text of 9"));
  CHECK_THAT(message_of([&] { data::even_byte_windows(text, 0, 2); }), Contains("0 windows of 2 bytes"));
}

TEST_CASE("Even windows reach from the first byte to the last; random ones repeat with the seed") {
  const std::string text = "0123456789";
  const Tensor even = data::even_byte_windows(text, 3, 4);
  CHECK(as_text(even, 0) == "0123");
  CHECK(as_text(even, 1) == "3456");
  CHECK(as_text(even, 2) == "6789");
  Generator a(7), b(7);
  const Tensor first = data::random_byte_windows(text, 200, 4, a), again = data::random_byte_windows(text, 200, 4, b),
               next = data::random_byte_windows(text, 200, 4, a);
  std::string firsts, agains, nexts, seen;
  for (std::int64_t i = 0; i < 200; ++i) {
    firsts += as_text(first, i);
    agains += as_text(again, i);
    nexts += as_text(next, i);
    if (seen.find(as_text(first, i)[0]) == std::string::npos) seen += as_text(first, i)[0];
  }
  CHECK(firsts == agains);
  CHECK(firsts != nexts);
  CHECK(seen.size() == 7);  // every offset is drawn
}

TEST_CASE("Windows of tokens are those of bytes") {
  const std::string text = "0123456789";
  const std::vector<std::int64_t> tokens(text.begin(), text.end());
  Generator a(7), b(7);
  const auto equal = [](const Tensor& x, const Tensor& y) {
    return x.shape() == y.shape() && x.to_vector<std::int64_t>() == y.to_vector<std::int64_t>();
  };
  CHECK(equal(data::even_token_windows(tokens, 3, 4), data::even_byte_windows(text, 3, 4)));
  CHECK(equal(data::random_token_windows(tokens, 20, 4, a), data::random_byte_windows(text, 20, 4, b)));
  CHECK_THAT(message_of([&] { data::even_token_windows(tokens, 2, 11); }),
             Contains("[even_token_windows] windows of 11 tokens from a text of 10"));
  CHECK_THAT(message_of([&] { data::random_token_windows(tokens, 2, 0, a); }), Contains("2 windows of 0 tokens"));
  const std::int64_t many = std::int64_t{1} << 50;
  CHECK_THROWS_AS(data::random_token_windows(tokens, many, 10, a), OutOfMemory);
  CHECK_THROWS_AS(data::even_token_windows(tokens, many, 10), OutOfMemory);
}
