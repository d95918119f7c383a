// Pieces as each expression cuts them, worked out by hand from its alternatives. The goldens' vocabularies have few
// tokens that reach over a cut, so that they say little about where the cuts are.
#include <string>
#include <vector>

#include <stet/data/tokenizers/split.h>

#include "support/catch.h"

using stet::data::tokenizers::Split;
using Strings = std::vector<std::string>;

namespace {

Strings pieces(Split split, std::string_view text) {
  Strings out;
  stet::data::tokenizers::for_each_piece(split, text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

}  // namespace

TEST_CASE("GPT-2's pieces") {
  CHECK(pieces(Split::gpt2, "don't STOP'S  12ab, ok!!\n\n x  ") ==
        Strings{"don", "'t", " STOP", "'", "S", " ", " 12", "ab", ",", " ok", "!!", "\n\n", " x", "  "});
  CHECK(pieces(Split::gpt2, "we'll'd've'x") == Strings{"we", "'ll", "'d", "'ve", "'", "x"});
  CHECK(pieces(Split::gpt2, "a\tb \t c\n") == Strings{"a", "\t", "b", " \t", " c", "\n"});
}

TEST_CASE("Llama 3's and Qwen 2's pieces") {
  const Strings before{"it", "'S", " "}, after{" (", "ab", ")", " x", "!!\n\n", " y", "\n \n", " ", " z", "  "};
  const auto with = [&](const Strings& digits) {
    Strings all = before;
    all.insert(all.end(), digits.begin(), digits.end());
    all.insert(all.end(), after.begin(), after.end());
    return all;
  };
  const std::string text = "it'S 12345 (ab) x!!\n\n y\n \n  z  ";
  CHECK(pieces(Split::llama3, text) == with({"123", "45"}));
  CHECK(pieces(Split::qwen2, text) == with({"1", "2", "3", "4", "5"}));
  for (const Split split : {Split::llama3, Split::qwen2}) {
    CHECK(pieces(split, "a.b'LLc\r\nd") == Strings{"a", ".b", "'LL", "c", "\r\n", "d"});
    CHECK(pieces(split, "it'\u017fx") == Strings{"it", "'\u017f", "x"});  // the long s is an s where case is ignored
  }
}

TEST_CASE("Digits stand alone; BERT's marks do, and white space goes") {
  CHECK(pieces(Split::digits, "ab12 c\u00b2") == Strings{"ab", "1", "2", " c", "\u00b2"});
  CHECK(pieces(Split::bert, " Hi, w\u00f6rld\u2014x \t(y)5\u00b0 a+b") ==
        Strings{"Hi", ",", "w\u00f6rld", "\u2014", "x", "(", "y", ")", "5\u00b0", "a", "+", "b"});
}
