// llama2.c's tokenizer files on a vocabulary of a few pieces: merges by score, bytes, and the prefixed space.
#include <cstring>
#include <utility>
#include <vector>

#include <stet/data/tokenizers/tokenizer.h>

#include "support/catch.h"
#include "support/scratch.h"

using namespace stet;
using Ids = std::vector<std::int64_t>;

namespace {

template <class T> void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

/// <unk>, <s>, </s>, the bytes, then these pieces with their scores, from id 259 on.
std::unique_ptr<data::Tokenizer> with(const std::vector<std::pair<std::string, float>>& pieces) {
  std::vector<std::pair<std::string, float>> all{{"<unk>", 0.0f}, {"<s>", 0.0f}, {"</s>", 0.0f}};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char digits[] = "0123456789ABCDEF";
    all.emplace_back(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", 0.0f);
  }
  all.insert(all.end(), pieces.begin(), pieces.end());
  std::string bytes;
  put(bytes, std::int32_t{12});
  for (const auto& [token, score] : all) {
    put(bytes, score);
    put(bytes, static_cast<std::int32_t>(token.size()));
    bytes += token;
  }
  const test::Scratch scratch;
  return data::load_tokenizer(scratch.write("tok.bin", bytes));
}

const data::EncodeOptions kPlain{.add_special_tokens = false};

}  // namespace

TEST_CASE("The pair with the best score is merged first, of equals the leftmost") {
  const auto ids = [](float left, float right) {
    return with({{" ", -9.0f}, {"a", -9.0f}, {"b", -9.0f}, {" a", left}, {"ab", right}})->encode("ab", kPlain);
  };
  CHECK(ids(-1, -2) == Ids{262, 261});
  CHECK(ids(-2, -1) == Ids{259, 263});
  CHECK(ids(-1, -1) == Ids{262, 261});
}

TEST_CASE("A character without a piece is its bytes, which no merge joins") {
  const auto tokenizer = with({{" ", -1.0f}, {"<0xC3><0xA9>", 9.0f}});
  CHECK(tokenizer->encode("\u00e9") == Ids{1, 259, 3 + 0xC3, 3 + 0xA9});
  CHECK(tokenizer->decode(Ids{1, 259, 3 + 0xC3, 3 + 0xA9}) == "\u00e9");
}

TEST_CASE("The space before a text goes, others stay; the beginning is not written, the end where it is asked for") {
  const auto tokenizer = with({{" ", -1.0f}, {" a", -1.0f}, {"<0x0A>", -1.0f}});
  CHECK(tokenizer->decode(Ids{1, 260, 260}) == "a a");
  CHECK(tokenizer->decode(Ids{1, 13, 260}) == "\n a");
  CHECK(tokenizer->decode(Ids{1, 260, 2}) == "a</s>");
  CHECK(tokenizer->decode(Ids{1, 260, 2}, {.skip_special_tokens = true}) == "a");
  CHECK(tokenizer->id_of("<0x0A>") == 13);  // of two tokens spelled alike the first
}
