// Golden files written by tests/golden/make_goldens.py: grouping into cases, and the one comparison that
// counts rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <stet/nn/safetensors.h>

namespace stet::test {

/// Tensors of one case by the last part of their name: "in.x", "out", "grad.x", ...
struct GoldenCase {
  std::string operation, name;
  std::map<std::string, Tensor> tensors;

  bool has(const std::string& key) const { return tensors.contains(key); }
  const Tensor& at(const std::string& key) const { return tensors.at(key); }
  /// Undefined where the case has no such tensor.
  Tensor find(const std::string& key) const { return has(key) ? at(key) : Tensor(); }
  double option(std::size_t i) const { return at("options").to_vector<double>()[i]; }
};

/// The cases "operation/number" of a file in tests/golden/.
inline std::vector<GoldenCase> golden_cases(const std::string& file) {
  std::vector<GoldenCase> cases;
  for (const auto& [name, value] :
       nn::load_safetensors(std::filesystem::path(STET_SOURCE_DIR) / "tests" / "golden" / file)) {
    const std::size_t first = name.find('/'), second = name.find('/', first + 1);
    if (second == std::string::npos) continue;  // shared by all cases
    if (cases.empty() || cases.back().name != name.substr(0, second))
      cases.push_back({name.substr(0, first), name.substr(0, second), {}});
    cases.back().tensors[name.substr(second + 1)] = to(value, default_device());
  }
  return cases;
}

/// max |value - reference| / max |reference|; plain where the reference is zero. NaN where either is, so that
/// `!(error <= bound)` catches it; infinite where shapes or dtypes differ.
inline double golden_error(const Tensor& value, const Tensor& reference) {
  if (!value.defined() || !(value.shape() == reference.shape()) || value.dtype() != reference.dtype())
    return std::numeric_limits<double>::infinity();
  const auto a = value.to_vector<double>(), b = reference.to_vector<double>();
  double difference = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(a[i] - b[i]);
    if (std::isnan(d)) return d;
    difference = std::max(difference, d);
    scale = std::max(scale, std::fabs(b[i]));
  }
  return scale > 0 ? difference / scale : difference;
}

}  // namespace stet::test
