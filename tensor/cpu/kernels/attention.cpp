// Attention by tiles (Dao et al. 2022, "FlashAttention"): a block of rows meets one block of keys after another and
// keeps, for each row, the largest score so far and the sum of exponentials relative to it. The gradient computes the
// probabilities again from the scores and the logarithm of that sum. Every output element is written by one piece of
// work, whose order of sums depends on the shape alone.
#include <stet/tensor/cpu/kernels/attention_tiles.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kBlocks = 4;  // of rows that share a turned block of keys

/// The rows of a piece of work: each has its largest score so far and the sum of exponentials relative to it.
template <class T> struct Running { T top[kRows * kBlocks], sum[kRows * kBlocks]; };

/// One block of rows meets one block of keys: out and its running sums take in what the keys add. Without `more` there
/// is nothing in out yet.
template <class T>
void step(const Attention& job, const Block& at, Turned<T>& k, T* s, T* top, T* sum, T* out, bool more) {
  const T none = T(-__builtin_inf());
  const std::int64_t ldo = job.out.stride[2], kv_head = at.head / (job.heads / job.kv_heads);
  T high[kRows], past[kRows];
  scores(job, at, k, s);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T here = keys ? largest(s + i * kKeys, keys) : none;
    high[i] = here > top[i] ? here : top[i];
  }
  for (std::int64_t i = 0; i < at.rows; ++i) past[i] = high[i] == top[i] ? T(1) : probability(top[i] - high[i]);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* __restrict line = s + i * kKeys;
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T shift = high[i] == none ? T(0) : high[i];
    for_vectors(keys, [=](std::int64_t j) { line[j] = probability(line[j] - shift); });
    for_vectors(most(0, at.keys - keys), [=](std::int64_t j) { line[keys + j] = T(0); });
  }
  for (std::int64_t i = 0; i < at.rows; ++i) {
    const std::int64_t keys = whole(seen_by(job, at, i));
    const T* line = s + i * kKeys;
    if (keys) sum[i] = sum[i] * past[i] + total(line, keys);
    if (more && past[i] != T(1))
      for (std::int64_t c = 0; c < job.value_width; ++c) out[i * ldo + c] *= past[i];
    top[i] = high[i];
  }
  if (job.dropout > 0) drop(job, at, s);
  times_keys(job, at, more, s, start<T>(job.v, at.batch, kv_head, at.key), job.v.stride[2], job.value_width, out, ldo);
}

/// `count` rows of the result, at most kRows * kBlocks.
template <class T>
void forward(const Attention& job, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t count) {
  const T none = T(-__builtin_inf());
  alignas(64) T s[kRows * kKeys];
  Turned<T> k;
  Running<T> running;
  T* out = start<T>(job.out, batch, head, row);
  const std::int64_t ldo = job.out.stride[2], kv_head = head / (job.heads / job.kv_heads);
  for (std::int64_t i = 0; i < count; ++i) {
    running.top[i] = none;
    running.sum[i] = T(0);
  }
  const bool written = all_start(job, row);
  if (!written) clear(out, count, job.value_width, ldo);
  const std::int64_t seen = keys_seen(job, row + count - 1);
  for (std::int64_t key = first_seen(job, row) / kKeys * kKeys; key < seen; key += kKeys) {
    k.set(start<T>(job.k, batch, kv_head, key), least(kKeys, seen - key), job.width, job.k.stride[2],
          static_cast<T>(job.scale) * kUnits<T>);
    for_blocks(job, {batch, head, row, 0, key, k.keys}, count, [&](const Block& at, std::int64_t i) {
      step(job, at, k, s, running.top + i, running.sum + i, out + i * ldo, !written || key > 0);
    });
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const T scale = running.top[i] == none ? T(0) : T(1) / running.sum[i];
    for (std::int64_t c = 0; c < job.value_width; ++c) out[i * ldo + c] *= scale;
  }
  if (!job.log_sum) return;
  T* log_sum = static_cast<T*>(job.log_sum) + (batch * job.heads + head) * job.rows + row;
  for (std::int64_t i = 0; i < count; ++i)
    log_sum[i] = running.top[i] == none ? none : running.top[i] + math::log(running.sum[i]) * kUnits<T>;
}

/// The tiles of the gradient: keys and values turned, probabilities, gradients of the scores.
template <class T> struct Tiles {
  Turned<T> k, v;
  alignas(64) T p[kRows * kKeys], ds[kRows * kKeys];

  void set(const Attention& job, std::int64_t batch, std::int64_t kv_head, std::int64_t key, std::int64_t keys) {
    const T scale = static_cast<T>(job.scale);
    k.set(start<T>(job.k, batch, kv_head, key), keys, job.width, job.k.stride[2], scale * kUnits<T>);
    v.set(start<T>(job.v, batch, kv_head, key), keys, job.value_width, job.v.stride[2], scale);
  }
};

