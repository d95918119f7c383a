// Losses composed from differentiable operations. Each form is chosen so that neither value nor gradient
// cancels.
#include <stet/nn/losses.h>

#include <algorithm>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

Tensor reduce(std::string_view op, const Tensor& losses, Reduction reduction) {
  switch (reduction) {
    case Reduction::none: return losses;
    case Reduction::mean: return mean(losses);
    case Reduction::sum: return sum(losses);
    case Reduction::batch_mean: {
      check(losses.rank() >= 1, op, "batch_mean needs a batch on axis 0, got a scalar");
      return sum(losses) / static_cast<double>(losses.size(0));
    }
  }
  fail(op, "unknown reduction ", static_cast<int>(reduction));
}

void check_pair(std::string_view op, const Tensor& input, const Tensor& target) {
  check(is_floating(input.dtype()), op, "input holds ", input.dtype(), ", expected a floating dtype");
  check(input.shape() == target.shape(), op, "input ", input.shape(), " and target ", target.shape(),
        " must have the same shape");
}

/// On another device the count stays there: reading it would make the host wait.
Tensor mean_of_kept(const Tensor& losses, const Tensor& target, std::int64_t ignore_index) {
  return sum(losses) / cast(sum(not_equal(target, whole_number(ignore_index))), losses.dtype());
}

std::int64_t count_kept(const Tensor& target, std::int64_t ignore_index) {
  const Tensor row_major = contiguous(target);
  const auto values = row_major.values<std::int64_t>();
  return std::count_if(values.begin(), values.end(), [&](std::int64_t t) { return t != ignore_index; });
}

/// Sum of the class weights of the targets that are not ignored.
Tensor sum_of_weights(const Tensor& target, const CrossEntropyOptions& options) {
  const NoGrad no_grad;
  const Tensor kept = not_equal(target, whole_number(options.ignore_index));
  const Tensor row = flatten(where(kept, target, whole_number(0)));
  const Tensor weights = index_select(options.weight.detach(), 0, row);
  return sum(where(flatten(kept), weights, scalar(0, {weights.dtype(), Device::cpu()})));
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options) {
  const Tensor losses =
      cross_entropy_rows(logits, target, {options.weight, options.label_smoothing, options.ignore_index});
  if (options.reduction != Reduction::mean) return reduce("cross_entropy", losses, options.reduction);
  if (options.weight.defined()) return sum(losses) / sum_of_weights(target, options);
  if (target.device() != Device::cpu()) return mean_of_kept(losses, target, options.ignore_index);
  const std::int64_t kept = count_kept(target, options.ignore_index);
  if (kept == target.numel()) return mean(losses);
  return sum(losses) / static_cast<double>(kept);
}

Tensor mse(const Tensor& input, const Tensor& target, Reduction reduction) {
  check_pair("mse", input, target);
  return reduce("mse", square(input - target), reduction);
}

Tensor huber(const Tensor& input, const Tensor& target, HuberOptions options) {
  check_pair("huber", input, target);
  check(options.delta > 0, "huber", "delta ", options.delta, " must be positive");
  const Tensor d = input - target, held = clamp(d, -options.delta, options.delta);
  // held (d - held / 2) is both branches at once, and so is its derivative: held.
  return reduce("huber", held * (d - held * 0.5), options.reduction);
}

Tensor bce_with_logits(const Tensor& logits, const Tensor& target, const BceOptions& options) {
  check_pair("bce_with_logits", logits, target);
  Tensor positive = target * softplus(-logits);
  if (options.pos_weight.defined()) {
    check(broadcast("bce_with_logits", options.pos_weight.shape(), logits.shape()) == logits.shape(), "bce_with_logits",
          "pos_weight ", options.pos_weight.shape(), " does not broadcast to logits ", logits.shape());
    positive = positive * options.pos_weight;
  }
  return reduce("bce_with_logits", positive + (1.0 - target) * softplus(logits), options.reduction);
}

Tensor kl_div(const Tensor& log_input, const Tensor& target, KlDivOptions options) {
  check_pair("kl_div", log_input, target);
  const Tensor t = options.log_target ? exp(target) : target;
  const auto number = [](double value, const Tensor& like) { return scalar(value, {like.dtype(), Device::cpu()}); };
  const Tensor none = equal(t, number(0, t));  // there, logarithms may be infinite and count nothing
  const auto counted = [&](const Tensor& logs) { return where(none, number(0, logs), logs); };
  const Tensor log_t = options.log_target ? counted(target) : log(where(none, number(1, t), t));
  return reduce("kl_div", t * (log_t - counted(log_input)), options.reduction);
}

double accuracy(const Tensor& logits, const Tensor& target) {
  check(logits.rank() >= 1, "accuracy", "logits ", logits.shape(), ": expected (..., classes)");
  const Tensor best = argmax(logits.detach());
  check(best.shape() == target.shape(), "accuracy", "target ", target.shape(), " for logits ", logits.shape(),
        ": expected ", best.shape());
  check(target.dtype() == DType::i64, "accuracy", "target holds ", target.dtype(), ", expected i64");
  check(target.numel() > 0, "accuracy", "no rows in logits ", logits.shape());
  return sum(cast(equal(best, target), DType::i64)).item() / static_cast<double>(target.numel());
}

}  // namespace stet::nn
