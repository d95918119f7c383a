// Attention: checks, the kernels' job, and the derivative, which is a kernel too until it has to be differentiated
// again.
#include <stet/autograd/attention.h>

#include <cmath>
#include <limits>
#include <memory>

#include <stet/autograd/node.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

constexpr std::string_view kName = "attention";

/// Options with the views that the kernels read: masks as (batch, heads, T, S) by stride 0.
struct Masks {
  Tensor keep, padding, bias;
};

struct Sizes {
  std::int64_t batch, heads, kv_heads, rows, keys, width, value_width;
};

Sizes sizes_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  const bool ranks = q.rank() == 4 && k.rank() == 4 && v.rank() == 4;
  check(ranks && k.shape()[0] == q.shape()[0] && v.shape()[0] == q.shape()[0] && k.shape()[1] == v.shape()[1] &&
            k.shape()[2] == v.shape()[2] && k.shape()[3] == q.shape()[3],
        kName, "q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(),
        ": expected (batch, heads, T, d), (batch, kv_heads, S, d), (batch, kv_heads, S, dv)");
  check(k.shape()[1] > 0 && q.shape()[1] % k.shape()[1] == 0, kName, "q ", q.shape(), ", k ", k.shape(), ": ",
        q.shape()[1], " heads must be a multiple of ", k.shape()[1]);
  check(q.shape()[3] > 0 && v.shape()[3] > 0, kName, "q ", q.shape(), ", v ", v.shape(), ": heads without features");
  return {q.shape()[0], q.shape()[1], k.shape()[1], q.shape()[2], k.shape()[2], q.shape()[3], v.shape()[3]};
}

Masks masks_of(const Sizes& n, const Tensor& q, const AttentionOptions& options) {
  const Shape full{n.batch, n.heads, n.rows, n.keys};
  Masks masks;
  if (const Tensor& mask = options.mask; mask.defined()) {
    compute::check_same_device(kName, q, mask);
    check(mask.dtype() == DType::boolean || is_floating(mask.dtype()), kName, "mask holds ", mask.dtype(),
          ", expected bool or a floating dtype");
    check(mask.rank() <= 4 && broadcast(kName, mask.shape(), full) == full, kName, "mask ", mask.shape(),
          " does not broadcast to (batch, heads, T, S) = ", full);
    const bool keeps = mask.dtype() == DType::boolean;
    (keeps ? masks.keep : masks.bias) = compute::expand(kName, keeps ? mask : compute::cast(mask, q.dtype()), full);
  }
  if (const Tensor& padding = options.padding; padding.defined()) {
    compute::check_same_device(kName, q, padding);
    check(padding.dtype() == DType::boolean && padding.shape() == Shape({n.batch, n.keys}), kName, "padding ",
          padding.dtype(), " ", padding.shape(), ": expected bool (batch, S) = ", Shape{n.batch, n.keys});
    const Tensor view = make_view(padding, {n.batch, 1, 1, n.keys}, {padding.strides()[0], 0, 0, padding.strides()[1]},
                                  padding.impl().offset);
    masks.padding = compute::expand(kName, view, full);
  }
  return masks;
}

AttentionMask mask_job(const Tensor& mask) {
  AttentionMask job;
  if (!mask.defined()) return job;
  job.data = mask.raw();
  for (int i = 0; i < 4; ++i) job.stride[i] = mask.strides()[i];
  return job;
}

/// The kernels want an element's neighbours along the width next to it.
Tensor dense_rows(const Tensor& x) { return x.strides()[3] == 1 || x.numel() == 0 ? x : compute::contiguous(x); }

Attention::Operand operand(const Tensor& x) {
  return {x.raw_mutable(), {x.strides()[0], x.strides()[1], x.strides()[2]}};
}

/// (batch, heads, rows, width) that lies in memory as (batch, rows, heads, width).
Tensor heads_side_by_side(std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t width,
                          Options options) {
  const Tensor memory = empty({batch, rows, heads, width}, options);
  return make_view(memory, {batch, heads, rows, width}, {rows * heads * width, width, heads * width, 1}, 0);
}

double scale_of(const AttentionOptions& options, std::int64_t width) {
  return options.scale.value_or(1 / std::sqrt(static_cast<double>(width)));
}

Attention job_of(const Sizes& n, const Tensor& q, const Tensor& k, const Tensor& v, const Masks& masks,
                 const AttentionOptions& options) {
  Attention job{};
  job.dtype = q.dtype();
  job.batch = n.batch;
  job.heads = n.heads;
  job.kv_heads = n.kv_heads;
  job.rows = n.rows;
  job.keys = n.keys;
  job.width = n.width;
  job.value_width = n.value_width;
  job.scale = scale_of(options, n.width);
  job.causal = options.causal;
  job.window = options.window;
  job.keep[0] = mask_job(masks.keep);
  job.keep[1] = mask_job(masks.padding);
  job.bias = mask_job(masks.bias);
  job.dropout = options.dropout;
  job.q = operand(q);
  job.k = operand(k);
  job.v = operand(v);
  return job;
}

