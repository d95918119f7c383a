// Losses over sequences: shifted views and cross_entropy.
#include <stet/nn/sequence.h>

#include <cmath>

#include <stet/tensor/error.h>

namespace stet::nn {

Tensor next_token_loss(const Tensor& logits, const Tensor& labels, SequenceLossOptions options) {
  check(logits.rank() == 3 && labels.rank() == 2 && logits.shape()[0] == labels.shape()[0] &&
            logits.shape()[1] == labels.shape()[1] && labels.shape()[1] >= 2,
        "next_token_loss", "logits ", logits.shape(), ", labels ", labels.shape(),
        ": expected (batch, T, vocabulary) and (batch, T), T at least 2");
  const std::int64_t last = labels.shape()[1] - 1;
  return cross_entropy(slice(logits, 1, 0, last), slice(labels, 1, 1),
                       {.ignore_index = options.ignore_index, .reduction = options.reduction});
}

std::int64_t count_labels(const Tensor& labels, std::int64_t ignore_index) {
  check(labels.rank() == 2 && labels.dtype() == DType::i64, "count_labels", "labels ", labels.dtype(), " ",
        labels.shape(), ": expected i64 (batch, T)");
  const Tensor ignored = scalar(static_cast<double>(ignore_index), {DType::i64, Device::cpu()});
  return static_cast<std::int64_t>(sum(cast(not_equal(slice(labels, 1, 1), ignored), DType::i64)).item());
}

double perplexity(const Tensor& mean_loss) { return std::exp(mean_loss.item()); }

}  // namespace stet::nn
