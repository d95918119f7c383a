// Learned against forgotten: the comparison at equal gain, and the picture.
#include <cmath>
#include <fstream>
#include <sstream>

#include <stet/continual/tradeoff.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

TradeoffPoint point(double learned, double forgotten, double deviation = 0.01) {
  return {"s", {learned, deviation}, {forgotten, deviation}};
}

std::string read(const std::filesystem::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

}  // namespace

TEST_CASE("What is forgotten at a given gain lies on the curve") {
  const TradeoffCurve curve{"m", {point(0.1, 0.0), point(0.3, 0.2), point(0.5, 1.0)}};
  CHECK(*forgotten_at(curve, 0.2) == Approx(0.1));
  CHECK(*forgotten_at(curve, 0.4) == Approx(0.6));
  CHECK(*forgotten_at(curve, 0.1) == Approx(0.0).margin(1e-12));
  CHECK(*forgotten_at(curve, 0.5) == Approx(1.0));
  CHECK_FALSE(forgotten_at(curve, 0.51));
  CHECK_FALSE(forgotten_at(curve, 0.05));
  CHECK_FALSE(forgotten_at({"one", {point(0.2, 0.1)}}, 0.2));  // no line
  const TradeoffCurve folded{"f", {point(0.1, 0.5), point(0.4, 0.8), point(0.1, 0.1)}};
  CHECK(*forgotten_at(folded, 0.25) == Approx(0.45));  // the better of two ways, whichever comes first
  const TradeoffCurve back{"b", {point(0.1, 0.1), point(0.4, 0.8), point(0.1, 0.5)}};
  CHECK(*forgotten_at(back, 0.25) == Approx(0.45));
}

TEST_CASE("The picture has every curve, its strengths and its spread") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "plane.svg";
  const TradeoffCurve a{"full & fast", {point(0.1, 0.0), point(0.3, 0.2)}}, b{"replay", {point(0.2, -0.05)}};
  write_tradeoff_svg(path, "general, then <domain>", "learned", "forgotten", {a, b});
  const std::string svg = read(path);
  CHECK_THAT(svg, Contains("full &amp; fast") && Contains("replay") && Contains("&lt;domain&gt;"));
  CHECK_THAT(svg, Contains("<polyline") && Contains("</svg>"));
  CHECK(svg.find("nan") == std::string::npos);
}

TEST_CASE("The picture grows with its legend, and takes values that can be drawn") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "plane.svg";
  std::vector<TradeoffCurve> many;
  for (int i = 0; i < 30; ++i) many.push_back({"m" + std::to_string(i), {point(0.1, 0.1)}});
  write_tradeoff_svg(path, "t", "x", "y", many);
  CHECK_THAT(read(path), Contains("height=\"730\"") && Contains("y=\"708\" class=\"method\""));
  CHECK_THAT(message_of([&] {
               write_tradeoff_svg(path, "t", "x", "y", {{"far", {point(1.7e308, 0)}}});
             }),
             Contains("'far' at s"));
}

TEST_CASE("Bars stay inside the axes, zero has no sign, and colours come again hollow and dashed") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "plane.svg";
  write_tradeoff_svg(path, "t", "x", "y", {{"m", {point(0.1, -0.2, 0.1), point(0.3, 0.1, 0.1)}}});
  const std::string svg = read(path);
  constexpr double kBottom = 498;  // of the plane
  int bars = 0;
  for (std::size_t at = svg.find("stroke-opacity"); at != std::string::npos; at = svg.find("stroke-opacity", at + 1)) {
    for (const char* end : {"y1=\"", "y2=\""}) CHECK(std::stod(svg.substr(svg.rfind(end, at) + 4)) <= kBottom);
    ++bars;
  }
  CHECK(bars == 4);
  CHECK_THAT(svg, Contains(">0.0<") && Contains(">-0.1<") && !Contains(">-0.0<"));
  std::vector<TradeoffCurve> curves;
  for (int i = 0; i < 9; ++i) {
    curves.push_back({"m", {point(0.1, 0.1)}});
    write_tradeoff_svg(path, "t", "x", "y", curves);
    const std::string now = read(path);
    CHECK((now.find("stroke-dasharray=\"5 3\"") != std::string::npos) == (i == 8));
    CHECK((now.find("fill=\"white\"") != std::string::npos) == (i == 8));
  }
}

TEST_CASE("One seed has no spread to draw; a point that is no place is named") {
  const test::Scratch scratch;
  const auto path = scratch.path() / "plane.svg";
  write_tradeoff_svg(path, "t", "x", "y", {{"one seed", {point(0.1, 0.2, std::nan(""))}}});
  CHECK(read(path).find("nan") == std::string::npos);
  CHECK_THAT(message_of([&] {
               write_tradeoff_svg(path, "t", "x", "y", {{"broken", {point(std::nan(""), 0)}}});
             }),
             Contains("[write_tradeoff_svg]") && Contains("'broken' at s"));
  CHECK_THAT(message_of([&] { write_tradeoff_svg(path, "t", "x", "y", {{"empty", {}}}); }), Contains("no points"));
}
