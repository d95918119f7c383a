// Sorting as the other kernels use it.
#pragma once

#include <cstdint>
#include <string_view>

namespace stet::cuda {

/// Sorts each line of index (outer, n, inner) along n, equal ones in their order: values and where they stood.
void sort_indices(std::string_view op, const std::int64_t* index, std::int64_t outer, std::int64_t n,
                  std::int64_t inner, std::int64_t* sorted, std::int64_t* order);

}  // namespace stet::cuda
