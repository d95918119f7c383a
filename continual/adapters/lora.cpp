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

/// What DoRA's magnitudes start as.
Tensor checked_norms(const Tensor& norms, const nn::Module& base, const char* what) {
  check(norms.numel() == 0 || min(norms).item() > 0, "Lora", "'", base.path(),
        "': DoRA needs a direction for every output, and a ", what, " of the weight is zero");
  return norms;
}

}  // namespace

LoraNumbers::LoraNumbers(const nn::Module& base, const std::string& place, const LoraOptions& options)
    : rank(pick(options.rank_pattern, place, options.rank)),
      alpha(pick(options.alpha_pattern, place, options.alpha)),
      rslora(options.rslora),
      dora(options.dora) {
  check(rank >= 1, "Lora", "'", base.path(), "': rank ", rank, ", expected at least 1");
  check(std::isfinite(alpha), "Lora", "'", base.path(), "': alpha ", alpha, ", expected a finite number");
  check(options.dropout >= 0 && options.dropout < 1, "Lora", "'", base.path(), "': dropout ", options.dropout,
        ", expected at least 0 and below 1");
}

double LoraNumbers::scale() const {
  return alpha / (rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

Piece::Settings LoraNumbers::settings() const {
  return {{"rank", static_cast<double>(rank)}, {"alpha", alpha}, {"rslora", rslora}, {"dora", dora}};
}

Lora::Lora(nn::Linear& base, std::string name, std::string place, const LoraOptions& options)
    : LinearPiece(base, std::move(name), std::move(place)),
      numbers_(base, this->place(), options),
      lora_A(this, "lora_A",
             nn::init::draw(*this, "lora_A", {numbers_.rank, base.in()}, nn::init::linear_default(base.in()),
                            base.weight.value().options())),
      lora_B(this, "lora_B", zeros({base.out(), numbers_.rank}, base.weight.value().options())) {
  if (options.bias != LoraBias::none && base.bias) copy(*base.bias);
  if (options.dropout > 0) lora_dropout_.emplace(this, "lora_dropout", options.dropout);
  if (options.dora)
    lora_magnitude_vector.emplace(this, "lora_magnitude_vector", checked_norms(row_norms(), base, "row"));
}

Tensor Lora::row_norms() const {
  const NoGrad no_grad;
  return sqrt(sum(square(base().weight + matmul(lora_B, lora_A) * numbers_.scale()), {1}));
}

Tensor Lora::adapted(const Tensor& x) {
  const Tensor in = lora_dropout_ ? (*lora_dropout_)(x) : x;
  const Tensor low = linear(linear(in, lora_A) * numbers_.scale(), lora_B);  // the scale on the thin side
  if (!lora_magnitude_vector) return base().plain(x) + low;
  const Tensor y = (linear(x, base().weight) + low) * (for_each_entry(*lora_magnitude_vector, x) / row_norms());
  return base().bias ? y + *base().bias : y;
}

Merged Lora::merged() const {
  const NoGrad no_grad;
  Tensor weight = base().weight + matmul(lora_B, lora_A) * numbers_.scale();
  if (lora_magnitude_vector) weight = weight * unsqueeze(*lora_magnitude_vector / row_norms(), 1);
  return {weight, base_bias()};
}

LoraEmbedding::LoraEmbedding(nn::Embedding& base, std::string name, std::string place, const LoraOptions& options,
                             const nn::TiedLinear* head)
    : Piece(base, std::move(name), std::move(place)),
      base_(base),
      head_(head),
      numbers_(base, this->place(), options),
      lora_embedding_A(this, "lora_embedding_A", zeros({base.count(), numbers_.rank}, base.weight.value().options())),
      lora_embedding_B(this, "lora_embedding_B",
                       nn::init::draw(*this, "lora_embedding_B", {base.width(), numbers_.rank}, nn::init::normal(),
                                      base.weight.value().options())) {
  if (options.dora)
    lora_magnitude_vector.emplace(this, "lora_magnitude_vector", checked_norms(column_norms(), base, "column"));
}

Tensor LoraEmbedding::table() const {
  return base_.weight + linear(lora_embedding_A, lora_embedding_B) * numbers_.scale();
}

Tensor LoraEmbedding::column_norms() const {
  const NoGrad no_grad;
  return sqrt(sum(square(table()), {0}));
}

Tensor LoraEmbedding::operator()(const nn::Embedding&, const Tensor& index) {
  if (!merged_) {
    const Tensor low = embedding(lora_embedding_A, index) * numbers_.scale();  // the scale on the thin side
    const Tensor y = base_.plain(index) + linear(low, lora_embedding_B);
    return lora_magnitude_vector ? y * (for_each_entry(*lora_magnitude_vector, y) / column_norms()) : y;
  }
  check_unwritten(merged_from_, {base_.weight.value()});
  return embedding(*merged_, index);
}

void LoraEmbedding::plug(bool on) {
  if (!parent()) return;  // the layer is gone
  if (on) check_slot_free(!base_.slot);
  Piece::plug(on);
  if (on) base_.slot = this;
  else if (base_.slot == this) base_.slot = nullptr;
}

Tensor LoraEmbedding::merged() const {
  const NoGrad no_grad;
  return lora_magnitude_vector ? table() * (*lora_magnitude_vector / column_norms()) : table();
}

void LoraEmbedding::merge(bool on) {
  merged_.reset();
  merged_from_.clear();
  if (!on) return;
  merged_ = merged();
  merged_from_ = stamps({base_.weight.value()});
}

void LoraEmbedding::fold(nn::State& state) const {
  if (head_) refuse_untied(*this, *head_);
  state.at(nn::join_path(place(), "weight")) = merged();
}

}  // namespace stet::continual
