// Metrics over the accuracy matrix.
#include <stet/continual/metrics.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace stet::continual {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double at(const std::vector<double>& row, std::size_t j) { return j < row.size() ? row[j] : kUnknown; }

}  // namespace

double AccuracyMatrix::accuracy() const {
  if (r.empty()) return kUnknown;
  double total = 0;
  for (double value : r.back()) total += value;
  return total / tasks();
}

double AccuracyMatrix::backward_transfer() const {
  if (tasks() < 2) return kUnknown;
  double total = 0;
  for (std::size_t j = 0; j + 1 < r.size(); ++j) total += at(r.back(), j) - at(r[j], j);
  return total / (tasks() - 1);
}

double AccuracyMatrix::forward_transfer() const {
  if (tasks() < 2 || before.empty()) return kUnknown;
  double total = 0;
  for (std::size_t j = 1; j < r.size(); ++j) total += at(r[j - 1], j) - at(before, j);
  return total / (tasks() - 1);
}

double AccuracyMatrix::forgetting() const {
  if (tasks() < 2) return kUnknown;
  double total = 0;
  for (std::size_t j = 0; j + 1 < r.size(); ++j) {
    double best = at(r[j], j);
    for (std::size_t i = j; i + 1 < r.size(); ++i) best = std::isnan(best) ? best : std::max(best, at(r[i], j));
    total += best - at(r.back(), j);
  }
  return total / (tasks() - 1);
}

std::string AccuracyMatrix::definitions() {
  return "R[i][j] is the accuracy on task j after learning task i, b[j] the one before any learning, T the "
         "number of tasks.\n"
         "ACC        = 1/T sum_j R[T-1][j]\n"
         "BWT        = 1/(T-1) sum_{j<T-1} (R[T-1][j] - R[j][j])\n"
         "FWT        = 1/(T-1) sum_{j>0} (R[j-1][j] - b[j])\n"
         "forgetting = 1/(T-1) sum_{j<T-1} (max_{j<=i<T-1} R[i][j] - R[T-1][j])\n";
}

Spread spread_of(const std::vector<double>& values) {
  Spread out{kUnknown, kUnknown};
  if (values.empty()) return out;
  double total = 0;
  for (double v : values) total += v;
  out.mean = total / static_cast<double>(values.size());
  double squares = 0;
  for (double v : values) squares += (v - out.mean) * (v - out.mean);
  if (values.size() > 1) out.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return out;
}

}  // namespace stet::continual
