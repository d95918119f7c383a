// Sums of squared per-sample gradients in one backward pass: the diagonal of the Fisher information without a
// loop over samples. Axis 0 of the outputs is the batch, and samples must not mix (no batch norm in train
// mode).
#pragma once

#include <vector>

#include <stet/autograd/engine.h>

namespace stet {

/// sum_b (d losses[b] / d theta)^2 for each parameter. `losses` (batch,) are unreduced: losses[b] depends on
/// sample b alone. A parameter used several times has its gradients added before they are squared. Touches no
/// tensor's grad. An operation that consumes a parameter without a per-sample rule is refused by name, and so is one
/// whose result has no batch on axis 0, by chance of the batch's size or not.
/// Source: the identities of BackPACK's SumGradSquared (Dangel et al. 2020), extended to sequences and
/// sharing.
std::vector<Tensor> squared_gradients(const Tensor& losses, const std::vector<Tensor>& parameters,
                                      bool retain_graph = false);

/// The same for several vectors at once: sum_s sum_b (v_s[b] . d outputs[b] / d theta)^2, with each seed v_s
/// of outputs' shape (batch, ...). Linear layers take one product for all seeds together, so the exact Fisher
/// over C classes does not cost C weight gradients.
std::vector<Tensor> squared_gradients(const Tensor& outputs, const std::vector<Tensor>& seeds,
                                      const std::vector<Tensor>& parameters, bool retain_graph = false);

}  // namespace stet
