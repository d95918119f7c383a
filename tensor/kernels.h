// The device seam. A backend is one Kernels table: everything a device must provide stands on this page.
// Sizes and strides count elements; outputs are contiguous; inputs are contiguous unless a stride is given.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>

#include <stet/tensor/device.h>
#include <stet/tensor/dims.h>
#include <stet/tensor/dtype.h>
#include <stet/tensor/elementwise.h>
#include <stet/tensor/random.h>
#include <stet/tensor/updates.h>

namespace stet {

/// out[i] = op(in0[i], in1[i], ...) over a collapsed index space; stride 0 broadcasts.
struct Elementwise {
  int rank = 0;
  std::int64_t size[kMaxRank];
  std::int64_t count = 0;
  const void* in[3] = {};
  std::int64_t stride[3][kMaxRank];
  void* out = nullptr;
  unsigned host = 0;  ///< bit k: in[k] is one number in host memory, read when the job is given
};

/// One value everywhere in contiguous memory.
struct Fill {
  DType dtype;
  std::int64_t count = 0;
  double value = 0;
  void* out = nullptr;
};

/// Strided copy with conversion between element types; both sides may be strided.
struct Copy {
  DType from, to;
  int rank = 0;
  std::int64_t size[kMaxRank];
  std::int64_t count = 0;
  std::int64_t in_stride[kMaxRank], out_stride[kMaxRank];
  const void* in = nullptr;
  void* out = nullptr;
};

/// in (outer, n, inner) -> out (outer, inner), reduced over n.
struct Reduce {
  std::int64_t outer = 1, n = 1, inner = 1;
  const void* in = nullptr;
  void* out = nullptr;
};

enum class Activation : std::uint8_t { none, relu, gelu, tanh, sigmoid };

/// C = act(op(A) op(B) + bias), row-major, op = transpose where asked; with `accumulate`, C += op(A) op(B).
struct Gemm {
  DType dtype;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  std::int64_t m, n, k, lda, ldb, ldc;
  std::int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  const void *a, *b;
  void* c;
  const void* bias = nullptr;  ///< (n,)
  Activation activation = Activation::none;
  void* row_sums = nullptr;  ///< (m,): the sums of op(A) over k as well, where A is dense, k > 0 and batch 1
};

/// Row-wise work on (rows, n). The meaning of the pointers is given where a slot uses them.
struct Rows {
  DType dtype;
  std::int64_t rows, n;
  const void* in[5] = {};
  void* out[3] = {};
  double scalar[2] = {};
  std::int64_t ignore = 0;  ///< a target that counts for nothing
};

/// A mask that broadcasts over (batch, heads, rows, keys); null where there is none.
struct AttentionMask {
  const void* data = nullptr;
  std::int64_t stride[4] = {};
};

/// softmax(scale q k^T + bias) v without ever holding more of the rows x keys matrix than a tile. q, out, g and dq
/// are (batch, heads, rows, width), k and dk (batch, kv_heads, keys, width), v and dv (batch, kv_heads, keys,
/// value_width), out and g (batch, heads, rows, value_width); heads is a multiple of kv_heads. Strides are those of
/// batch, head and row; an element's neighbours along the width stand next to it. A row without keys gives 0.
struct Attention {
  struct Operand {
    void* data = nullptr;
    std::int64_t stride[3] = {};
  };
  DType dtype;
  std::int64_t batch, heads, kv_heads, rows, keys, width, value_width;
  double scale = 1;
  bool causal = false;      ///< row i sees keys up to i + keys - rows
  std::int64_t window = 0;  ///< and from window - 1 keys before that one on; 0: from the first one on
  AttentionMask keep[2];    ///< bool: where all hold, the row sees the key
  AttentionMask bias;       ///< added to the scores
  double dropout = 0;       ///< share of the probabilities that are set to zero; the others are scaled up
  RandomKey key{};          ///< of the dropout: element ((batch, head), row, key) of one draw
  Operand q, k, v, out;
  void* log_sum = nullptr;  ///< (batch, heads, rows): log of the sum of exp(scores), to a base that the device chooses;
                            ///< -inf for a row without keys
  Operand g, dq, dk, dv;    ///< for the gradient; dq, or both dk and dv, may be null
  void* delta = nullptr;    ///< (batch, heads, rows): scratch of the gradient
};

/// Pairs of features turned by angles: (a, b) -> (a cos - b sin, b cos + a sin). x is (rows, width) with rows of any
/// strides, whose elements stand next to each other, and so do the angles, (rows, half); out is contiguous. Pairs are
/// features i and i + half or, interleaved, neighbours; features from 2 half on are copied.
struct Rotary {
  DType dtype;  ///< f32 or f64
  bool interleaved = false, inverse = false;
  std::int64_t rows = 1, width, half;
  int rank = 0;  ///< of the rows
  std::int64_t size[kMaxRank], stride[kMaxRank], angle_stride[kMaxRank];
  const void *x, *cos, *sin;
  void* out;
};

/// The operation that an index out of range is complained of under. A device's kernels keep it until someone waits.
enum class Checked : unsigned {
  nothing,
  index_select,
  index_add,
  gather,
  scatter_add,
  cross_entropy,
  embedding,
  one_hot
};
constexpr std::string_view name_of(Checked op) {
  constexpr std::string_view names[] = {
      "", "index_select", "index_add", "gather", "scatter_add", "cross_entropy", "embedding", "one_hot"};
  return names[static_cast<int>(op)];
}

/// Data movement by index along one axis: a table of (outer, n, inner) elements of `size` bytes each.
struct Indexing {
  Checked op;
  DType dtype;
  std::int64_t outer, n, inner;  ///< the table
  std::int64_t count;            ///< indices along the axis (index_select), or per line (gather)
  const void* table = nullptr;
  const std::int64_t* index = nullptr;
  void* out = nullptr;
};

/// Sorts each line of (outer, n, inner) along n: values and positions; the first `k` are kept.
struct Sort {
  DType dtype;
  std::int64_t outer, n, inner, k;
  bool descending = false;
  const void* in = nullptr;
  void* values = nullptr;
  std::int64_t* indices = nullptr;
};

enum class Draw : std::uint8_t { uniform, normal, bernoulli, randint, bits };
inline constexpr int kDraws = 5;

struct Random {
  DType dtype;
  Draw draw;
  RandomKey key;
  double a = 0, b = 0;             ///< uniform [a, b), normal mean a and deviation b, bernoulli p = a
  double below = 0;                ///< uniform: the largest value; a + (b - a) u may round to b
  std::int64_t low = 0, high = 0;  ///< randint [low, high)
  std::int64_t count = 0;
  void* out = nullptr;
};

/// What a device's allocator has from the system (the driver): bytes it holds, and how often it asked.
struct SystemMemory {
  std::int64_t bytes = 0, allocations = 0;
};

struct Kernels {
  template <class Job> using Fn = void (*)(const Job&);
  template <class Ops> using Table = std::array<std::array<Fn<Elementwise>, kDTypes>, Ops::size>;

