// Size classes of the caching allocators: multiples of 64 bytes up to 1 KiB, then four steps for each power of
// two, so that at most a quarter of a block is wasted.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace stet {

struct SizeClass {
  static constexpr std::int64_t kAlign = 64, kSmall = 1024;
  static constexpr int kSmallClasses = kSmall / kAlign;
  static constexpr std::size_t kCount = kSmallClasses + 4 * 52;

  int index;
  std::int64_t bytes;

  static constexpr SizeClass of(std::int64_t bytes) {
    if (bytes <= kSmall) {
      const std::int64_t units = bytes <= 0 ? 1 : (bytes + kAlign - 1) / kAlign;
      return {static_cast<int>(units - 1), units * kAlign};
    }
    // 2^log < bytes <= 2^(log + 1)
    const int log = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bytes - 1))) - 1;
    const std::int64_t step = (std::int64_t{1} << log) / 4;
    const std::int64_t steps = (bytes - (std::int64_t{1} << log) + step - 1) / step;  // 1..4
    return {kSmallClasses + (log - 10) * 4 + static_cast<int>(steps - 1), (std::int64_t{1} << log) + steps * step};
  }

  static constexpr std::int64_t bytes_of(int index) {
    if (index < kSmallClasses) return (index + 1) * kAlign;
    const int log = (index - kSmallClasses) / 4 + 10, steps = (index - kSmallClasses) % 4 + 1;
    return (std::int64_t{1} << log) + steps * ((std::int64_t{1} << log) / 4);
  }
};

}  // namespace stet
