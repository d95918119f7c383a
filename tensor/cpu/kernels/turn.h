// Rows become columns: where products run along what lies a row apart in memory.
#pragma once

#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {
namespace {

/// out[c * Width + i] = x[i * stride + c] * scale for i < rows, c < cols, and 0 for i from there to `filled`, a
/// multiple of 4: transposes of 4 x 4.
template <std::int64_t Width> void turn(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t cols,
                                        float* out, std::int64_t filled, float scale = 1) {
  typedef float Four __attribute__((vector_size(16)));
  typedef float Loose4 __attribute__((vector_size(16), aligned(4), may_alias));
  for (std::int64_t i = 0; i < filled; i += 4) {
    const float* from = x + i * stride;
    float* to = out + i;
    std::int64_t c = 0;
    for (; i + 4 <= rows && c + 4 <= cols; c += 4, to += 4 * Width) {
      Four row[4], pairs[4];
      for (int r = 0; r < 4; ++r) row[r] = *reinterpret_cast<const Loose4*>(from + r * stride + c) * scale;
      for (int r = 0; r < 2; ++r) {
        pairs[r] = __builtin_shufflevector(row[2 * r], row[2 * r + 1], 0, 4, 1, 5);
        pairs[r + 2] = __builtin_shufflevector(row[2 * r], row[2 * r + 1], 2, 6, 3, 7);
      }
      for (int r = 0; r < 2; ++r) {
        float* at = to + 2 * r * Width;
        *reinterpret_cast<Loose4*>(at) = __builtin_shufflevector(pairs[2 * r], pairs[2 * r + 1], 0, 1, 4, 5);
        *reinterpret_cast<Loose4*>(at + Width) = __builtin_shufflevector(pairs[2 * r], pairs[2 * r + 1], 2, 3, 6, 7);
      }
    }
    for (; c < cols; ++c, to += Width)
      for (std::int64_t r = 0; r < 4; ++r) to[r] = i + r < rows ? from[r * stride + c] * scale : 0.0f;
  }
}

}  // namespace
}  // namespace stet::cpu::STET_ISA