/// Which results a block of rows and keys has a part in, and which of them hold a sum already.
struct Parts {
  bool to_q, to_kv, more_q, more_kv;
};

/// delta of rows [row, row + count) of one head.
template <class T> void sums_of_products(const Attention& job, std::int64_t batch, std::int64_t head, std::int64_t row,
                                         std::int64_t count) {
  T* delta = static_cast<T*>(job.delta) + (batch * job.heads + head) * job.rows + row;
  const T *g = start<T>(job.g, batch, head, row), *out = start<T>(job.out, batch, head, row);
  alignas(64) T line[kFeatures] = {};
  for (std::int64_t i = 0; i < count; ++i, g += job.g.stride[2], out += job.out.stride[2]) {
    delta[i] = T(0);
    for (std::int64_t from = 0; from < job.value_width; from += kFeatures) {
      const std::int64_t width = least(kFeatures, job.value_width - from);
      for (std::int64_t c = 0; c < width; ++c) line[c] = g[from + c] * out[from + c];
      for (std::int64_t c = width; c % kLanes; ++c) line[c] = T(0);
      delta[i] += total(line, whole(width));
    }
  }
}

/// What one block of rows and keys adds to dq, or to dk and dv, or to all:
///   ds = p (dp - delta) scale with dp = g v^T, delta = sum(g out);  dq = ds k, dk = ds^T q, dv = p^T g.
template <class T> void gradient(const Attention& job, const Block& at, const Parts& parts, Tiles<T>& tiles) {
  const std::int64_t kv_head = at.head / (job.heads / job.kv_heads);
  const std::int64_t line = (at.batch * job.heads + at.head) * job.rows + at.row;
  const T *log_sum = static_cast<const T*>(job.log_sum) + line, *delta = static_cast<const T*>(job.delta) + line;
  const T *g = start<T>(job.g, at.batch, at.head, at.row), *q = start<T>(job.q, at.batch, at.head, at.row);
  T *p = tiles.p, *ds = tiles.ds;
  const T none = T(-__builtin_inf()), scale = static_cast<T>(job.scale);
  scores(job, at, tiles.k, p);
  tiles.v.product(job, at, g, job.g.stride[2], ds);
  if (job.dropout > 0) drop(job, at, ds);
  for (std::int64_t i = 0; i < at.rows; ++i) {
    T* __restrict pi = p + i * kKeys, * __restrict di = ds + i * kKeys;
    const bool empty = log_sum[i] == none;
    const T shift = empty ? T(0) : log_sum[i], seed = delta[i] * scale;
    const std::int64_t keys = whole(seen_by(job, at, i));
    for_vectors(keys, [=](std::int64_t j) {
      pi[j] = probability(pi[j] - shift);
      di[j] = pi[j] * (di[j] - seed);
    });
    hide_from(di, seen_by(job, at, i), T(0));
    for_vectors(most(0, at.keys - keys), [=](std::int64_t j) { pi[keys + j] = di[keys + j] = T(0); });
  }
  if (parts.to_q)
    times_keys(job, at, parts.more_q, ds, tiles.k.x, job.k.stride[2], job.width,
               start<T>(job.dq, at.batch, at.head, at.row), job.dq.stride[2]);
  if (!parts.to_kv) return;
  times_rows(job, at, parts.more_kv, ds, q, job.q.stride[2], job.width, start<T>(job.dk, at.batch, kv_head, at.key),
             job.dk.stride[2]);
  if (job.dropout > 0) drop(job, at, p);
  times_rows(job, at, parts.more_kv, p, g, job.g.stride[2], job.value_width,
             start<T>(job.dv, at.batch, kv_head, at.key), job.dv.stride[2]);
}

/// dq of one block of rows.
template <class T>
void gradient_of_rows(const Attention& job, std::int64_t batch, std::int64_t head, std::int64_t row) {
  Tiles<T> tiles;
  const std::int64_t rows = least(kRows, job.rows - row), seen = keys_seen(job, row + rows - 1);
  const bool written = all_start(job, row);
  if (!written) clear(start<T>(job.dq, batch, head, row), rows, job.width, job.dq.stride[2]);
  for (std::int64_t key = first_seen(job, row) / kKeys * kKeys; key < seen; key += kKeys) {
    const std::int64_t keys = least(kKeys, seen - key);
    tiles.set(job, batch, head / (job.heads / job.kv_heads), key, keys);
    for_blocks(job, {batch, head, row, 0, key, keys}, rows, [&](const Block& at, std::int64_t) {
      gradient(job, at, {true, false, !written || key > 0, false}, tiles);
    });
  }
}

