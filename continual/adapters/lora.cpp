// The low-rank path: two thin products beside the layer's own.
#include <stet/continual/adapters/lora.h>

#include <cmath>

#include <stet/nn/init.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

/// What the first glob that matches says of a place.
template <class T> T pick(const ByGlob<T>& by_glob, const std::string& place, T otherwise) {
  for (const auto& [glob, value] : by_glob)
    if (nn::glob_match(glob, place)) return value;
  return otherwise;
}

Tensor initial_a(const nn::Module& owner, const nn::Linear& base, std::int64_t rank) {
  check(rank >= 1, "Lora", "'", base.path(), "': rank ", rank, ", expected at least 1");
  return nn::init::draw(owner, "lora_A", {rank, base.in()}, nn::init::linear_default(base.in()),
                        base.weight.value().options());
}

double checked_alpha(const nn::Linear& base, double alpha) {
  check(std::isfinite(alpha), "Lora", "'", base.path(), "': alpha ", alpha, ", expected a finite number");
  return alpha;
}

}  // namespace

Lora::Lora(nn::Linear& base, std::string name, std::string place, const LoraOptions& options)
    : LinearPiece(base, std::move(name), std::move(place)),
      lora_A(this, "lora_A", initial_a(*this, base, pick(options.rank_pattern, this->place(), options.rank))),
      lora_B(this, "lora_B", zeros({base.out(), rank()}, base.weight.value().options())),
      alpha_(checked_alpha(base, pick(options.alpha_pattern, this->place(), options.alpha))),
      rslora_(options.rslora),
      scale_(alpha_ / (rslora_ ? std::sqrt(static_cast<double>(rank())) : static_cast<double>(rank()))) {
  check(options.dropout >= 0 && options.dropout < 1, "Lora", "'", base.path(), "': dropout ", options.dropout,
        ", expected at least 0 and below 1");
  if (options.bias != LoraBias::none && base.bias) copy(*base.bias);
  if (options.dropout > 0) lora_dropout_.emplace(this, "lora_dropout", options.dropout);
  if (!options.dora) return;
  const NoGrad no_grad;
  const Tensor norms = row_norms();
  check(norms.numel() == 0 || min(norms).item() > 0, "Lora", "'", base.path(),
        "': DoRA needs a direction for every output, and a row of the weight is zero");
  lora_magnitude_vector.emplace(this, "lora_magnitude_vector", norms);
}

Piece::Settings Lora::settings() const {
  return {{"rank", static_cast<double>(rank())},
          {"alpha", alpha_},
          {"rslora", rslora_},
          {"dora", lora_magnitude_vector.has_value()}};
}

Tensor Lora::row_norms() const {
  const NoGrad no_grad;
  return sqrt(sum(square(base().weight + matmul(lora_B, lora_A) * scale_), {1}));
}

Tensor Lora::adapted(const Tensor& x) {
  const Tensor in = lora_dropout_ ? (*lora_dropout_)(x) : x;
  const Tensor low = linear(linear(in, lora_A) * scale_, lora_B);  // the scale on the thin side
  if (!lora_magnitude_vector) return base().plain(x) + low;
  const Tensor y = (linear(x, base().weight) + low) * (for_each_entry(*lora_magnitude_vector, x) / row_norms());
  return base().bias ? y + *base().bias : y;
}

Merged Lora::merged() const {
  const NoGrad no_grad;
  Tensor weight = base().weight + matmul(lora_B, lora_A) * scale_;
  if (lora_magnitude_vector) weight = weight * unsqueeze(*lora_magnitude_vector / row_norms(), 1);
  return {weight, base_bias()};
}

}  // namespace stet::continual
