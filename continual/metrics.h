// The accuracy matrix and what is computed from it; one definition per metric.
#pragma once

#include <string>
#include <vector>

namespace stet::continual {

/// R[i][j]: accuracy (0..1) on task j's test split after learning task i; NaN where it was not measured.
struct AccuracyMatrix {
  std::vector<double> before;          ///< b[j]: before any learning
  std::vector<std::vector<double>> r;  ///< T rows of T

  int tasks() const { return static_cast<int>(r.size()); }
  /// ACC = 1/T sum_j R[T-1][j]  (Lopez-Paz & Ranzato 2017)
  double accuracy() const;
  /// BWT = 1/(T-1) sum_{j<T-1} (R[T-1][j] - R[j][j])  (Lopez-Paz & Ranzato 2017)
  double backward_transfer() const;
  /// FWT = 1/(T-1) sum_{j>0} (R[j-1][j] - b[j])  (Lopez-Paz & Ranzato 2017)
  double forward_transfer() const;
  /// F = 1/(T-1) sum_{j<T-1} (max_{j<=i<T-1} R[i][j] - R[T-1][j])  (Chaudhry et al. 2018, whose maximum also
  /// takes in the rows before task j was learned)
  double forgetting() const;
  /// The above with their names and formulas, for people.
  static std::string definitions();
};

/// Mean and sample standard deviation (n - 1): NaN for fewer than one and two values; a NaN makes both NaN.
struct Spread {
  double mean = 0, deviation = 0;
};
Spread spread_of(const std::vector<double>& values);

}  // namespace stet::continual
