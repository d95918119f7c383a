// Tables, the results file and the heat map.
#include <cmath>
#include <fstream>
#include <locale>
#include <nlohmann/json.hpp>
#include <sstream>

#include <stet/continual/report.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;

namespace {

Run run_of(const std::string& label, std::uint64_t seed, double last) {
  Result r;
  r.strategies = label;
  r.setting = Setting::domain_incremental;
  r.tasks = {"a", "b"};
  r.accuracy = {.before = {0.5, 0.5}, .r = {{1.0, std::nan("")}, {last, 0.9}}};
  r.losses = {0.1, 0.2};
  r.seconds = {1, 2};
  r.steps = 30;
  r.test_reads = 6;
  return {label, seed, r};
}

std::string read(const std::filesystem::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("Summaries group runs by setting and label") {
  const auto all = summarise({run_of("x", 1, 0.5), run_of("y", 1, 0.8), run_of("x", 2, 0.7)});
  REQUIRE(all.size() == 2);
  CHECK(all[0].label == "x");
  CHECK(all[0].runs == 2);
  CHECK(all[0].accuracy.mean == Approx((0.7 + 0.8) / 2));
  CHECK(all[0].forgetting.mean == Approx(0.4));
  CHECK(all[0].seconds.mean == Approx(3));
  CHECK(all[1].runs == 1);
  const std::string text = table(all);
  CHECK_THAT(text, Contains("domain-incremental"));
  CHECK_THAT(text, Contains("75.0 ±  7.1"));
  CHECK_THAT(text, Contains("85.0 ±    –"));  // one run has no deviation
}

TEST_CASE("Runs of one label in two settings are two summaries") {
  Run other = run_of("x", 1, 0.7);
  other.result.setting = Setting::class_incremental;
  const auto all = summarise({run_of("x", 1, 0.5), other});
  REQUIRE(all.size() == 2);
  CHECK((all[0].setting == Setting::domain_incremental && all[1].setting == Setting::class_incremental));
  CHECK(all[1].accuracy.mean == Approx(0.8));
}

TEST_CASE("Matrices as text stand beside each other, NaN as a dash") {
  const Result r = run_of("x", 1, 0.5).result;
  CHECK(table({{"left", r.accuracy, r.tasks}, {"right", r.accuracy, r.tasks}}) ==
        "  left          right       \n"
        "   100.0     –   100.0     –\n"
        "    50.0  90.0    50.0  90.0\n");
}

TEST_CASE("The results file holds runs, summaries and definitions; NaN is null") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "new" / "results.json";
  write_results_json(path, {run_of("x \"quoted\"", 1, 0.5), run_of("x \"quoted\"", 2, 0.7)}, {{"command", "a\xff"}});
  const auto file = nlohmann::json::parse(read(path));
  CHECK(file["runs"].size() == 2);
  CHECK(file["runs"][0]["label"] == "x \"quoted\"");
  CHECK(file["runs"][0]["setting"] == "domain-incremental");
  CHECK(file["runs"][0]["accuracy_matrix"][0][1].is_null());
  CHECK(file["runs"][1]["acc"].get<double>() == Approx(0.8));
  CHECK(file["runs"][1]["test_reads"] == 6);
  CHECK(file["runs"][1]["steps"] == 30);
  CHECK(file["runs"][1]["seed"] == 2);
  CHECK(file["runs"][1]["seconds"] == nlohmann::json{1.0, 2.0});
  CHECK(file["runs"][1]["training_losses"] == nlohmann::json{0.1, 0.2});
  CHECK(file["runs"][1]["accuracy_before"] == nlohmann::json{0.5, 0.5});
  CHECK(file["runs"][1]["bwt"].get<double>() == Approx(0.7 - 1.0));
  CHECK(file["runs"][1]["fwt"].is_null());  // not measured
  CHECK(file["summary"][0]["forgetting"]["mean"].get<double>() == Approx(0.4));
  CHECK_THAT(file["definitions"].get<std::string>(), Contains("BWT"));
  CHECK(file["about"]["command"].get<std::string>().starts_with("a"));
  CHECK(std::distance(std::filesystem::directory_iterator(path.parent_path()), {}) == 1);  // nothing left beside it
  CHECK_THROWS_WITH(write_text_file(path / "below" / "x", ""), Contains("results.json"));
}

TEST_CASE("A folder for results is made, or the reason why not is said") {
  const test::Scratch scratch;
  make_folder(scratch.path() / "a" / "b");
  CHECK(std::filesystem::is_directory(scratch.path() / "a" / "b"));
  CHECK_NOTHROW(make_folder(scratch.path()));
  CHECK_NOTHROW(make_folder(""));
  const auto file = scratch.write("file", "text");
  CHECK_THAT(test::message_of([&] { make_folder(file); }), Contains("[make_folder] " + file.string()));
}

TEST_CASE("A picture is XML whatever text it has, and its numbers are the same in every locale") {
  struct Grouped : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const test::Scratch scratch;
  const auto path = scratch.path() / "m.svg";
  const Result r = run_of("x", 1, 0.456).result;
  const auto written = [&] {
    write_accuracy_matrix_svg(path, r.accuracy, "caf\xe9 \xef\xbf\xbf é" + std::string(200, 'w'), {"\xff", "b\x01"});
    return read(path);
  };
  const std::string plain = written();
  CHECK_THAT(plain, Contains("caf\uFFFD \uFFFD é") && Contains(">\uFFFD<") && Contains(">b <"));
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Grouped));
  const std::string grouped = written();
  std::locale::global(before);
  CHECK(grouped == plain);
}