  // Folds over the lists of elementwise.h, for f32, f64 and, where an operation takes integers, i64; other
  // dtypes are converted by the caller. A null entry means that the operation does not take that dtype.
  Table<UnaryOps> unary{};
  Table<BinaryOps> binary{};
  Table<CompareOps> compare{};                    // out is bool
  std::array<Fn<Elementwise>, kDTypes> select{};  // in: condition (bool), a, b
  std::array<std::array<Fn<Reduce>, kDTypes>, ReduceOps::size> reduce{};
  std::array<std::array<Fn<Reduce>, kDTypes>, 2> arg_reduce{};  // argmax, argmin; out is i64
  std::array<Fn<Reduce>, kDTypes> cumsum{};                     // out has the shape of in

  Fn<Copy> copy = nullptr;
  Fn<Fill> fill = nullptr;
  Fn<Gemm> gemm = nullptr;
  Fn<Indexing> index_select = nullptr;  // out (outer, count, inner) = table[:, index, :]
  Fn<Indexing> index_add = nullptr;     // out (outer, n, inner) += table (outer, count, inner) at index; in order
  Fn<Indexing> gather = nullptr;        // out (outer, count, inner) = table at index of the same shape as out
  Fn<Indexing> scatter_add = nullptr;   // out (outer, n, inner) += table at index of table's shape; in order
  Fn<Sort> sort = nullptr;
  Fn<Random> random = nullptr;
  /// One step for any number of tensors; jobs[i].dtype and options may differ.
  std::array<void (*)(const Update* jobs, std::int64_t count), UpdateRules::size> update{};
  /// out[0] = the sum over all jobs, one f64: what clipping by norm needs.
  void (*sum_of_squares)(const Squares* jobs, std::int64_t count, double* out) = nullptr;

