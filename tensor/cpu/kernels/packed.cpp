// Products of larger matrices (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"). B is
// copied into panels as wide as a tile, once and by all threads: however many pieces C is cut into, nothing is packed
// twice. A is read where it lies, or goes into panels too (turns()). Each tile of C is written from registers.
#include <stet/tensor/cpu/kernels/tile.h>
#include <stet/tensor/cpu/kernels/turn.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kDepth = 384;         // of one panel along k: it stays in the first cache
constexpr std::int64_t kWidth = 1024;        // columns packed at once, and rows where A is packed
constexpr std::int64_t kHeight = 96;         // rows of a piece: what it reads of A stays in the second cache
constexpr std::int64_t kPacked = 512 << 10;  // floats of several slices along k that are packed at once

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t pieces(std::int64_t size, std::int64_t piece) { return (size + piece - 1) / piece; }

/// Whether a transposed A goes into panels. Read where it lies, rows a multiple of 4 KiB apart share few places in the
/// cache; a tile of few rows takes a small part of each line and comes back when it is gone.
inline bool turns(const Gemm& job) { return kMaxRows < 12 && job.transpose_a && job.lda % 1024 == 0; }

/// The part of the product that is packed and multiplied at once: `deep` of k, in slices as deep as a panel.
struct Part {
  std::int64_t k, deep, depth, col, cols, row, rows;

  std::int64_t slices() const { return pieces(deep, depth); }
  std::int64_t deep_of(std::int64_t slice) const { return least(depth, deep - slice * depth); }
  /// Where a slice's panels start, which are `width` wide together.
  std::int64_t offset(std::int64_t slice, std::int64_t width) const { return slice * depth * width; }
};
inline std::int64_t padded(std::int64_t size, std::int64_t piece) { return pieces(size, piece) * piece; }

/// Columns [0, count) of (rows, ld) into panels of Width, as deep as `depth`; the last one is filled up with zeros. Row
/// by row through several panels, so that few pages are in use.
template <std::int64_t Width> void copy_panels(const float* from, std::int64_t ld, std::int64_t rows,
                                               std::int64_t count, float* out, std::int64_t depth) {
  for (std::int64_t p = 0; p < rows; ++p, from += ld, out += Width) {
    std::int64_t at = 0;
    for (; at + Width <= count; at += Width)
      for (std::int64_t i = 0; i < Width; ++i) out[at * depth + i] = from[at + i];
    if (at < count)
      for (std::int64_t i = 0; i < Width; ++i) out[at * depth + i] = at + i < count ? from[at + i] : 0.0f;
  }
}

/// Rows [from, to) of a slice of B, in the panels from `col` on.
void pack_rows(const Gemm& job, const float* b, const Part& part, float* panels, std::int64_t slice, std::int64_t col,
               std::int64_t count, std::int64_t from, std::int64_t to) {
  const std::int64_t k = part.k + slice * part.depth + from, depth = part.deep_of(slice);
  float* out = panels + part.offset(slice, padded(part.cols, kPanel)) + col * depth + from * kPanel;
  if (!job.transpose_b)
    return copy_panels<kPanel>(b + k * job.ldb + part.col + col, job.ldb, to - from, count, out, depth);
  for (std::int64_t x = 0; x < count; x += kPanel)
    turn<kPanel>(b + (part.col + col + x) * job.ldb + k, job.ldb, least(kPanel, count - x), to - from, out + x * depth,
                 kPanel);
}

/// Some rows and panels of B, or panels of a transposed A, are one piece of work.
void pack(const Gemm& job, const float* a, const float* b, const Part& part, float* panels, float* tall) {
  constexpr std::int64_t wide = 4 * kPanel, high = 8 * kMaxRows, tread = 96;
  const std::int64_t across = pieces(part.cols, wide),
                     steps = across * part.slices() < 32 ? pieces(part.depth, tread) : 1;
  const std::int64_t step = pieces(part.depth, steps), down = turns(job) ? pieces(part.rows, high) : 0;
  const std::int64_t each = across * steps + down;
  parallel_for(each * part.slices(), [&](std::int64_t i) {
    const std::int64_t slice = i / each, depth = part.deep_of(slice), at = i % each - down;
    if (at < 0) {
      const std::int64_t row = (at + down) * high, k = part.k + slice * part.depth;
      return copy_panels<kMaxRows>(a + k * job.lda + part.row + row, job.lda, depth, least(high, part.rows - row),
                                   tall + part.offset(slice, padded(part.rows, kMaxRows)) + row * depth, depth);
    }
    const std::int64_t col = at % across * wide, from = least(depth, at / across * step);
    pack_rows(job, b, part, panels, slice, col, least(wide, part.cols - col), from, least(depth, from + step));
  });
}

