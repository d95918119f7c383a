// Numbers over seeds as text, in columns. Shared by finetune_domain and claims/.
#pragma once

#include <string>
#include <vector>

#include <stet/continual/metrics.h>

/// Rows of text in columns as wide as they need to be; the first is flush left, the others right.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  /// To standard output, with an empty line behind it.
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// "–" for what is not a number.
std::string number(double value, int digits = 3, bool sign = true);
/// "+0.123 ± 0.004", without the spread for one seed.
std::string cell(const stet::continual::Spread& spread, int digits = 3, bool sign = true);
std::string cell(const std::vector<double>& values, int digits = 3, bool sign = true);
double mean_of(const std::vector<double>& values);
