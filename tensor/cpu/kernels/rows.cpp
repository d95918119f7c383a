// Fused operations on rows: softmax, logsumexp, layer and RMS norm, cross-entropy from logits. A row stays in cache
// between its passes; sums follow the fixed tree of tree.h.
#include <stet/tensor/cpu/kernels/tree.h>

namespace stet::cpu::STET_ISA {
namespace {

/// body(row) for every row, several rows to a piece of work.
template <class Body> inline void for_rows(const Rows& job, const Body& body) {
  in_chunks(job.rows, kChunk / (job.n > 0 ? job.n : 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

/// log of the sum of exp(x): the maximum is taken out first. A row of -inf gives -inf, one with +inf gives
/// +inf.
template <class T> inline T row_logsumexp(const T* x, std::int64_t n) {
  const T top = max_of(x, n);
  if (!(top > -__builtin_inf() && top < __builtin_inf())) return top;
  const T sum = reduce_tree<Sum, T>(0, n, [=](std::int64_t i) { return math::exp(x[i] - top); });
  return top + math::log(sum);
}

template <class T> void softmax_rows(const Rows& job) {
  for_rows(job, [&](std::int64_t row) {
    const T* __restrict x = static_cast<const T*>(job.in[0]) + row * job.n;
    T* __restrict y = static_cast<T*>(job.out[0]) + row * job.n;
    const T top = max_of(x, job.n);
    for (std::int64_t i = 0; i < job.n; ++i) y[i] = math::exp(x[i] - top);
    const T scale = T(1) / reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return y[i]; });
    for (std::int64_t i = 0; i < job.n; ++i) y[i] = y[i] * scale;
  });
}

template <class T> void log_softmax_rows(const Rows& job) {
  for_rows(job, [&](std::int64_t row) {
    const T* __restrict x = static_cast<const T*>(job.in[0]) + row * job.n;
    T* __restrict y = static_cast<T*>(job.out[0]) + row * job.n;
    const T top = max_of(x, job.n);
    const T log_sum = math::log(reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return math::exp(x[i] - top); }));
    for (std::int64_t i = 0; i < job.n; ++i) y[i] = (x[i] - top) - log_sum;
  });
}

template <class T> void logsumexp_rows(const Rows& job) {
  T* out = static_cast<T*>(job.out[0]);
  for_rows(job, [&](std::int64_t row) {
    const T* x = static_cast<const T*>(job.in[0]) + row * job.n;
    out[row] = job.n ? row_logsumexp(x, job.n) : T(-__builtin_inf());
  });
}

template <class T> void layer_norm_rows(const Rows& job) {
  const T* weight = static_cast<const T*>(job.in[1]);
  const T* bias = static_cast<const T*>(job.in[2]);
  T *mean_out = static_cast<T*>(job.out[1]), *rstd_out = static_cast<T*>(job.out[2]);
  const T eps = static_cast<T>(job.scalar[0]), over_n = T(1) / static_cast<T>(job.n);
  for_rows(job, [&](std::int64_t row) {
    const T* __restrict x = static_cast<const T*>(job.in[0]) + row * job.n;
    T* __restrict y = static_cast<T*>(job.out[0]) + row * job.n;
    const T mean = reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return x[i]; }) * over_n;
    const T variance =
        reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return (x[i] - mean) * (x[i] - mean); }) * over_n;
    const T rstd = T(1) / math::sqrt(variance + eps);
    if (weight && bias) {
      for (std::int64_t i = 0; i < job.n; ++i) y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
    } else {
      for (std::int64_t i = 0; i < job.n; ++i) y[i] = (x[i] - mean) * rstd;
      for (std::int64_t i = 0; weight && i < job.n; ++i) y[i] = y[i] * weight[i];
      for (std::int64_t i = 0; bias && i < job.n; ++i) y[i] = y[i] + bias[i];
    }
    if (mean_out) {
      mean_out[row] = mean;
      rstd_out[row] = rstd;
    }
  });
}

