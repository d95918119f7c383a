// Losses over sequences: shifted labels and cross_entropy.
#include <stet/nn/sequence.h>

#include <cmath>

#include <stet/tensor/error.h>

namespace stet::nn {

Tensor next_token_loss(const Tensor& logits, const Tensor& labels, SequenceLossOptions options) {
  check(logits.rank() == 3 && labels.rank() == 2 && logits.shape()[0] == labels.shape()[0] &&
            logits.shape()[1] == labels.shape()[1] && labels.shape()[1] >= 2,
        "next_token_loss", "logits ", logits.shape(), ", labels ", labels.shape(),
        ": expected (batch, T, vocabulary) and (batch, T), T at least 2");
  // The last position has nothing to predict. It is ignored and not cut off, so that no tensor of the logits' size is
  // copied.
  const std::int64_t batch = labels.shape()[0], last = labels.shape()[1] - 1;
  const Tensor zero = zeros({batch, 1}, {DType::i64, labels.device()});
  const Tensor none = cast(zero + whole_number(options.ignore_index), labels.dtype());
  const Tensor loss = cross_entropy(logits, cat({slice(labels, 1, 1), none}, 1),
                                    {.ignore_index = options.ignore_index, .reduction = options.reduction});
  return options.reduction == Reduction::none ? slice(loss, 1, 0, last) : loss;
}

std::int64_t count_labels(const Tensor& labels, std::int64_t ignore_index) {
  check(labels.rank() == 2 && labels.dtype() == DType::i64, "count_labels", "labels ", labels.dtype(), " ",
        labels.shape(), ": expected i64 (batch, T)");
  const Tensor counts = not_equal(slice(labels, 1, 1), whole_number(ignore_index));
  return static_cast<std::int64_t>(sum(cast(counts, DType::i64)).item());
}

double perplexity(const Tensor& mean_loss) { return std::exp(mean_loss.item()); }

}  // namespace stet::nn
