// Conversion between element types, the same on every device.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include <stet/tensor/dtype.h>
#include <stet/tensor/macros.h>

namespace stet {

/// Out of range is undefined in C++: here it saturates, and NaN becomes 0.
template <class To, class From> STET_HD To convert(From x) {
  if constexpr (std::is_same_v<To, From>) return x;
  else if constexpr (std::is_same_v<From, BFloat16>) return convert<To>(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, BFloat16>) return BFloat16(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, bool>) return x != From(0);
  else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    constexpr To smallest = std::numeric_limits<To>::min(), largest = std::numeric_limits<To>::max();
    constexpr From low = static_cast<From>(smallest);
    constexpr From high = From(2) * static_cast<From>(std::uint64_t{1} << (std::numeric_limits<To>::digits - 1));
    if (x != x) return To(0);
    if (x <= low) return smallest;
    return x >= high ? largest : static_cast<To>(x);
  } else return static_cast<To>(x);
}

}  // namespace stet