TEST_CASE("The heat map: every number, dashes, escaped text") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "m.svg";
  const Result r = run_of("x", 1, 0.456).result;
  write_accuracy_matrix_svg(path, r.accuracy, "<script> & \"co\"", {"a<b", "c&d"});
  const std::string svg = read(path);
  CHECK(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  for (const char* part : {">100.0<", ">45.6<", ">90.0<", ">–<", ">after learning task<", ">accuracy on task (%)<",
                           ">a&lt;b<", ">c&amp;d<", "&lt;script&gt; &amp; &quot;co&quot;"})
    CHECK_THAT(svg, Contains(part));
  CHECK(svg.find("<script") == std::string::npos);
  CHECK(count(svg, "<text") == count(svg, "</text>"));
  // Three maps in two columns: the third stands under the first. 100 is at the legend's top.
  const auto places = [&](std::size_t maps) {
    write_accuracy_matrices_svg(path, "t", std::vector<HeatMap>(maps, {"", r.accuracy, {"a", "b"}}), 2);
    std::vector<std::pair<double, double>> out;  // of the axis title under each
    const std::string text = read(path), title = "class=\"axis\">accuracy on task";
    for (std::size_t at = text.find(title); at != std::string::npos; at = text.find(title, at + 1)) {
      const std::size_t x = text.rfind("x=\"", at) + 3, y = text.rfind("y=\"", at) + 3;
      out.emplace_back(std::stod(text.substr(x)), std::stod(text.substr(y)));
    }
    const auto height = [&](const std::string& percent) {
      const std::size_t tick = text.find("class=\"tick\">" + percent + "<");
      return std::stod(text.substr(text.rfind("y=\"", tick) + 3));
    };
    CHECK(height("100") < height("75"));
    CHECK(height("25") < height("0"));
    return out;
  };
  const auto three = places(3);
  REQUIRE(three.size() == 3);
  CHECK((three[0].first < three[1].first && three[0].second == three[1].second));
  CHECK((three[2].first == three[0].first && three[2].second > three[0].second));
  CHECK_THROWS_WITH(write_accuracy_matrix_svg(path, {}, "empty"), Contains("is empty"));
  CHECK_THROWS_WITH(write_accuracy_matrix_svg(path, {.before = {}, .r = {{1, 2}}}, "odd"), Contains("one of 2 values"));
  CHECK_THROWS_WITH(write_accuracy_matrices_svg(path, "none", {}, 2), Contains("0 matrices"));
}