/// k or v with each head repeated for the heads of q that share it.
Tensor repeated(const Tensor& x, std::int64_t heads) {
  const Shape& s = x.shape();
  if (s[1] == heads) return x;
  return reshape(expand(unsqueeze(x, 2), {s[0], s[1], heads / s[1], s[2], s[3]}), {s[0], heads, s[2], s[3]});
}

/// softmax(scale q k^T + mask) with zeros where nothing is seen; differentiable, mask included.
Tensor probabilities(const Tensor& q, const Tensor& k, const AttentionOptions& options) {
  const std::int64_t rows = q.shape()[2], keys = k.shape()[2];
  Tensor s = matmul(q, transpose(k)) * scale_of(options, q.shape()[3]), kept;
  const auto keep = [&](const Tensor& mask) {
    const Tensor factor = cast(mask, q.dtype());
    kept = kept.defined() ? kept * factor : factor;
  };
  if (options.causal || options.window) {
    const Options number{DType::i64, q.device()};
    const Tensor key = arange(keys, number),
                 own = unsqueeze(arange(rows, number) + static_cast<double>(keys - rows), 1);
    if (options.causal) keep(own >= key);
    if (options.window) keep(own - static_cast<double>(options.window) < key);
  }
  if (options.padding.defined()) keep(reshape(options.padding, {q.shape()[0], 1, 1, keys}));
  if (options.mask.defined() && options.mask.dtype() == DType::boolean) keep(options.mask);
  if (options.mask.defined() && options.mask.dtype() != DType::boolean) {
    const Tensor bias = cast(options.mask, q.dtype());
    const Tensor finite = bias.detach() > -std::numeric_limits<double>::infinity();
    keep(finite);
    s = s + where(finite, bias, bias.detach() * 0.0);
  }
  if (!kept.defined()) return softmax(s);
  return softmax(where(kept > 0.0, s, scalar(-1e30, {q.dtype(), Device::cpu()}))) * kept;
}

struct AttentionDerivative {
  static constexpr std::string_view name = kName;
  Saved q, k, v, mask, padding;
  Tensor log_sum;
  AttentionOptions options;
  std::shared_ptr<RandomKey> key;  // of the dropout; a recorded step draws a new one for each replay

  void operator()(Backward& pass) const {
    const Tensor &q_ = pass.get(q), &k_ = pass.get(k), &v_ = pass.get(v);
    for (const Saved* read : {&mask, &padding})
      if (read->defined()) pass.get(*read);  // notices in-place writes
    if (grad_enabled()) return composed(pass, q_, k_, v_);
    const Sizes n = sizes_of(q_, k_, v_);
    const Masks masks = masks_of(n, q_, options);
    const Tensor qd = dense_rows(q_), kd = dense_rows(k_), vd = dense_rows(v_), g = dense_rows(pass.grad());
    const bool to_q = pass.needs(0), to_kv = pass.needs(1) || pass.needs(2);
    const auto [dq, dk, dv] =
        to_q && to_kv && lie_side_by_side(q_, k_, v_)
            ? side_by_side(q_, k_, v_)
            : std::array{to_q ? like(q_) : Tensor(), to_kv ? like(k_) : Tensor(), to_kv ? like(v_) : Tensor()};
    Attention job = job_of(n, qd, kd, vd, masks, options);
    const Tensor delta = empty({n.batch, n.heads, n.rows}, q_.options());
    job.out = operand(pass.output());
    job.log_sum = log_sum.raw_mutable();
    job.delta = delta.raw_mutable();
    job.g = operand(g);
    if (dq.defined()) job.dq = operand(dq);
    if (to_kv) {
      job.dk = operand(dk);
      job.dv = operand(dv);
    }
    if (n.batch * n.heads > 0 && n.rows + n.keys > 0) launch(q_.device(), job);
    if (pass.needs(0)) pass.give(0, dq);
    if (pass.needs(1)) pass.give(1, dk);
    if (pass.needs(2)) pass.give(2, dv);
  }

