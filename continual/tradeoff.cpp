// Learned against forgotten, as numbers and as an SVG picture.
#include <stet/continual/tradeoff.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include <stet/continual/report.h>
#include <stet/continual/svg.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

using namespace svg;

constexpr int kWidth = 900, kHeight = 560, kLeft = 78, kTop = 56, kRight = 190, kBottom = 62;
constexpr std::array<std::string_view, 8> kOkabeIto{"#000000", "#0072b2", "#d55e00", "#009e73",
                                                    "#cc79a7", "#e69f00", "#56b4e9", "#7a7a00"};

/// Half the length of a spread's bar; one seed has none.
double bar(const Spread& s) { return std::isfinite(s.deviation) ? s.deviation : 0; }

/// One axis: values and where they stand.
struct Axis {
  double low, high, from, to;
  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into about six.
double step_for(double range) {
  const double raw = range / 6, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double by : {1.0, 2.0, 5.0})
    if (raw <= by * power) return by * power;
  return 10 * power;
}

Axis axis_over(const std::vector<TradeoffCurve>& curves, Spread TradeoffPoint::*value, double from, double to) {
  double low = 0, high = 0;  // the pretrained model is in the picture
  for (const auto& curve : curves)
    for (const auto& point : curve.points) {
      const Spread s = point.*value;
      low = std::min(low, s.mean - bar(s));
      high = std::max(high, s.mean + bar(s));
    }
  const double room = std::max(high - low, 1e-6) * 0.06;
  return {low < 0 ? low - room : low, high + room, from, to};
}

std::string number(double value, double step) {
  char out[32];
  if (std::abs(value) < step / 2) value = 0;  // not "-0.00"
  std::snprintf(out, sizeof out, "%.*f", std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9))), value);
  return out;
}

void line(std::ostream& out, double x1, double y1, double x2, double y2, std::string_view stroke) {
  out << "<line x1=\"" << x1 << "\" y1=\"" << y1 << "\" x2=\"" << x2 << "\" y2=\"" << y2 << "\" " << stroke << "/>\n";
}

void draw_axes(std::ostream& out, const Axis& x, const Axis& y, const std::string& x_title,
               const std::string& y_title) {
  const double dx = step_for(x.high - x.low), dy = step_for(y.high - y.low);
  for (double v = std::ceil(x.low / dx) * dx; v <= x.high; v += dx) {
    line(out, x.at(v), y.from, x.at(v), y.to, "stroke=\"#e4e4e4\"");
    text(out, x.at(v), y.from + 18, "class=\"tick middle\"", number(v, dx));
  }
  for (double v = std::ceil(y.low / dy) * dy; v <= y.high; v += dy) {
    line(out, x.from, y.at(v), x.to, y.at(v), "stroke=\"#e4e4e4\"");
    text(out, x.from - 8, y.at(v) + 4, "class=\"tick end\"", number(v, dy));
  }
  line(out, x.from, y.at(0), x.to, y.at(0), "stroke=\"#555\"");
  line(out, x.at(0), y.from, x.at(0), y.to, "stroke=\"#555\"");
  text(out, (x.from + x.to) / 2, y.from + 44, "class=\"axis\"", x_title);
  turned(out, x.from - 52, (y.from + y.to) / 2, "axis", -90, y_title);
}

/// Circle, square, triangle and diamond in turn, so that a curve is known without its colour; hollow, on a dashed
/// curve, where colours come a second time.
bool is_second(std::size_t place) { return place >= kOkabeIto.size(); }

void draw_mark(std::ostream& out, double x, double y, std::size_t place) {
  constexpr std::array<std::string_view, 4> paths{"M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0", "M-4-4H4V4H-4Z",
                                                  "M0-5.5L5 4H-5Z", "M0-6L5 0L0 6L-5 0Z"};
  out << "<path d=\"" << paths[place % paths.size()] << (is_second(place) ? "\" fill=\"white" : "")
      << "\" transform=\"translate(" << x << ' ' << y << ")\"/>\n";
}

