// JSON files as they are read: types and ranges, where a value stands, and what is refused.
#include <stet/tensor/json_file.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

constexpr std::string_view kOp = "read";

/// The message of reading a file, or of what `use` does with its root.
template <class Use> std::string refusal(const std::string& text, const Use& use) {
  const test::Scratch scratch;
  const auto path = scratch.write("file.json", text);
  return message_of([&] { use(JsonFile(path, kOp).root()); });
}
std::string refusal(const std::string& text) {
  return refusal(text, [](const JsonFile::Value&) {});
}

std::string nested(int lists) {
  return "{\"a\":" + std::string(static_cast<std::size_t>(lists), '[') +
         std::string(static_cast<std::size_t>(lists), ']') + "}";
}

}  // namespace

TEST_CASE("Members are found by their keys, and null is as good as nothing where that is asked") {
  const test::Scratch scratch;
  const JsonFile file(scratch.write("file.json", R"({"a": {"b": [1, [2, 3], "x"]}, "c": null, "d": 0.5, "e": true})"),
                      kOp);
  const auto root = file.root();
  std::vector<std::size_t> counts;
  root.at("a").at("b").for_each_item(
      [&](const JsonFile::Value& v) { counts.push_back(v.type() == JsonType::array ? v.count() : 0); });
  CHECK(counts == std::vector<std::size_t>{0, 2, 0});
  CHECK(root.find("c").has_value());
  CHECK_FALSE(root.given("c"));
  CHECK_FALSE(root.find("b"));
  CHECK(root.at("d").number() == 0.5);
  CHECK(root.at("e").flag());
}

TEST_CASE("Integers are read as they are; those that 64 bits do not hold are numbers alone") {
  const test::Scratch scratch;
  const JsonFile file(
      scratch.write("file.json", R"({"most": 9223372036854775807, "more": 9223372036854775808, "least": -5})"), kOp);
  CHECK(file.root().at("most").integer(0, INT64_MAX) == INT64_MAX);
  CHECK(file.root().at("least").integer(-5, -5) == -5);
  CHECK(file.root().at("more").number() == 9223372036854775808.0);
  CHECK_THROWS_AS(file.root().at("more").integer(INT64_MIN, INT64_MAX), Error);
  CHECK_THROWS_AS(file.root().at("least").integer(-4, 0), Error);
}

TEST_CASE("A refusal says where the value stands") {
  const std::string text = R"({"model": {"Plain_key": [0, {"1st": "x"}]}})";
  CHECK_THAT(refusal(text, [](const auto& v) { v.at("model").at("Plain_key").flag(); }),
             Contains("[read] ") && Contains("file.json: model.Plain_key near byte"));
  CHECK_THAT(refusal(text,
                     [](const auto& v) {
                       v.at("model").at("Plain_key").for_each_item([](const JsonFile::Value& item) {
                         if (item.type() == JsonType::object) item.at("1st").number();
                       });
                     }),
             Contains("model.Plain_key[1].\"1st\"") && Contains("found the string \"x\", expected a number"));
}

TEST_CASE("What is no sensible JSON file is refused") {
  CHECK_THAT(refusal("[1]"), Contains("found an array, expected an object"));
  CHECK_THAT(refusal(R"({"a": 1, "a": 2})"), Contains("the key \"a\" twice"));
  CHECK_THAT(refusal(std::string("{\"a\": 1}\0{}", 11)), Contains("at byte 8: found a NUL"));
  CHECK_THAT(refusal(R"({"a": })"), Contains("not JSON at byte 6"));
  CHECK(refusal(nested(31)) == "no error");  // the object and 31 arrays
  CHECK_THAT(refusal(nested(32)), Contains("nested deeper than 32"));
}

TEST_CASE("Quoted text is escaped and, where it is long, cut") {
  CHECK(stet::quoted("a\"b\n") == R"("a\"b\n")");
  CHECK(stet::quoted(std::string(80, 'x')) == '"' + std::string(80, 'x') + '"');
  CHECK(stet::quoted(std::string(81, 'x')) == '"' + std::string(77, 'x') + "\"...");
}
