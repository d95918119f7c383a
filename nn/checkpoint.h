// Activation recomputation (Chen et al. 2016, "Training deep nets with sublinear memory cost").
#pragma once

#include <functional>

#include <stet/nn/module.h>

namespace stet::nn {

/// run(x) of which x alone is kept: backward calls `run` again and differentiates that. `block` is the module whose
/// parameters and buffers `run` uses; gradients go to x and to its trainable parameters. Dropout repeats its draws, in
/// the mode of the forward pass, so the gradients have the bits that they have without recomputation. An Error in
/// backward where the block has ended, or its parameters were written or adapters switched since the forward pass;
/// second derivatives and recorded steps are one, too.
Tensor checkpoint(Module& block, const std::function<Tensor(const Tensor&)>& run, const Tensor& x);

}  // namespace stet::nn
