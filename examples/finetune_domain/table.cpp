// Columns are aligned by characters, not bytes.
#include "table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

using namespace stet::continual;

namespace {

std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void Table::print() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], width_of(row[i]));
    }
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string room(widths[i] - width_of(row[i]), ' ');
      std::cout << (i ? "  " : "") << (i ? room + row[i] : row[i] + room);
    }
    std::cout << '\n';
  }
  std::cout << std::endl;
}

std::string number(double value, int digits, bool sign) {
  if (std::isnan(value)) return "–";
  char out[32];
  std::snprintf(out, sizeof out, sign ? "%+.*f" : "%.*f", digits, value);
  return out;
}

std::string cell(const Spread& s, int digits, bool sign) {
  return number(s.mean, digits, sign) + (std::isfinite(s.deviation) ? " ± " + number(s.deviation, digits, false) : "");
}

std::string cell(const std::vector<double>& values, int digits, bool sign) {
  return cell(spread_of(values), digits, sign);
}

double mean_of(const std::vector<double>& values) { return spread_of(values).mean; }
