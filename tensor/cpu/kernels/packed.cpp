// Products of larger matrices (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"). B is
// copied into panels as wide as a tile, once and by all threads: however many pieces C is cut into, nothing is packed
// twice. A is read where it lies, or goes into panels too (turns()). Each tile of C is written from registers.
#include <stet/tensor/cpu/kernels/tile.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kDepth = 384;   // of one panel along k: it stays in the first cache
constexpr std::int64_t kWidth = 1024;  // columns packed at once, and rows where A is packed
constexpr std::int64_t kHeight = 96;   // rows of a piece: what it reads of A stays in the second cache

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t pieces(std::int64_t size, std::int64_t piece) { return (size + piece - 1) / piece; }

/// Whether a transposed A goes into panels. Read where it lies, rows a multiple of 4 KiB apart share few places in the
/// cache; a tile of few rows takes a small part of each line and comes back when it is gone.
inline bool turns(const Gemm& job) { return kMaxRows < 12 && job.transpose_a && job.lda % 1024 == 0; }

/// The part of the product that is packed and multiplied at once.
struct Part {
  std::int64_t k, depth, col, cols, row, rows;
};

/// Columns [0, count) of (depth, ld) into panels of Width; the last one is filled up with zeros. Row by row through
/// several panels, so that few pages are in use.
template <std::int64_t Width>
void copy_panels(const float* from, std::int64_t ld, std::int64_t depth, std::int64_t count, float* out) {
  for (std::int64_t p = 0; p < depth; ++p, from += ld, out += Width) {
    std::int64_t at = 0;
    for (; at + Width <= count; at += Width)
      for (std::int64_t i = 0; i < Width; ++i) out[at * depth + i] = from[at + i];
    if (at < count)
      for (std::int64_t i = 0; i < Width; ++i) out[at * depth + i] = at + i < count ? from[at + i] : 0.0f;
  }
}

/// out[p * kPanel + i] = from[i * ld + p], i < count: 4 x 4 transposes.
void turn_panel(const float* from, std::int64_t ld, std::int64_t depth, std::int64_t count, float* out) {
  typedef float Loose4 __attribute__((vector_size(16), aligned(4), may_alias));
  for (std::int64_t i = 0; i < kPanel; i += 4) {
    const float* x = from + i * ld;
    float* to = out + i;
    std::int64_t p = 0;
    for (; i + 4 <= count && p + 4 <= depth; p += 4, to += 4 * kPanel) {
      Vec4 rows[4], pairs[4];
      repeat<4>([&](auto r) { rows[r.value] = *reinterpret_cast<const Loose4*>(x + r.value * ld + p); });
      repeat<2>([&](auto r) {
        constexpr int at = r.value;
        pairs[at] = __builtin_shufflevector(rows[2 * at], rows[2 * at + 1], 0, 4, 1, 5);
        pairs[at + 2] = __builtin_shufflevector(rows[2 * at], rows[2 * at + 1], 2, 6, 3, 7);
      });
      repeat<2>([&](auto r) {
        constexpr int at = 2 * r.value;
        *reinterpret_cast<Loose4*>(to + at * kPanel) = __builtin_shufflevector(pairs[at], pairs[at + 1], 0, 1, 4, 5);
        *reinterpret_cast<Loose4*>(to + (at + 1) * kPanel) =
            __builtin_shufflevector(pairs[at], pairs[at + 1], 2, 3, 6, 7);
      });
    }
    for (; p < depth; ++p, to += kPanel)
      for (std::int64_t q = 0; q < 4; ++q) to[q] = i + q < count ? x[q * ld + p] : 0.0f;
  }
}

/// Some panels of B, or of a transposed A, are one piece of work.
void pack(const Gemm& job, const float* a, const float* b, const Part& part, float* panels, float* tall) {
  constexpr std::int64_t wide = 4 * kPanel, high = 8 * kMaxRows;
  const std::int64_t across = pieces(part.cols, wide), down = turns(job) ? pieces(part.rows, high) : 0;
  parallel_for(across + down, [&](std::int64_t i) {
    if (i < across) {
      const std::int64_t col = i * wide, count = least(wide, part.cols - col);
      float* out = panels + col * part.depth;
      if (!job.transpose_b)
        return copy_panels<kPanel>(b + part.k * job.ldb + part.col + col, job.ldb, part.depth, count, out);
      for (std::int64_t at = 0; at < count; at += kPanel)
        turn_panel(b + (part.col + col + at) * job.ldb + part.k, job.ldb, part.depth, least(kPanel, count - at),
                   out + at * part.depth);
      return;
    }
    const std::int64_t row = (i - across) * high;
    copy_panels<kMaxRows>(a + part.k * job.lda + part.row + row, job.lda, part.depth, least(high, part.rows - row),
                          tall + row * part.depth);
  });
}

