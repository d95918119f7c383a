// Strided copies with conversion between element types. Bound by memory: one build for every machine.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include <stet/tensor/convert.h>
#include <stet/tensor/cpu/cpu.h>
#include <stet/tensor/threads.h>

namespace stet::cpu {
namespace {

constexpr std::int64_t kChunk = 16384, kTile = 32;

// Out of line: one copy of each loop for the two places that call it.
template <class To, class From> __attribute__((noinline)) void copy_run(To* out, std::int64_t out_step, const From* in,
                                                                        std::int64_t in_step, std::int64_t n) {
  if constexpr (std::is_same_v<To, From>) {
    if (out_step == 1 && in_step == 1) {
      std::memcpy(out, in, static_cast<std::size_t>(n) * sizeof(To));
      return;
    }
  }
  if (out_step == 1 && in_step == 1) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = convert<To>(in[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i * out_step] = convert<To>(in[i * in_step]);
  }
}

/// The last two axes in square tiles: a transpose touches each cache line once.
template <class To, class From> void copy_plane(To* out, const From* in, const Copy& c) {
  const int a = c.rank - 2, b = c.rank - 1;
  for (std::int64_t i0 = 0; i0 < c.size[a]; i0 += kTile)
    for (std::int64_t j0 = 0; j0 < c.size[b]; j0 += kTile)
      for (std::int64_t i = i0; i < std::min(i0 + kTile, c.size[a]); ++i)
        copy_run(out + i * c.out_stride[a] + j0 * c.out_stride[b], c.out_stride[b],
                 in + i * c.in_stride[a] + j0 * c.in_stride[b], c.in_stride[b], std::min(kTile, c.size[b] - j0));
}

/// Offsets of the `index`-th combination of the first `axes` axes.
void offsets(const Copy& c, int axes, std::int64_t index, std::int64_t& in, std::int64_t& out) {
  in = out = 0;
  for (int d = axes - 1; d >= 0; --d) {
    in += index % c.size[d] * c.in_stride[d];
    out += index % c.size[d] * c.out_stride[d];
    index /= c.size[d];
  }
}

template <class To, class From> void copy_typed(const Copy& c) {
  To* out = static_cast<To*>(c.out);
  const From* in = static_cast<const From*>(c.in);
  if (c.rank <= 1) {
    const std::int64_t n = c.rank ? c.size[0] : 1, si = c.rank ? c.in_stride[0] : 1, so = c.rank ? c.out_stride[0] : 1;
    parallel_for((n + kChunk - 1) / kChunk, [&](std::int64_t i) {
      copy_run(out + i * kChunk * so, so, in + i * kChunk * si, si, std::min(kChunk, n - i * kChunk));
    });
    return;
  }
  const bool tiles = c.in_stride[c.rank - 1] != 1 && c.size[c.rank - 1] > 4 && c.size[c.rank - 2] > 4;
  const int inner = tiles ? 2 : 1;
  const std::int64_t inner_size = c.size[c.rank - 1] * (tiles ? c.size[c.rank - 2] : 1);
  const std::int64_t outer = c.count / inner_size, per_chunk = kChunk / inner_size + 1;
  parallel_for((outer + per_chunk - 1) / per_chunk, [&](std::int64_t chunk) {
    for (std::int64_t i = chunk * per_chunk; i < std::min(outer, (chunk + 1) * per_chunk); ++i) {
      std::int64_t at_in, at_out;
      offsets(c, c.rank - inner, i, at_in, at_out);
      if (tiles) copy_plane(out + at_out, in + at_in, c);
      else copy_run(out + at_out, c.out_stride[c.rank - 1], in + at_in, c.in_stride[c.rank - 1], inner_size);
    }
  });
}

/// Where the target is transposed, the two last axes change places: reads may jump about memory, writes go along it.
void copy_kernel(const Copy& job) {
  Copy c = job;
  const int last = c.rank - 1;
  if (last > 0 && c.out_stride[last] != 1 && c.out_stride[last - 1] == 1 && c.size[last - 1] > 4)
    for (std::int64_t* axes : {c.size, c.in_stride, c.out_stride}) std::swap(axes[last], axes[last - 1]);
  dispatch(c.from, [&]<class From>() { dispatch(c.to, [&]<class To>() { copy_typed<To, From>(c); }); });
}

void fill_kernel(const Fill& job) {
  if (job.value == 0 && !std::signbit(job.value)) {
    std::memset(job.out, 0, static_cast<std::size_t>(job.count * size_of(job.dtype)));
    return;
  }
  dispatch(job.dtype, [&]<class T>() {
    T* out = static_cast<T*>(job.out);
    const T value = convert<T>(job.value);
    parallel_for((job.count + kChunk - 1) / kChunk, [&](std::int64_t chunk) {
      std::fill(out + chunk * kChunk, out + std::min(job.count, (chunk + 1) * kChunk), value);
    });
  });
}

}  // namespace

void fill_copy(Kernels& table) {
  table.copy = copy_kernel;
  table.fill = fill_kernel;
}

}  // namespace stet::cpu