  /// Whether q, k and v are the heads of one (batch, rows, all heads, width), one after the other.
  static bool lie_side_by_side(const Tensor& q, const Tensor& k, const Tensor& v) {
    const std::int64_t rows = q.shape()[2], width = q.shape()[3], stride = q.strides()[2];
    const auto follows = [&](const Tensor& x, const Tensor& before) {
      return x.impl().storage.get() == q.impl().storage.get() && x.strides() == q.strides() &&
             x.impl().offset == before.impl().offset + before.shape()[1] * width;
    };
    return k.shape()[2] == rows && v.shape()[3] == width && stride == (q.shape()[1] + 2 * k.shape()[1]) * width &&
           q.strides() == Strides{rows * stride, width, stride, 1} && follows(k, q) && follows(v, k);
  }
  /// Gradients that lie as these do, so that the split has nothing to gather.
  static std::array<Tensor, 3> side_by_side(const Tensor& q, const Tensor& k, const Tensor& v) {
    const std::int64_t width = q.shape()[3], kv_width = k.shape()[1] * width;
    const Tensor all = empty({q.shape()[0], q.shape()[2], q.strides()[2] / width, width}, q.options());
    const std::int64_t to_k = q.shape()[1] * width;
    return {make_view(all, q.shape(), q.strides(), 0), make_view(all, k.shape(), k.strides(), to_k),
            make_view(all, v.shape(), v.strides(), to_k + kv_width)};
  }
  /// A gradient's memory: contiguous where the operand is, which may be a leaf.
  static Tensor like(const Tensor& x) {
    if (x.is_contiguous()) return empty(x.shape(), x.options());
    return heads_side_by_side(x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3], x.options());
  }

  void launch(Device device, const Attention& job) const {
    if (!key) return kernels(device).attention_grad(job);
    each_replay(device, [job, device, key = key] {
      Attention now = job;
      now.key = *key;
      kernels(device).attention_grad(now);
    });
  }

  /// dS = P (dP - sum(P dP)) with dP = g v^T, from the matrix P, so that it can be differentiated again.
  void composed(Backward& pass, const Tensor& q_, const Tensor& k_, const Tensor& v_) const {
    const std::int64_t heads = q_.shape()[1];
    const double scale = scale_of(options, q_.shape()[3]);
    const Tensor kr = repeated(k_, heads), vr = repeated(v_, heads), p = probabilities(q_, kr, options);
    Tensor dp = matmul(pass.grad(), transpose(vr)), seen = p;
    if (key) {
      Generator again;
      again.set_state({key->seed, key->draw});
      const Tensor factor = bernoulli(p.shape(), 1 - options.dropout, again, p.options()) * (1 / (1 - options.dropout));
      dp = dp * factor;
      seen = p * factor;
    }
    const Tensor ds = p * (dp - sum(p * dp, {-1}, true)) * scale;
    if (pass.needs(0)) pass.give(0, matmul(ds, kr));
    if (pass.needs(1)) pass.give(1, joined(matmul(transpose(ds), q_), k_.shape()));
    if (pass.needs(2)) pass.give(2, joined(matmul(transpose(seen), pass.grad()), v_.shape()));
  }
  /// Undoes repeated().
  static Tensor joined(const Tensor& g, const Shape& s) {
    return g.shape() == s ? g : sum(reshape(g, {s[0], s[1], g.shape()[1] / s[1], s[2], s[3]}), {2});
  }
};

void check_options(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  check(q.dtype() == k.dtype() && q.dtype() == v.dtype() && is_floating(q.dtype()), kName, "q holds ", q.dtype(),
        ", k ", k.dtype(), ", v ", v.dtype(), ": expected one floating dtype");
  compute::check_same_device(kName, q, k);
  compute::check_same_device(kName, q, v);
  check(options.dropout >= 0 && options.dropout < 1, kName, "dropout ", options.dropout, ": expected 0 to below 1");
  check(options.window >= 0, kName, "window ", options.window, ": expected a number of keys, or 0");
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved, bool inverse);