/// One panel's columns of one group of rows.
template <int R> inline void tile(const float* a, std::int64_t ra, std::int64_t pa, const float* panel, float* c,
                                  std::int64_t ldc, std::int64_t depth, std::int64_t cols, bool accumulate) {
  if (cols == kPanel) outer_tile<R, 2, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, kLanes);
  else if (cols > kLanes)
    outer_tile<R, 2, false, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, cols - kLanes);
  else outer_tile<R, 1, false, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, cols);
}

/// Rows [row, row + rows) and panels [from, to) of a part: columns outside, so that the panel stays in cache.
void piece(const Gemm& job, const float* a, const float* panels, const float* tall, float* c, const Part& part,
           std::int64_t row, std::int64_t rows, std::int64_t from, std::int64_t to) {
  const bool accumulate = job.accumulate || part.k > 0;
  for (std::int64_t at = from; at < to; ++at) {
    const std::int64_t col = part.col + at * kPanel, cols = least(kPanel, part.col + part.cols - col);
    const float* panel = panels + at * kPanel * part.depth;
    for (std::int64_t first = row; first < row + rows; first += kMaxRows)
      with_rows(least(kMaxRows, row + rows - first), [&](auto r) {
        float* out = c + first * job.ldc + col;
        if (turns(job))
          tile<r.value>(tall + (first - part.row) * part.depth, 1, kMaxRows, panel, out, job.ldc, part.depth, cols,
                        accumulate);
        else if (job.transpose_a)
          tile<r.value>(a + part.k * job.lda + first, 1, job.lda, panel, out, job.ldc, part.depth, cols, accumulate);
        else tile<r.value>(a + first * job.lda + part.k, job.lda, 1, panel, out, job.ldc, part.depth, cols, accumulate);
      });
  }
  if (part.k + part.depth < job.k) return;
  const std::int64_t col = part.col + from * kPanel, cols = least(to * kPanel, part.cols) - from * kPanel;
  bias_activation<float>(c + row * job.ldc + col, rows, cols, job.ldc,
                         job.bias ? static_cast<const float*>(job.bias) + col : nullptr, job.activation);
}

/// All pieces of a part: of rows, in whole tiles and of even size, and of columns where the rows give too few. A small
/// part has smaller pieces, so that all threads have some.
void multiply(const Gemm& job, const float* a, const float* panels, const float* tall, float* c, const Part& part) {
  const std::int64_t tiles = pieces(part.rows, kMaxRows), all = pieces(part.cols, kPanel);
  std::int64_t down = pieces(part.rows, kHeight);
  const std::int64_t across = least(pieces(16, down), pieces(part.cols, 64));
  if (down * across < 8) down = least(pieces(8, across), pieces(tiles, 4));
  parallel_for(down * across, [&](std::int64_t i) {
    const std::int64_t y = i / across, x = i % across, from = tiles * y / down * kMaxRows;
    const std::int64_t to = least(tiles * (y + 1) / down * kMaxRows, part.rows);
    piece(job, a, panels, tall, c, part, part.row + from, to - from, all * x / across, all * (x + 1) / across);
  });
}

std::int64_t depth_of(const Gemm& job) { return pieces(pieces(job.k, pieces(job.k, kDepth)), 8) * 8; }
std::int64_t panel_floats(const Gemm& job) { return pieces(least(job.n, kWidth), kPanel) * kPanel * depth_of(job); }

}  // namespace

std::int64_t packed_floats(const Gemm& job) {
  return panel_floats(job) + (turns(job) ? pieces(least(job.m, kWidth), kMaxRows) * kMaxRows * depth_of(job) : 0);
}

void packed_gemm(const Gemm& job, const float* a, const float* b, float* c, float* scratch) {
  const std::int64_t depth = depth_of(job), height = turns(job) ? kWidth : job.m;
  float* tall = scratch + panel_floats(job);
  for (std::int64_t col = 0; col < job.n; col += kWidth)
    for (std::int64_t k = 0; k < job.k; k += depth)
      for (std::int64_t row = 0; row < job.m; row += height) {
        const Part part{k, least(depth, job.k - k), col, least(kWidth, job.n - col), row, least(height, job.m - row)};
        pack(job, a, b, part, scratch, tall);
        multiply(job, a, scratch, tall, c, part);
      }
}

}  // namespace stet::cpu::STET_ISA
