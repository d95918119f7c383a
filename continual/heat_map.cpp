// Accuracy matrices as an SVG picture.
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

constexpr int kCell = 46, kGap = 2, kRight = 16, kTitle = 46, kLegend = 64;

/// Room around the cells, in pixels; the same for all maps of a picture.
struct Layout {
  int left, top, bottom, side;
  bool slanted;  ///< names are too long to stand under their columns
  int wide() const { return left + side + kRight; }
  int high() const { return top + side + bottom; }
};

struct Colour {
  double r, g, b;  ///< 0..255
};

/// cividis at even steps from 0 to 1.
constexpr std::array<Colour, 9> kCividis{{{0, 34, 78},
                                          {18, 53, 112},
                                          {59, 73, 108},
                                          {87, 93, 109},
                                          {112, 113, 115},
                                          {138, 134, 120},
                                          {165, 156, 116},
                                          {195, 179, 105},
                                          {254, 232, 56}}};

Colour colour_of(double value) {
  const double at = std::clamp(value, 0.0, 1.0) * static_cast<double>(kCividis.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(at), kCividis.size() - 2);
  const double part = at - static_cast<double>(low);
  const Colour &a = kCividis[low], &b = kCividis[low + 1];
  return {a.r + part * (b.r - a.r), a.g + part * (b.g - a.g), a.b + part * (b.b - a.b)};
}

std::string hex(const Colour& c) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", static_cast<unsigned>(std::lround(c.r)),
                static_cast<unsigned>(std::lround(c.g)), static_cast<unsigned>(std::lround(c.b)));
  return text;
}

std::string task_name(const HeatMap& map, std::size_t i) {
  return i < map.tasks.size() ? map.tasks[i] : std::to_string(i + 1);
}

void draw_cell(std::ostream& out, int x, int y, double value) {
  const bool known = std::isfinite(value);
  const Colour c = known ? colour_of(value) : Colour{236, 236, 236};
  out << "<rect x=\"" << x << "\" y=\"" << y << "\" width=\"" << kCell - kGap << "\" height=\"" << kCell - kGap
      << "\" rx=\"3\" fill=\"" << hex(c) << "\"/>\n";
  const bool dark = 0.299 * c.r + 0.587 * c.g + 0.114 * c.b < 140;
  char number[16] = "–";
  if (known) std::snprintf(number, sizeof number, "%.1f", 100 * value);
  text(out, x + (kCell - kGap) / 2.0, y + (kCell - kGap) / 2.0 + 4.5,
       dark ? "class=\"value\" fill=\"#ffffff\"" : "class=\"value\" fill=\"#1a1a1a\"", number);
}

/// Width of text of 12 pixels, roughly: fonts differ.
int width_of(const std::string& words) { return static_cast<int>(7.2 * static_cast<double>(words.size())) + 1; }

Layout layout_of(const std::vector<HeatMap>& maps) {
  int names = 0, tasks = 3;  // an axis title takes as much room as three cells
  bool titles = false;
  for (const HeatMap& map : maps) {
    titles = titles || !map.title.empty();
    tasks = std::max(tasks, map.matrix.tasks());
    for (std::size_t i = 0; i < map.matrix.r.size(); ++i) names = std::max(names, width_of(task_name(map, i)));
  }
  const bool slanted = names > kCell;
  return {42 + names, titles ? 34 : 10, slanted ? 40 + names * 3 / 4 : 52, kCell * tasks, slanted};
}

void draw_map(std::ostream& out, const HeatMap& map, const Layout& layout, int x0, int y0) {
  const int left = x0 + layout.left, top = y0 + layout.top, side = kCell * map.matrix.tasks();
  text(out, left + side / 2.0, y0 + 20, "class=\"title\"", map.title);
  for (std::size_t i = 0; i < map.matrix.r.size(); ++i) {
    const int at = kCell * static_cast<int>(i);
    text(out, left - 8, top + at + kCell / 2.0 + 3, "class=\"row\"", task_name(map, i));
    for (std::size_t j = 0; j < map.matrix.r[i].size(); ++j)
      draw_cell(out, left + kCell * static_cast<int>(j), top + at, map.matrix.r[i][j]);
    const double x = left + at + kCell / 2.0 - 1, y = top + side + 16;
    if (layout.slanted) turned(out, x + 6, y, "row", -45, task_name(map, i));
    else text(out, x, y, "class=\"column\"", task_name(map, i));
  }
  text(out, left + side / 2.0, top + side + layout.bottom - 16, "class=\"axis\"", "accuracy on task (%)");
  turned(out, x0 + 20, top + std::max(side, 3 * kCell) / 2.0, "axis", -90, "after learning task");
}

void draw_legend(std::ostream& out, int x, int y, int height) {
  out << "<defs><linearGradient id=\"scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">\n";
  for (std::size_t i = 0; i < kCividis.size(); ++i)
    out << "<stop offset=\"" << static_cast<double>(i) / static_cast<double>(kCividis.size() - 1) << "\" stop-color=\""
        << hex(kCividis[i]) << "\"/>\n";
  out << "</linearGradient></defs>\n<rect x=\"" << x << "\" y=\"" << y << "\" width=\"14\" height=\"" << height
      << "\" rx=\"3\" fill=\"url(#scale)\"/>\n";
  for (int percent : {0, 25, 50, 75, 100})
    text(out, x + 20, y + 4 + height * (100 - percent) / 100.0, "class=\"tick\"", std::to_string(percent));
}

}  // namespace

void write_accuracy_matrices_svg(const std::filesystem::path& path, const std::string& title,
                                 const std::vector<HeatMap>& maps, int columns) {
  constexpr std::string_view kOp = "write_accuracy_matrices_svg";
  check(!maps.empty() && columns > 0, kOp, maps.size(), " matrices in ", columns, " columns");
  for (const HeatMap& map : maps) {
    check(map.matrix.tasks() > 0, kOp, "the matrix '", map.title, "' is empty");
    for (const auto& row : map.matrix.r)
      check(row.size() == map.matrix.r.size(), kOp, "the matrix '", map.title, "' has ", map.matrix.r.size(),
            " rows and one of ", row.size(), " values");
  }
  columns = std::min(columns, static_cast<int>(maps.size()));
  const int rows = (static_cast<int>(maps.size()) + columns - 1) / columns;
  const Layout layout = layout_of(maps);
  const int width = std::max(columns * layout.wide() + kLegend, 40 + width_of(title) * 3 / 2);
  const int height = kTitle + rows * layout.high();
  auto out = picture();
  open(out, width, height, title,
       ".value{font-size:13px;text-anchor:middle}.title{font-size:14px;font-weight:bold;text-anchor:middle}"
       ".row{font-size:12px;text-anchor:end}.column{font-size:12px;text-anchor:middle}"
       ".axis{font-size:12px;fill:#555;text-anchor:middle}.tick{font-size:11px;fill:#555}"
       ".head{font-size:17px;font-weight:bold}");
  text(out, 20, 30, "class=\"head\"", title);
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const int at = static_cast<int>(i);
    draw_map(out, maps[i], layout, at % columns * layout.wide(), kTitle + at / columns * layout.high());
  }
  draw_legend(out, columns * layout.wide(), kTitle + layout.top, layout.side - kGap);
  out << "</svg>\n";
  write_text_file(path, out.str());
}

void write_accuracy_matrix_svg(const std::filesystem::path& path, const AccuracyMatrix& matrix,
                               const std::string& title, const std::vector<std::string>& tasks) {
  write_accuracy_matrices_svg(path, title, {{"", matrix, tasks}}, 1);
}

}  // namespace stet::continual
