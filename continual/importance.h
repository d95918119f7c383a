// How much each weight matters: the diagonal of the Fisher information. The variants of the literature
// disagree by up to two orders of magnitude, so each has its name, and the exact one is the default.
#pragma once

#include <stet/continual/strategy.h>
#include <stet/tensor/error.h>

namespace stet::continual {

enum class Fisher {
  exact,       ///< E_x sum_c p(c|x) (d log p(c|x) / d theta)^2: every label, weighted by the model's probability
  sampled,     ///< one label drawn from p(.|x) per example: unbiased for `exact`
  empirical,   ///< the label of the data: vanishes on examples that are learned by heart
  batch_mean,  ///< square of the batch's mean gradient: what several libraries compute; depends on the batch
               ///< size
};
std::string_view name_of(Fisher kind);

struct FisherOptions {
  Fisher kind = Fisher::exact;
  std::int64_t samples = 0;       ///< at most this many examples, evenly spaced; 0: all
  std::int64_t batch_size = 256;  ///< speed and memory alone, except for batch_mean, which is another quantity
  std::uint64_t seed = 0;         ///< for `sampled`
};

/// An Error when a number of examples is out of range.
void check_options(const FisherOptions& options);

/// Mean over the examples of each trainable parameter's Fisher diagonal, by parameter path (batch_mean: the
/// mean over batches, weighted by their sizes). The model is in evaluation mode meanwhile, its gradients,
/// buffers and modes are left as they were. A model without trainable parameters has none: the result is
/// empty. Source: Kirkpatrick et al. 2017; variants as in van de Ven 2025 (arXiv:2502.11756).
nn::State fisher_diagonal(Context& context, const Examples& examples, const FisherOptions& options = {});

/// An Error when the model has no Fisher diagonal, seen on two examples of the task: said before it is trained for
/// hours.
void check_fisher(Context& context, FisherOptions options);

/// The seeds of the exact Fisher for squared_gradients(): one (n, classes) tensor per label that is possible
/// for some example, sqrt(p_c) (e_c - p).
std::vector<Tensor> exact_fisher_seeds(const Tensor& logits);

}  // namespace stet::continual
