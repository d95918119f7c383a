// Attention and rotary positions as differentiable operations.
#pragma once

#include <optional>
#include <vector>

#include <stet/autograd/ops.h>

namespace stet {

struct AttentionOptions {
  /// Query i of T sees key j of S when j <= i + S - T: the last query sees all, as with cached keys.
  bool causal = false;
  /// Query i sees key j only when j > i + S - T - window (sliding windows: Beltagy et al. 2020; Mistral). 0: no bound.
  std::int64_t window = 0;
  /// Broadcasts to (batch, heads, T, S). bool: true where the query sees the key; floating: added to the scores,
  /// -inf hides.
  Tensor mask = {};
  Tensor padding = {};               ///< (batch, S) bool: true where there is a key, false where there is padding
  std::optional<double> scale = {};  ///< of q k^T; 1 / sqrt(d) unless given
  double dropout = 0;                ///< probability that a query does not see a key, in training
  Generator* generator = nullptr;    ///< of the dropout; the default one unless given
};

/// softmax(scale q k^T + mask) v (Vaswani et al. 2017), with memory linear in T and S: no more of the T x S matrix is
/// held than a tile, forward or backward (Dao et al. 2022). q (batch, heads, T, d), k (batch, kv_heads, S, d), v
/// (batch, kv_heads, S, dv) -> (batch, heads, T, dv); heads is a multiple of kv_heads, whose keys and values
/// heads / kv_heads neighbouring heads share (Ainslie et al. 2023). A query that sees no key gives 0. Second
/// derivatives, and the gradient of a floating mask, come from the composition, which holds the matrix. The result
/// lies in memory as (batch, T, heads, dv), so that joining the heads moves no data.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

/// The matrix that attention() never holds, softmax(scale q k^T + mask), for those who look at it: q (batch, heads, T,
/// d), k (batch, kv_heads, S, d) -> (batch, heads, T, S), without dropout. Rows add up to 1, or are 0 where no key is
/// seen.
Tensor attention_probabilities(const Tensor& q, const Tensor& k, const AttentionOptions& options = {});

/// attention() from plain operations, without dropout: the definition, and the reference of the tests.
Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

/// base^(-2 i / width) for i in [0, width / 2): how far each pair of features turns from one position to the next.
std::vector<double> rotary_frequencies(std::int64_t width, double base = 10000);

/// cos and sin of position * frequency: (positions, frequencies) each.
struct RotaryTable {
  Tensor cos, sin;
};
/// The table for positions first, ..., first + count - 1; computed in f64.
RotaryTable rotary_table(std::int64_t first, std::int64_t count, const std::vector<double>& frequencies,
                         Options options = {});

/// Rotates pairs of features by their position (Su et al. 2021, eq. 34): x (..., T, d), table (T, r / 2) or any shape
/// that broadcasts to (..., T, r / 2); the first r <= d features are rotated, the others pass. The pairs are (i, i + r
/// / 2), as in Llama's released weights, or with `interleaved` (2 i, 2 i + 1), as in the paper.
Tensor rotary(const Tensor& x, const RotaryTable& table, bool interleaved = false);

}  // namespace stet
