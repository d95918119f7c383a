// Losses over sequences of tokens.
#pragma once

#include <stet/nn/losses.h>

namespace stet::nn {

struct SequenceLossOptions {
  std::int64_t ignore_index = -100;       ///< positions with this label count for nothing
  Reduction reduction = Reduction::mean;  ///< mean over the labels that count; sum to add up micro-batches
};

/// Cross-entropy of each position's prediction of the next label: logits (batch, T, vocabulary), labels (batch, T)
/// i64, where position t predicts label t + 1 -> a scalar, or (batch, T - 1) without reduction, in nats.
Tensor next_token_loss(const Tensor& logits, const Tensor& labels, SequenceLossOptions options = {});

/// Labels that the loss counts: those after the first position that are not ignored. What a sum over micro-batches
/// is divided by.
std::int64_t count_labels(const Tensor& labels, std::int64_t ignore_index = -100);

/// exp of a mean loss in nats per token.
double perplexity(const Tensor& mean_loss);

}  // namespace stet::nn
