// Joins neighbouring dimensions that all operands walk through in one stride, and drops those of size 1: most
// elementwise work becomes one flat loop.
#pragma once

#include <cstdint>

#include <stet/tensor/dims.h>

namespace stet {

/// `strides[k]` is the array of operand k. Returns the new rank; sizes and strides are rewritten in place.
inline int collapse(int rank, std::int64_t* size, int operands, std::int64_t* const* strides) {
  int out = 0;
  for (int d = 0; d < rank; ++d) {
    if (size[d] == 1) continue;
    bool joins = out > 0;
    for (int k = 0; joins && k < operands; ++k) joins = strides[k][out - 1] == strides[k][d] * size[d];
    if (joins) {
      size[out - 1] *= size[d];
      for (int k = 0; k < operands; ++k) strides[k][out - 1] = strides[k][d];
      continue;
    }
    size[out] = size[d];
    for (int k = 0; k < operands; ++k) strides[k][out] = strides[k][d];
    ++out;
  }
  return out;
}

}  // namespace stet