  // Fused operations that a profile has justified.
  Fn<Rows> softmax = nullptr;      // in x; out y
  Fn<Rows> log_softmax = nullptr;  // in x; out y
  Fn<Rows> logsumexp = nullptr;    // in x; out (rows,)
  Fn<Rows> layer_norm = nullptr;   // in x, weight?, bias?; scalar eps; out y, mean?, rstd?
  Fn<Rows> rms_norm = nullptr;     // in x, weight?; scalar eps; out y, rstd?
  /// Of either (no mean: RMS). In g, x, weight?, mean?, rstd; scalar 1: dx is added; out dx?, dweight?, dbias?
  Fn<Rows> norm_grad = nullptr;
  /// In x, target (i64), weight?; scalar smoothing; out loss, and (2, rows): lse - max x, max x.
  Fn<Rows> cross_entropy = nullptr;
  Fn<Rows> cross_entropy_grad = nullptr;  // in x, target, weight?, the (2, rows), g (rows,); same scalar; out dx
  Fn<Rotary> rotary = nullptr;
  Fn<Attention> attention = nullptr;       // q, k, v -> out, log_sum?
  Fn<Attention> attention_grad = nullptr;  // q, k, v, out, log_sum, g -> dq?, dk and dv?; delta is scratch

  // Memory. alloc returns null when there is none left.
  void* (*alloc)(std::int64_t bytes) = nullptr;
  void (*free)(void* data, std::int64_t bytes) noexcept = nullptr;
  void (*release)() = nullptr;  // cached blocks go back to the system
  void (*set_limit)(std::int64_t bytes) = nullptr;
  SystemMemory (*system_memory)() = nullptr;

  // Between host memory and the device's; download waits until the bytes are there.
  void (*upload)(void* device, const void* host, std::int64_t bytes) = nullptr;
  void (*download)(void* host, const void* device, std::int64_t bytes) = nullptr;
  /// Waits for everything that was started; an Error if any of it failed.
  void (*sync)() = nullptr;

  // Recorded steps. A device that has none leaves both null.
  bool (*recording)() = nullptr;
  void (*each_replay)(std::function<void()> work) = nullptr;
};

/// The table of a device; an Error when this build or machine has no such device.
const Kernels& kernels(Device device);
/// The CUDA backend's, defined in cuda/.
const Kernels& cuda_kernels(int index);

/// Whether work on that device is being recorded now, to be replayed later.
inline bool recording(Device device) {
  const auto asks = kernels(device).recording;
  return asks && asks();
}

/// Does `work`, whose kernel arguments depend on counters of the host: a schedule, a generator. In a recorded step
/// it is done again before each replay, where its launches give those recorded their new arguments; so it must
/// launch the same kernels every time, and what it refers to must outlive the recording.
template <class Work> void each_replay(Device device, const Work& work) {
  if (const auto slot = kernels(device).each_replay) slot(work);
  else work();
}

}  // namespace stet