struct RotaryDerivative {
  static constexpr std::string_view name = "rotary";
  Tensor cos, sin;
  bool interleaved, inverse;
  /// The operation is a rotation: its transpose turns back.
  void operator()(Backward& pass) const { pass.give(0, rotate(pass.grad(), cos, sin, interleaved, !inverse)); }
};

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved, bool inverse) {
  return record(compute::rotary(x, cos, sin, interleaved, inverse), {&x}, [&] {
    return RotaryDerivative{cos, sin, interleaved, inverse};
  });
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const Sizes n = sizes_of(q, k, v);
  check_options(q, k, v, options);
  if (q.dtype() == DType::bf16)
    return cast(attention(cast(q, DType::f32), cast(k, DType::f32), cast(v, DType::f32), options), DType::bf16);
  const Masks masks = masks_of(n, q, options);
  if (tracked(options.mask)) {
    check(options.dropout == 0, kName, "dropout beside a mask that asks for a gradient");
    return attention_composed(q, k, v, options);
  }
  const bool keep = records({&q, &k, &v});
  const Tensor qd = dense_rows(q), kd = dense_rows(k), vd = dense_rows(v);
  Tensor out = heads_side_by_side(n.batch, n.heads, n.rows, n.value_width, q.options()), log_sum;
  if (keep) log_sum = empty({n.batch, n.heads, n.rows}, q.options());
  Attention job = job_of(n, qd, kd, vd, masks, options);
  job.out = operand(out);
  job.log_sum = keep ? log_sum.raw_mutable() : nullptr;
  const auto key = options.dropout > 0 ? std::make_shared<RandomKey>() : nullptr;
  const auto launch = [device = q.device()](const Attention& now) {
    if (now.batch * now.heads * now.rows > 0) kernels(device).attention(now);
  };
  if (!key) launch(job);
  else
    each_replay(q.device(), [=, generator = options.generator ? options.generator : &default_generator()] {
      Attention now = job;
      now.key = *key = generator->next();
      launch(now);
    });
  AttentionOptions kept = options;
  kept.generator = nullptr;
  return record(
      std::move(out), {&q, &k, &v},
      [&] {
        return AttentionDerivative{
            Saved(q, 0), Saved(k, 1), Saved(v, 2), Saved(options.mask, 3), Saved(options.padding, 4),
            log_sum,     kept,        key};
      },
      Keep::output);
}

Tensor attention_probabilities(const Tensor& q, const Tensor& k, const AttentionOptions& options) {
  const Sizes n = sizes_of(q, k, k);
  check_options(q, k, k, options);
  static_cast<void>(masks_of(n, q, options));
  return probabilities(q, repeated(k, n.heads), options);
}

Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const Sizes n = sizes_of(q, k, v);
  check_options(q, k, v, options);
  static_cast<void>(masks_of(n, q, options));
  check(options.dropout == 0, "attention_composed", "has no dropout, got ", options.dropout);
  return matmul(probabilities(q, repeated(k, n.heads), options), repeated(v, n.heads));
}

std::vector<double> rotary_frequencies(std::int64_t width, double base) {
  check(width >= 2 && width % 2 == 0, "rotary_frequencies", "width ", width, ": expected an even number");
  std::vector<double> out;
  for (std::int64_t i = 0; i < width / 2; ++i)
    out.push_back(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width)));
  return out;
}

RotaryTable rotary_table(std::int64_t first, std::int64_t count, const std::vector<double>& frequencies,
                         Options options) {
  check(first >= 0 && count >= 0, "rotary_table", count, " positions from ", first);
  const std::int64_t half = std::ssize(frequencies);
  std::vector<double> cosine, sine;
  for (std::int64_t p = first; p < first + count; ++p)
    for (const double frequency : frequencies) {
      cosine.push_back(std::cos(static_cast<double>(p) * frequency));
      sine.push_back(std::sin(static_cast<double>(p) * frequency));
    }
  const auto made = [&](const std::vector<double>& values) {
    return to(cast(tensor(values, {count, half}), options.dtype), options.device);
  };
  return {made(cosine), made(sine)};
}

Tensor rotary(const Tensor& x, const RotaryTable& table, bool interleaved) {
  check(x.rank() >= 2 && table.cos.rank() >= 1 && table.cos.shape() == table.sin.shape(), "rotary", "x ", x.shape(),
        ", cos ", table.cos.shape(), ", sin ", table.sin.shape());
  check(is_floating(x.dtype()), "rotary", "x holds ", x.dtype(), ": expected floating point");
  const std::int64_t half = table.cos.shape().back(), width = x.shape().back();
  check(2 * half <= width, "rotary", "x ", x.shape(), " with angles ", table.cos.shape(), ": ", 2 * half,
        " rotated features of ", width);
  if (x.dtype() == DType::bf16) return cast(rotary(cast(x, DType::f32), table, interleaved), DType::bf16);
  Shape wanted = x.shape();
  wanted[wanted.size() - 1] = half;
  const int extra = x.rank() - table.cos.rank();
  bool fits = extra >= 0;
  for (int d = 0; fits && d < table.cos.rank(); ++d)
    fits = table.cos.shape()[d] == 1 || table.cos.shape()[d] == wanted[extra + d];
  check(fits, "rotary", "angles ", table.cos.shape(), " do not broadcast to x ", x.shape());
  const auto angles = [&](const Tensor& t) { return compute::contiguous(compute::cast(t, x.dtype())); };
  return rotate(x, angles(table.cos), angles(table.sin), interleaved, false);
}

}  // namespace stet
