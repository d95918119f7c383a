// Losses, with PyTorch's meanings and defaults. Shapes must be equal: a loss never broadcasts its target,
// which in practice hides a forgotten axis.
#pragma once

#include <stet/autograd/ops.h>

namespace stet::nn {

/// How the losses of a batch become one: not at all, their mean, their sum, or their sum over the size of
/// axis 0.
enum class Reduction { none, mean, sum, batch_mean };

struct CrossEntropyOptions {
  Tensor weight = {};                ///< (classes,): factor of each class
  double label_smoothing = 0;        ///< this share of the target is spread evenly over all classes
  std::int64_t ignore_index = -100;  ///< rows with this target count for nothing
  Reduction reduction = Reduction::mean;
};
/// -log softmax(logits)[target]: logits (..., classes), target (...) i64 -> a scalar, or (...) without
/// reduction. The mean is weighted: it divides by the sum of the weights of the targets that are not ignored,
/// and is NaN when all are. (torch.nn.functional.cross_entropy; there the classes stand on axis 1.)
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});

/// (input - target)^2; both of one shape.
Tensor mse(const Tensor& input, const Tensor& target, Reduction reduction = Reduction::mean);

struct HuberOptions {
  double delta = 1;
  Reduction reduction = Reduction::mean;
};
/// d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), with d = input - target (Huber 1964).
Tensor huber(const Tensor& input, const Tensor& target, HuberOptions options = {});

struct BceOptions {
  Tensor pos_weight = {};  ///< factor of the positive term; broadcasts to the logits
  Reduction reduction = Reduction::mean;
};
/// -[w y log s(x) + (1 - y) log(1 - s(x))] with the sigmoid s, for targets y in [0, 1] of the logits' shape.
/// Neither term cancels, however large |x|.
Tensor bce_with_logits(const Tensor& logits, const Tensor& target, const BceOptions& options = {});

struct KlDivOptions {
  bool log_target = false;                ///< the target holds log-probabilities
  Reduction reduction = Reduction::mean;  ///< batch_mean gives the divergence of the definition
};
/// t (log t - log_input), 0 where t is 0: log_input holds log-probabilities, target probabilities.
Tensor kl_div(const Tensor& log_input, const Tensor& target, KlDivOptions options = {});

/// Share of rows whose largest logit is at the target: logits (..., classes), target (...) i64.
double accuracy(const Tensor& logits, const Tensor& target);

}  // namespace stet::nn