/// The bias where no activation follows: it is added on the way from the registers.
inline const float* bias_alone(const Gemm& job) {
  return job.activation == Activation::none ? static_cast<const float*>(job.bias) : nullptr;
}

/// One panel's columns of one group of rows.
template <int R> inline void tile(const float* a, std::int64_t ra, std::int64_t pa, const float* panel, float* c,
                                  std::int64_t ldc, std::int64_t depth, std::int64_t cols, bool accumulate,
                                  const float* bias) {
  if (cols == kPanel) outer_tile<R, 2, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, kLanes, bias);
  else if (cols > kLanes)
    outer_tile<R, 2, false, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, cols - kLanes, bias);
  else outer_tile<R, 1, false, true>(a, ra, pa, panel, kPanel, c, ldc, depth, accumulate, cols, bias);
}

/// Rows [row, row + rows) and panels [from, to) of one slice of a part: columns outside, so that the panel stays in
/// cache.
void slice_of_piece(const Gemm& job, const float* a, const float* panels, const float* tall, float* c, const Part& part,
                    std::int64_t slice, std::int64_t row, std::int64_t rows, std::int64_t from, std::int64_t to) {
  const std::int64_t k = part.k + slice * part.depth, depth = part.deep_of(slice);
  const bool accumulate = job.accumulate || k > 0;
  const float* biases = k + depth == job.k ? bias_alone(job) : nullptr;
  panels += part.offset(slice, padded(part.cols, kPanel));
  if (turns(job)) tall += part.offset(slice, padded(part.rows, kMaxRows));
  for (std::int64_t at = from; at < to; ++at) {
    const std::int64_t col = part.col + at * kPanel, cols = least(kPanel, part.col + part.cols - col);
    const float *panel = panels + at * kPanel * depth, *bias = biases ? biases + col : nullptr;
    for (std::int64_t first = row; first < row + rows; first += kMaxRows)
      with_rows(least(kMaxRows, row + rows - first), [&](auto r) {
        float* out = c + first * job.ldc + col;
        if (turns(job))
          tile<r.value>(tall + (first - part.row) * depth, 1, kMaxRows, panel, out, job.ldc, depth, cols, accumulate,
                        bias);
        else if (job.transpose_a)
          tile<r.value>(a + k * job.lda + first, 1, job.lda, panel, out, job.ldc, depth, cols, accumulate, bias);
        else tile<r.value>(a + first * job.lda + k, job.lda, 1, panel, out, job.ldc, depth, cols, accumulate, bias);
      });
  }
}

/// All slices of a piece, then its activation.
void piece(const Gemm& job, const float* a, const float* panels, const float* tall, float* c, const Part& part,
           std::int64_t row, std::int64_t rows, std::int64_t from, std::int64_t to) {
  for (std::int64_t slice = 0; slice < part.slices(); ++slice)
    slice_of_piece(job, a, panels, tall, c, part, slice, row, rows, from, to);
  if (part.k + part.deep < job.k || bias_alone(job)) return;
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

std::int64_t depth_of(const Gemm& job) { return padded(pieces(job.k, pieces(job.k, kDepth)), 8); }
std::int64_t panel_floats(const Gemm& job) { return padded(least(job.n, kWidth), kPanel) * depth_of(job); }
std::int64_t tall_floats(const Gemm& job) {
  return turns(job) ? padded(least(job.m, kWidth), kMaxRows) * depth_of(job) : 0;
}
/// Slices packed at once: threads meet after packing and after multiplying, which small products feel.
std::int64_t slices_of(const Gemm& job) {
  const std::int64_t fit = kPacked / (panel_floats(job) + tall_floats(job));
  return least(pieces(job.k, depth_of(job)), fit < 1 ? 1 : fit);
}

}  // namespace

std::int64_t packed_floats(const Gemm& job) { return slices_of(job) * (panel_floats(job) + tall_floats(job)); }

void packed_gemm(const Gemm& job, const float* a, const float* b, float* c, float* scratch) {
  const std::int64_t depth = depth_of(job), deep = slices_of(job) * depth, height = turns(job) ? kWidth : job.m;
  float* tall = scratch + slices_of(job) * panel_floats(job);
  for (std::int64_t col = 0; col < job.n; col += kWidth)
    for (std::int64_t k = 0; k < job.k; k += deep)
      for (std::int64_t row = 0; row < job.m; row += height) {
        const Part part{k,   least(deep, job.k - k),    depth, col, least(kWidth, job.n - col),
                        row, least(height, job.m - row)};
        pack(job, a, b, part, scratch, tall);
        multiply(job, a, scratch, tall, c, part);
      }
}

}  // namespace stet::cpu::STET_ISA