/// dk and dv of one block of keys, and with `to_q` what it adds to dq.
template <class T>
void gradient_of_keys(const Attention& job, std::int64_t batch, std::int64_t kv_head, std::int64_t key, bool to_q) {
  Tiles<T> tiles;
  const std::int64_t group = job.heads / job.kv_heads, keys = least(kKeys, job.keys - key);
  const bool written = all_start(job, 0);
  Parts parts{to_q, true, !written || key > 0, false};
  const auto clear_from = [&](std::int64_t row) {
    clear(start<T>(job.dk, batch, kv_head, key + row), keys - row, job.width, job.dk.stride[2]);
    clear(start<T>(job.dv, batch, kv_head, key + row), keys - row, job.value_width, job.dv.stride[2]);
  };
  tiles.set(job, batch, kv_head, key, keys);
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for_blocks(job, {batch, head, 0, 0, key, keys}, job.rows, [&](const Block& at, std::int64_t) {
      if (!parts.more_kv) clear_from(at.keys);
      gradient(job, at, parts, tiles);
      parts.more_kv = true;
    });
  if (!parts.more_kv) clear_from(0);
}

/// All three gradients of one head of keys and the heads that share it, each block of scores computed once.
template <class T> void gradient_of_group(const Attention& job, std::int64_t batch, std::int64_t kv_head) {
  const std::int64_t group = job.heads / job.kv_heads;
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    sums_of_products<T>(job, batch, head, 0, job.rows);
    if (!all_start(job, 0)) clear(start<T>(job.dq, batch, head, 0), job.rows, job.width, job.dq.stride[2]);
  }
  for (std::int64_t key = 0; key < job.keys; key += kKeys) gradient_of_keys<T>(job, batch, kv_head, key, true);
}

/// One row of each head, as in decoding: the heads that share their keys are the rows of one.
Attention by_group(Attention job) {
  const std::int64_t group = job.heads / job.kv_heads;
  if (job.rows != 1 || group == 1 || job.window > 0) return job;
  const auto turn = [group](auto& operand) {
    operand.stride[2] = operand.stride[1];
    operand.stride[1] *= group;
  };
  turn(job.q);
  turn(job.out);
  turn(job.keep[0]);
  turn(job.keep[1]);
  turn(job.bias);
  job.heads = job.kv_heads;
  job.rows = group;
  job.causal = false;  // a last row sees all keys
  return job;
}

template <class T> void attention(const Attention& given) {
  const Attention job = by_group(given);
  const std::int64_t heads = job.batch * job.heads, wide = (job.rows + kRows * kBlocks - 1) / (kRows * kBlocks);
  const std::int64_t rows = heads * wide >= 16 ? kRows * kBlocks : kRows, blocks = (job.rows + rows - 1) / rows;
  const std::int64_t work = most(1, least(rows, job.rows) * job.keys * (job.width + job.value_width));
  in_chunks(heads * blocks, 40'000 / work + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t row = at % blocks * rows;
      forward<T>(job, at / blocks / job.heads, at / blocks % job.heads, row, least(rows, job.rows - row));
    }
  });
}

template <class T> void attention_grad(const Attention& job) {
  const bool to_q = job.dq.data, to_kv = job.dk.data;
  const std::int64_t matrices = job.batch * job.kv_heads, wide = (job.keys + kKeys - 1) / kKeys;
  // With enough heads to share out, one pass gives all three and computes the scores once; the choice depends on
  // the shape alone, and so do the bits.
  if (to_q && to_kv && matrices >= 8)
    return parallel_for(matrices,
                        [&](std::int64_t at) { gradient_of_group<T>(job, at / job.kv_heads, at % job.kv_heads); });
  const std::int64_t tall = (job.rows + kRows - 1) / kRows;
  parallel_for(job.batch * job.heads * tall, [&](std::int64_t at) {
    const std::int64_t batch = at / tall / job.heads, head = at / tall % job.heads, row = at % tall * kRows;
    sums_of_products<T>(job, batch, head, row, least(kRows, job.rows - row));
    if (to_q) gradient_of_rows<T>(job, batch, head, row);
  });
  if (to_kv)
    parallel_for(matrices * wide, [&](std::int64_t at) {
      gradient_of_keys<T>(job, at / wide / job.kv_heads, at / wide % job.kv_heads, at % wide * kKeys, false);
    });
}

}  // namespace

void fill_attention(Kernels& table) {
  table.attention = either<attention<float>, attention<double>>;
  table.attention_grad = either<attention_grad<float>, attention_grad<double>>;
}

}  // namespace stet::cpu::STET_ISA