double legend_row(std::size_t place) { return kTop + 14 + 22 * static_cast<double>(place); }

void draw_curve(std::ostream& out, const TradeoffCurve& curve, std::size_t place, const Axis& x, const Axis& y) {
  const auto colour = kOkabeIto[place % kOkabeIto.size()];
  const std::string stroke =
      std::string("stroke-width=\"1.6\"") + (is_second(place) ? " stroke-dasharray=\"5 3\"" : "");
  out << "<g fill=\"" << colour << "\" stroke=\"" << colour << "\"><polyline fill=\"none\" " << stroke << " points=\"";
  for (const auto& p : curve.points) out << x.at(p.learned.mean) << ',' << y.at(p.forgotten.mean) << ' ';
  out << "\"/>\n";
  for (const auto& p : curve.points) {
    const double px = x.at(p.learned.mean), py = y.at(p.forgotten.mean);
    const Spread &l = p.learned, &f = p.forgotten;
    line(out, x.at(l.mean - bar(l)), py, x.at(l.mean + bar(l)), py, "stroke-opacity=\".5\"");
    line(out, px, y.at(f.mean - bar(f)), px, y.at(f.mean + bar(f)), "stroke-opacity=\".5\"");
    draw_mark(out, px, py, place);
    text(out, px + 7, py - 5, "class=\"strength\" stroke=\"none\"", p.strength);
  }
  const double row = legend_row(place);
  line(out, kWidth - kRight + 10, row - 4, kWidth - kRight + 40, row - 4, stroke);
  draw_mark(out, kWidth - kRight + 25, row - 4, place);
  text(out, kWidth - kRight + 46, row, "class=\"method\" stroke=\"none\"", curve.method);
  out << "</g>\n";
}

}  // namespace

std::optional<double> forgotten_at(const TradeoffCurve& curve, double learned) {
  std::optional<double> least;
  const auto& points = curve.points;
  for (std::size_t i = 0; i + 1 < points.size(); ++i) {
    const auto &a = points[i], &b = points[i + 1];
    const double whole = b.learned.mean - a.learned.mean, part = learned - a.learned.mean;
    if (whole == 0 || !(part / whole >= 0 && part / whole <= 1)) continue;
    const double here = a.forgotten.mean + part / whole * (b.forgotten.mean - a.forgotten.mean);
    least = least ? std::min(*least, here) : here;
  }
  return least;
}

void write_tradeoff_svg(const std::filesystem::path& path, const std::string& title, const std::string& x_axis,
                        const std::string& y_axis, const std::vector<TradeoffCurve>& curves) {
  bool any = false;
  for (const auto& curve : curves)
    for (const auto& p : curve.points) {
      any = true;
      for (const double v : {p.learned.mean, p.forgotten.mean})
        check(std::abs(v) < 1e300, "write_tradeoff_svg", "'", curve.method, "' at ", p.strength, ": ", v,
              " is no place");
    }
  check(any, "write_tradeoff_svg", "no points");
  const Axis x = axis_over(curves, &TradeoffPoint::learned, kLeft, kWidth - kRight);
  const Axis y = axis_over(curves, &TradeoffPoint::forgotten, kHeight - kBottom, kTop);
  auto out = picture();
  const int legend = static_cast<int>(legend_row(curves.size()));
  open(out, kWidth, std::max(kHeight, legend), title,
       ".tick{font-size:11px;fill:#555}.middle{text-anchor:middle}.end{text-anchor:end}"
       ".axis{font-size:13px;fill:#333;text-anchor:middle}.strength{font-size:10px}.method{font-size:13px}"
       ".head{font-size:17px;font-weight:bold}");
  text(out, 20, 30, "class=\"head\"", title);
  draw_axes(out, x, y, x_axis, y_axis);
  for (std::size_t i = 0; i < curves.size(); ++i) draw_curve(out, curves[i], i, x, y);
  out << "</svg>\n";
  write_text_file(path, out.str());
}

}  // namespace stet::continual
