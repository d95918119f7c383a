// Formulas stand beside their declarations.
#include <stet/continual/diagnostics.h>

#include <cmath>
#include <limits>

#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

double dot(const Tensor& a, const Tensor& b) { return sum(cast(a, DType::f64) * cast(b, DType::f64)).item(); }

/// f64, each column's mean taken off.
Tensor centred(const Tensor& x) {
  const Tensor wide = cast(x, DType::f64);
  return wide - mean(wide, {0}, true);
}

/// (heads,) means of p * weight, summed over the keys; weight broadcasts to p (batch, heads, T, S).
Tensor mean_by_head(std::string_view op, const Tensor& p, const Tensor& weight) {
  check(p.numel() > 0, op, "probabilities ", p.shape(), " are empty");
  return mean(sum(p * weight, {-1}), {0, 2});
}

Tensor checked(std::string_view op, const Tensor& probabilities) {
  check(probabilities.rank() == 4 && is_floating(probabilities.dtype()), op, "probabilities ", probabilities.dtype(),
        " ", probabilities.shape(), ": expected floating (batch, heads, T, S)");
  return cast(probabilities.detach(), DType::f64);
}

}  // namespace

double weight_drift(const nn::State& before, const nn::State& after, std::string_view glob) {
  const NoGrad no_grad;
  double moved = 0, size = 0;
  int matched = 0;
  for (const auto& [name, value] : before) {
    if (!nn::glob_match(glob, name) || !is_floating(value.dtype())) continue;
    const auto other = after.find(name);
    check(other != after.end(), "weight_drift", "'", name, "' is missing afterwards");
    check(other->second.shape() == value.shape(), "weight_drift", "'", name, "' was ", value.shape(), " and is ",
          other->second.shape());
    const Tensor change = cast(other->second, DType::f64) - cast(value, DType::f64);
    moved += dot(change, change);
    size += dot(value, value);
    ++matched;
  }
  check(matched > 0, "weight_drift", "no weight matches '", glob, "'");
  check(size > 0, "weight_drift", "the weights of '", glob, "' were all 0");
  return std::sqrt(moved / size);
}

double linear_cka(const Tensor& x, const Tensor& y) {
  constexpr std::string_view kOp = "linear_cka";
  check(x.rank() == 2 && y.rank() == 2 && x.shape()[0] == y.shape()[0] && x.shape()[0] > 1, kOp, "x ", x.shape(),
        ", y ", y.shape(), ": expected (n, p) and (n, q) with n of at least 2");
  const NoGrad no_grad;
  for (const Tensor& t : {x, y})
    check(std::isfinite(max(abs(t)).item()), kOp, t.shape(), ": a representation is not finite");
  const Tensor a = centred(x), b = centred(y);
  const auto varies = [](const Tensor& whole, const Tensor& m) {  // by more than the mean's rounding
    constexpr double rounding = 16 * std::numeric_limits<double>::epsilon();
    return dot(m, m) > rounding * rounding * dot(whole, whole);
  };
  check(varies(x, a) && varies(y, b), kOp, "a representation is the same for all examples");
  const auto norm = [](const Tensor& m) { return std::sqrt(dot(m, m)); };
  const double own = norm(matmul(transpose(a), a)) * norm(matmul(transpose(b), b));
  const Tensor cross = matmul(transpose(b), a);
  return dot(cross, cross) / own;
}

double gradient_cosine(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  constexpr std::string_view kOp = "gradient_cosine";
  check(a.size() == b.size(), kOp, a.size(), " and ", b.size(), " pieces");
  const NoGrad no_grad;
  double product = 0, left = 0, right = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].defined()) left += dot(a[i], a[i]);
    if (b[i].defined()) right += dot(b[i], b[i]);
    if (!a[i].defined() || !b[i].defined()) continue;
    check(a[i].shape() == b[i].shape(), kOp, "piece ", i, " is ", a[i].shape(), " and ", b[i].shape());
    product += dot(a[i], b[i]);
  }
  if (left == 0 || right == 0) return std::numeric_limits<double>::quiet_NaN();
  return product / std::sqrt(left * right);
}

Tensor attention_entropy(const Tensor& probabilities) {
  const NoGrad no_grad;
  const Tensor p = checked("attention_entropy", probabilities);
  return mean_by_head("attention_entropy", p, -log(clamp(p, 1e-300, 1)));  // 0 log 0 = 0
}

Tensor attention_distance(const Tensor& probabilities) {
  const NoGrad no_grad;
  const Tensor p = checked("attention_distance", probabilities);
  const std::int64_t rows = p.shape()[2], keys = p.shape()[3];
  const Options wide{DType::f64, p.device()};
  const Tensor query = unsqueeze(arange(rows, wide) + static_cast<double>(keys - rows), 1);
  return mean_by_head("attention_distance", p, abs(query - arange(keys, wide)));
}

}  // namespace stet::continual
