// Fisher diagonals from squared per-sample gradients, a batch at a time.
#include <stet/continual/importance.h>

#include <algorithm>
#include <cmath>

#include <stet/autograd/engine.h>
#include <stet/autograd/squared.h>

namespace stet::continual {
namespace {

std::vector<std::int64_t> evenly_spaced(std::int64_t count, std::int64_t wanted) {
  const std::int64_t n = wanted > 0 ? std::min(wanted, count) : count;
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(i * count / n);
  return out;
}

/// A draw from p(. | x) for each example, by inversion. `uniforms` (n,) f64 belong to the examples, so that
/// cutting them into other batches does not change their labels.
Tensor sampled_labels(const Tensor& logits, const Tensor& uniforms) {
  const NoGrad no_grad;
  const Tensor sums = cumsum(softmax(cast(logits, DType::f64)), -1);
  const Tensor total = slice(sums, 1, logits.shape()[1] - 1);
  return argmax(cast(greater(sums, unsqueeze(uniforms, 1) * total), DType::i64),
                -1);  // the first that exceeds
}

std::vector<Tensor> batch_sum(Context& context, const Batch& batch, const std::vector<Tensor>& parameters, Fisher kind,
                              const Tensor& uniforms) {
  const Tensor logits = context.logits(batch);
  switch (kind) {
    case Fisher::exact: return squared_gradients(logits, exact_fisher_seeds(logits), parameters);
    case Fisher::sampled:
      return squared_gradients(cross_entropy_rows(logits, sampled_labels(logits, uniforms)), parameters);
    case Fisher::empirical: return squared_gradients(cross_entropy_rows(logits, batch.y), parameters);
    case Fisher::batch_mean: {
      auto gradients = grad(mean(cross_entropy_rows(logits, batch.y)), parameters, {.allow_unused = true});
      for (std::size_t i = 0; i < gradients.size(); ++i)  // weighted by the batch, so that the end divides by N
        gradients[i] = gradients[i].defined() ? square(gradients[i]) * static_cast<double>(batch.size())
                                              : zeros(parameters[i].shape(), parameters[i].options());
      return gradients;
    }
  }
  fail<BugError>("fisher", "unknown kind");
}

}  // namespace

std::string_view name_of(Fisher kind) {
  constexpr std::string_view names[] = {"exact", "sampled", "empirical", "batch_mean"};
  return names[static_cast<int>(kind)];
}

void check_options(const FisherOptions& options) {
  check(options.samples >= 0, "fisher", "samples ", options.samples, ": expected 0 (all) or more");
  check(options.batch_size >= 1, "fisher", "batch size ", options.batch_size, ": expected at least 1");
}

/// d log p(c | x) / d logits = e_c - p, times sqrt(p_c): squared and summed over c this is the exact Fisher.
std::vector<Tensor> exact_fisher_seeds(const Tensor& logits) {
  const NoGrad no_grad;
  const Tensor p = softmax(logits), root = sqrt(p);
  const std::int64_t n = logits.shape()[0], classes = logits.shape()[1];
  std::vector<Tensor> seeds;
  for (std::int64_t c = 0; c < classes; ++c) {
    const Tensor weight = slice(root, 1, c, c + 1);
    if (max(weight).item() == 0) continue;  // an output outside the task
    const Tensor hit =
        one_hot(full({n}, static_cast<double>(c), {DType::i64, logits.device()}), classes, logits.dtype());
    seeds.push_back(weight * (hit - p));
  }
  return seeds;
}

nn::State fisher_diagonal(Context& context, const Examples& examples, const FisherOptions& options) {
  check(examples.size() > 0, "fisher", "needs at least one example");
  check_options(options);
  const nn::EvalScope evaluation(context.model);
  const auto parameters = context.model.trainable_parameters();
  std::vector<Tensor> tensors, total;
  for (const nn::Parameter* p : parameters) tensors.push_back(p->value());
  if (parameters.empty()) return {};
  const auto chosen = evenly_spaced(examples.size(), options.samples);
  Generator generator = Generator(options.seed).fork("fisher").fork(static_cast<std::uint64_t>(context.task));
  const Tensor uniforms = rand({static_cast<std::int64_t>(chosen.size())}, generator, {DType::f64, context.device()});
  for (std::size_t at = 0; at < chosen.size(); at += static_cast<std::size_t>(options.batch_size)) {
    const std::size_t n = std::min(static_cast<std::size_t>(options.batch_size), chosen.size() - at);
    const Batch batch = examples.batch(std::span(chosen).subspan(at, n)).to(context.device());
    const auto begin = static_cast<std::int64_t>(at), end = begin + static_cast<std::int64_t>(n);
    const auto part = batch_sum(context, batch, tensors, options.kind, slice(uniforms, 0, begin, end));
    for (std::size_t i = 0; i < part.size(); ++i)
      if (total.size() <= i) total.push_back(part[i]);
      else total[i] = total[i] + part[i];
  }
  nn::State out;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    out[parameters[i]->path()] = total[i] * (1.0 / static_cast<double>(chosen.size()));
  return out;
}

void check_fisher(Context& context, FisherOptions options) {
  options.samples = 2;
  fisher_diagonal(context, context.train(), options);
}

}  // namespace stet::continual
