// What changed inside a model: weights, activations, gradients, and what attention looks at.
#pragma once

#include <string_view>
#include <vector>

#include <stet/nn/module.h>

namespace stet::continual {

/// Relative change of the weights whose name matches a glob (Module::freeze), taken together as one vector:
/// ||after - before|| / ||before||, norms in f64. What is not floating is left out: the generators of Dropout are no
/// weights. An Error where no weight matches, one of `before` is missing in `after` or has another shape there, or the
/// weights before are all 0.
double weight_drift(const nn::State& before, const nn::State& after, std::string_view glob = "*");

/// Linear centred kernel alignment of two representations of the same n examples (Kornblith et al. 2019, eq. 4 with
/// linear kernels): x (n, p), y (n, q), with each column's mean taken off,
///     ||y^T x||^2 / (||x^T x|| ||y^T y||),   Frobenius norms, in f64.
/// 1: equal up to a rotation and a scale; 0: every feature of one is uncorrelated with every one of the other. An Error
/// for other shapes, fewer than two examples, or a representation that is not finite or the same for all of them.
double linear_cka(const Tensor& x, const Tensor& y);

/// Cosine of two gradients, each given in the same pieces (one tensor a parameter), taken together as one vector:
/// a . b / (||a|| ||b||), in f64. Negative: a small step down one loss goes up the other. A piece that is undefined
/// counts as 0; NaN where one of the gradients is 0. An Error where the numbers of pieces or their shapes differ.
double gradient_cosine(const std::vector<Tensor>& a, const std::vector<Tensor>& b);

/// How widely each head looks: probabilities p (batch, heads, T, S) -> (heads,) f64, the entropy -sum_j p_ij log p_ij
/// in nats, mean over batch and queries i. From 0 (one key) to log S (all alike).
Tensor attention_entropy(const Tensor& probabilities);
/// How far back each head looks: -> (heads,) f64, sum_j p_ij |i + S - T - j| in tokens, mean over batch and queries.
/// The last query stands at the last key, as in AttentionOptions::causal.
Tensor attention_distance(const Tensor& probabilities);

}  // namespace stet::continual