template <class T> void rms_norm_rows(const Rows& job) {
  const T* weight = static_cast<const T*>(job.in[1]);
  T* rstd_out = static_cast<T*>(job.out[1]);
  const T eps = static_cast<T>(job.scalar[0]), over_n = T(1) / static_cast<T>(job.n);
  for_rows(job, [&](std::int64_t row) {
    const T* __restrict x = static_cast<const T*>(job.in[0]) + row * job.n;
    T* __restrict y = static_cast<T*>(job.out[0]) + row * job.n;
    const T square = reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return x[i] * x[i]; }) * over_n;
    const T rstd = T(1) / math::sqrt(square + eps);
    for (std::int64_t i = 0; i < job.n; ++i) y[i] = x[i] * rstd;
    if (weight)
      for (std::int64_t i = 0; i < job.n; ++i) y[i] = y[i] * weight[i];
    if (rstd_out) rstd_out[row] = rstd;
  });
}

/// The gradients of weight and bias, which add up over the rows: each piece of rows has sums of its own, and they are
/// joined in pairs, so that the order depends on the shape alone.
template <class T> struct ColumnSums {
  std::int64_t pieces, n;
  T* at;  // (pieces, n), or null where nobody asks; one piece stands in the result itself

  ColumnSums(void* result, std::int64_t count, std::int64_t width)
      : pieces(count), n(width), out_(static_cast<T*>(result)) {
    at = out_ && pieces > 1 ? new T[static_cast<std::size_t>(pieces * n)] : out_;
  }
  ColumnSums(const ColumnSums&) = delete;
  ColumnSums& operator=(const ColumnSums&) = delete;
  ~ColumnSums() {
    if (at != out_) delete[] at;
  }
  T* piece(std::int64_t i) const {
    if (!at) return nullptr;
    for (std::int64_t c = 0; c < n; ++c) at[i * n + c] = T(0);
    return at + i * n;
  }
  void join() {
    if (at == out_) return;
    for (std::int64_t step = 1; step < pieces; step *= 2) {
      const std::int64_t pairs = (pieces + step - 1) / (2 * step);
      in_chunks(pairs, kChunk / n + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t pair = begin; pair < end; ++pair) {
          T* __restrict to = at + 2 * step * pair * n;
          const T* __restrict from = to + step * n;
          for (std::int64_t c = 0; c < n; ++c) to[c] = to[c] + from[c];
        }
      });
    }
    for (std::int64_t c = 0; c < n; ++c) out_[c] = at[c];
  }

 private:
  T* out_;
};

/// One row of norm_grad_rows; dw and db gather what it adds to the gradients of weight and bias. `gw` is scratch.
template <class T, bool centred> inline void norm_grad_row(std::int64_t n, const T* __restrict g, const T* __restrict x,
                                                           const T* __restrict weight, T mean, T rstd, T* __restrict dx,
                                                           bool add, T* __restrict gw, T* __restrict dw,
                                                           T* __restrict db) {
  const auto normalized = [=](std::int64_t i) { return centred ? (x[i] - mean) * rstd : x[i] * rstd; };
  if (dw)
    for (std::int64_t i = 0; i < n; ++i) dw[i] = dw[i] + g[i] * normalized(i);
  if (db)
    for (std::int64_t i = 0; i < n; ++i) db[i] = db[i] + g[i];
  if (!dx) return;
  const T over_n = T(1) / static_cast<T>(n);
  for (std::int64_t i = 0; i < n; ++i) gw[i] = weight ? g[i] * weight[i] : g[i];
  T a = T(0);
  if constexpr (centred) a = reduce_tree<Sum, T>(0, n, [=](std::int64_t i) { return gw[i]; }) * over_n;
  const T b = reduce_tree<Sum, T>(0, n, [=](std::int64_t i) { return gw[i] * normalized(i); }) * over_n;
  const auto value = [=](std::int64_t i) { return rstd * ((centred ? gw[i] - a : gw[i]) - normalized(i) * b); };
  if (add)
    for (std::int64_t i = 0; i < n; ++i) dx[i] = dx[i] + value(i);
  else
    for (std::int64_t i = 0; i < n; ++i) dx[i] = value(i);
}

