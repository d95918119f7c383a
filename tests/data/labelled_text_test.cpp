// CSV as RFC 4180 has it, labelled texts from both formats, and what is wrong with damaged files.
#include <stet/data/csv.h>
#include <stet/data/labelled_text.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;
using Strings = std::vector<std::string>;

TEST_CASE("CSV fields are cut where RFC 4180 cuts them") {
  const test::Scratch scratch;
  const auto rows = data::read_csv(scratch.write("a.csv",
                                                 "\xef\xbb\xbftext,label\r\n"
                                                 "\"a, b\nc \"\"d\"\"\",x\n"
                                                 ",\"\"\r\n"
                                                 "last,\"y\""));
  REQUIRE(rows.size() == 4);
  CHECK(rows[0].fields == Strings{"text", "label"});
  CHECK(rows[1].fields == Strings{"a, b\nc \"d\"", "x"});
  CHECK(rows[2].fields == Strings{"", ""});
  CHECK(rows[2].line == 4);  // the row before spans two lines
  CHECK(rows[3].fields == Strings{"last", "y"});
  CHECK(data::read_csv(scratch.write("empty.csv", "")).empty());
  CHECK(data::read_csv(scratch.write("blank.csv", "a,b\nx,y\n\n\r\n")).size() == 2);
  CHECK(data::read_csv(scratch.write("one.csv", "a\nx\n\n")).size() == 3);  // an empty field
}

TEST_CASE("A damaged CSV file is an error with its line") {
  const test::Scratch scratch;
  const auto refused = [&](const std::string& bytes, const std::string& line, const std::string& part) {
    const auto file = scratch.write("bad.csv", bytes);
    const std::string message = message_of([&] { data::read_csv(file); });
    INFO(message);
    CHECK_THAT(message, Contains("[read_csv] " + file.string() + ": line " + line + ": ") && Contains(part));
  };
  refused("a,b\n\"x\ny\",\"z\n", "3", "never closed");
  refused("a,b\nx\"y,z\n", "2", "a quote inside a field");
  refused("a,b\n\"x\"y,z\n", "2", "behind a closing quote");
  refused("a,b\nx\ry,z\n", "2", "carriage return");
  refused("a,b\nx,y\r", "2", "carriage return");
  refused("a,b\n\nx,y\n", "2", "found 1 fields, expected 2");
  refused("a,b\nx,y\nx,y,z\n", "3", "found 3 fields, expected 2");
  refused(std::string("a,b\nx,y\nx\0,y\n", 13), "3", "NUL");
  CHECK_THAT(message_of([&] { data::read_csv(scratch.path() / "none.csv"); }), Contains("none.csv"));
}

TEST_CASE("Labelled texts come from the columns text and label") {
  const test::Scratch scratch;
  const auto load = [&](const std::string& bytes) { return data::load_csv_texts(scratch.write("t.csv", bytes)); };
  const auto examples = load("id,label,text\n1,b,one\n2,a,\"two, three\"\n3,b,four\n");
  CHECK(examples.texts == Strings{"one", "two, three", "four"});
  CHECK(examples.labels == Strings{"b", "a", "b"});
  CHECK(data::label_names(examples) == Strings{"a", "b"});
  CHECK(data::label_ids(examples, {"a", "b"}) == std::vector<std::int64_t>{1, 0, 1});
  CHECK_THAT(message_of([&] { data::label_ids(examples, {"b"}); }), Contains("\"a\" of example 1"));
  CHECK_THAT(message_of([&] { load("text,intent\nx,y\n"); }), Contains("found 0 columns \"label\""));
  CHECK_THAT(message_of([&] { load("text,label,text\nx,y,z\n"); }), Contains("found 2 columns \"text\""));
  CHECK_THAT(message_of([&] { load("Text;label\nx;y\n"); }),
             Contains("0 columns \"text\" among \"Text;label\", expected"));
  CHECK_THAT(message_of([&] { load("text,label\nx,y\n,y\n"); }), Contains("line 3: found an empty text"));
  CHECK_THAT(message_of([&] { load("text,label\nx,\n"); }), Contains("line 2: found an empty label"));
  CHECK_THAT(message_of([&] { load("text,label\n"); }), Contains("expected a header and examples"));
}

TEST_CASE("Labelled texts come from JSON by key") {
  const test::Scratch scratch;
  const auto file = scratch.write("t.json", R"({"train": [["one", "b"], ["two", "a"]], "none": [], "n": [["x", 1]],
      "short": [["x"]], "blank": [["", "a"]], "text": "x"})");
  const auto examples = data::load_json_texts(file, "train");
  CHECK(examples.texts == Strings{"one", "two"});
  CHECK(examples.labels == Strings{"b", "a"});
  CHECK(data::has_json_texts(file, "none"));
  CHECK_FALSE(data::has_json_texts(file, "test"));
  const auto refused = [&](const char* key, const std::string& part) {
    const std::string message = message_of([&] { data::load_json_texts(file, key); });
    INFO(message);
    CHECK_THAT(message, Contains("[load_json_texts] " + file.string()) && Contains(key) && Contains(part));
  };
  refused("test", "");
  refused("none", "found no examples");
  refused("n", "expected a string");
  refused("short", "found 1 strings");
  refused("blank", "found an empty string");
  refused("text", "expected an array");
}

TEST_CASE("A part of the examples takes evenly from every label") {
  data::LabelledTexts all;
  for (int i = 0; i < 9; ++i) {
    all.texts.push_back(std::to_string(i));
    all.labels.push_back(i < 5 ? "a" : i < 8 ? "b" : "c");
  }
  CHECK(data::first_of_each_label(all, 3).texts == Strings{"0", "5", "8"});
  CHECK(data::first_of_each_label(all, 5).texts == Strings{"0", "1", "5", "6", "8"});
  CHECK(data::first_of_each_label(all, 7).labels == Strings{"a", "a", "a", "b", "b", "b", "c"});
  CHECK(data::first_of_each_label(all, 100).texts == all.texts);
  CHECK(data::first_of_each_label(all, -1).texts.empty());
  all.labels.pop_back();
  CHECK_THROWS_WITH(data::first_of_each_label(all, 3), Contains("9 texts and 8 labels"));
}