/// dx = rstd (gw - mean(gw) - xhat mean(gw xhat)) with gw = g * weight, without mean(gw) for RMS norm;
/// dweight = sum g xhat and dbias = sum g over the rows. Where asked to, dx is added to what is there.
template <class T, bool centred> void norm_grad_rows(const Rows& job) {
  const T *g = static_cast<const T*>(job.in[0]), *x = static_cast<const T*>(job.in[1]);
  const T* weight = static_cast<const T*>(job.in[2]);
  const T *means = static_cast<const T*>(job.in[3]), *rstds = static_cast<const T*>(job.in[4]);
  T* dx = static_cast<T*>(job.out[0]);
  const std::int64_t few = kChunk / (job.n > 0 ? job.n : 1), rows = few < 8 ? 8 : few > 64 ? 64 : few;
  const std::int64_t pieces = (job.rows + rows - 1) / rows;
  ColumnSums<T> dw(job.out[1], pieces, job.n), db(job.out[2], pieces, job.n);
  in_chunks(pieces, kChunk / (rows * job.n) + 1, [&](std::int64_t begin, std::int64_t end) {
    T* const gw = new T[static_cast<std::size_t>(job.n)];
    for (std::int64_t piece = begin; piece < end; ++piece) {
      T *const dw_piece = dw.piece(piece), *const db_piece = db.piece(piece);
      const std::int64_t last = (piece + 1) * rows < job.rows ? (piece + 1) * rows : job.rows;
      for (std::int64_t row = piece * rows; row < last; ++row)
        norm_grad_row<T, centred>(job.n, g + row * job.n, x + row * job.n, weight, centred ? means[row] : T(0),
                                  rstds[row], dx ? dx + row * job.n : nullptr, job.scalar[0] != 0, gw, dw_piece,
                                  db_piece);
    }
    delete[] gw;
  });
  dw.join();
  db.join();
}

template <class T> void norm_grad(const Rows& job) {
  if (job.in[3]) norm_grad_rows<T, true>(job);
  else norm_grad_rows<T, false>(job);
}

/// loss = (1 - s) w_t (lse - x_t) + s / n sum_c w_c (lse - x_c); 0 for an ignored row. The largest logit is
/// taken out of lse and x apart, since their difference would round to the size of the logits.
template <class T> void cross_entropy_rows(const Rows& job) {
  const auto* target = static_cast<const std::int64_t*>(job.in[1]);
  const T* weight = static_cast<const T*>(job.in[2]);
  T *loss = static_cast<T*>(job.out[0]), *log_sum_out = static_cast<T*>(job.out[1]);
  const T smoothing = static_cast<T>(job.scalar[0]);
  for_rows(job, [&](std::int64_t row) {
    const T* x = static_cast<const T*>(job.in[0]) + row * job.n;
    const T top = max_of(x, job.n);
    const T log_sum = math::log(reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return math::exp(x[i] - top); }));
    log_sum_out[row] = log_sum;
    log_sum_out[job.rows + row] = top;
    const std::int64_t t = target[row];
    if (t == job.ignore) {
      loss[row] = T(0);
      return;
    }
    T value = (weight ? weight[t] : T(1)) * (log_sum - (x[t] - top));
    if (smoothing != T(0)) {
      const T spread = reduce_tree<Sum, T>(
          0, job.n, [=](std::int64_t i) { return (weight ? weight[i] : T(1)) * (log_sum - (x[i] - top)); });
      value = (T(1) - smoothing) * value + smoothing / static_cast<T>(job.n) * spread;
    }
    loss[row] = value;
  });
}

template <class T> void cross_entropy_grad_rows(const Rows& job) {
  const auto* target = static_cast<const std::int64_t*>(job.in[1]);
  const T* weight = static_cast<const T*>(job.in[2]);
  const T *log_sums = static_cast<const T*>(job.in[3]), *g = static_cast<const T*>(job.in[4]);
  const T smoothing = static_cast<T>(job.scalar[0]), spread = smoothing / static_cast<T>(job.n);
  T weight_sum = static_cast<T>(job.n);
  if (weight) weight_sum = reduce_tree<Sum, T>(0, job.n, [=](std::int64_t i) { return weight[i]; });
  for_rows(job, [&](std::int64_t row) {
    const T* __restrict x = static_cast<const T*>(job.in[0]) + row * job.n;
    T* __restrict dx = static_cast<T*>(job.out[0]) + row * job.n;
    const std::int64_t t = target[row];
    if (t == job.ignore) {
      for (std::int64_t i = 0; i < job.n; ++i) dx[i] = T(0);
      return;
    }
    const T hit = (T(1) - smoothing) * (weight ? weight[t] : T(1)), seed = g[row];
    const T top = log_sums[job.rows + row], log_sum = log_sums[row], total = hit + spread * weight_sum;
    // The difference first, then the seed: p - hit is where the digits are.
    const auto fill = [=, n = job.n](const auto& weight_of) {
      const auto rest = [=](std::int64_t i) {
        return total * math::exp((x[i] - top) - log_sum) - spread * weight_of(i);
      };
      const T at_target = seed * (rest(t) - hit);
      for (std::int64_t i = 0; i < n; ++i) dx[i] = seed * rest(i);
      dx[t] = at_target;
    };
    if (weight) fill([=](std::int64_t i) { return weight[i]; });
    else fill([](std::int64_t) { return T(1); });
  });
}

template <class T> inline void rotate_row(const Rotary& job, const T* __restrict x, const T* __restrict cos,
                                          const T* __restrict sin, T* __restrict out) {
  const std::int64_t half = job.half;
  const T sign = job.inverse ? T(-1) : T(1);
  if (job.interleaved) {  // two loops: of a difference beside a sum GCC 12 makes vfmaddsub, contraction off or not
    for (std::int64_t i = 0; i < half; ++i) out[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * (sin[i] * sign);
    for (std::int64_t i = 0; i < half; ++i) out[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * (sin[i] * sign);
  } else {
    for (std::int64_t i = 0; i < half; ++i) {
      const T a = x[i], b = x[half + i], turn = sin[i] * sign;
      out[i] = a * cos[i] - b * turn;
      out[half + i] = b * cos[i] + a * turn;
    }
  }
  for (std::int64_t i = 2 * half; i < job.width; ++i) out[i] = x[i];
}

template <class T> void rotary_rows(const Rotary& job) {
  const T *x = static_cast<const T*>(job.x), *cos = static_cast<const T*>(job.cos),
          *sin = static_cast<const T*>(job.sin);
  in_chunks(job.rows, kChunk / job.width + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row, at = 0, angle = 0;
      for (int d = job.rank - 1; d >= 0; --d) {
        at += rest % job.size[d] * job.stride[d];
        angle += rest % job.size[d] * job.angle_stride[d];
        rest /= job.size[d];
      }
      rotate_row(job, x + at, cos + angle, sin + angle, static_cast<T*>(job.out) + row * job.width);
    }
  });
}

}  // namespace

void fill_rows(Kernels& table) {
  table.softmax = either<softmax_rows<float>, softmax_rows<double>>;
  table.log_softmax = either<log_softmax_rows<float>, log_softmax_rows<double>>;
  table.logsumexp = either<logsumexp_rows<float>, logsumexp_rows<double>>;
  table.layer_norm = either<layer_norm_rows<float>, layer_norm_rows<double>>;
  table.rms_norm = either<rms_norm_rows<float>, rms_norm_rows<double>>;
  table.norm_grad = either<norm_grad<float>, norm_grad<double>>;
  table.rotary = either<rotary_rows<float>, rotary_rows<double>>;
  table.cross_entropy = either<cross_entropy_rows<float>, cross_entropy_rows<double>>;
  table.cross_entropy_grad = either<cross_entropy_grad_rows<float>, cross_entropy_grad_rows<double>>;
}

}  // namespace stet::cpu::STET_ISA
