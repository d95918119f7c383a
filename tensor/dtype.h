// Element types, their promotion rules, and the one switch from a run-time DType to a C++ type.
// Promotion: bool < u8 < i32 < i64 < bf16 < f32 < f64; the higher of the two wins. A C++ number beside a
// tensor takes the tensor's type, except that a fraction beside an integer tensor makes the result f32.
#pragma once

#include <bit>
#include <cstdint>
#include <ostream>
#include <string_view>

#include <stet/tensor/error.h>
#include <stet/tensor/macros.h>

namespace stet {

enum class DType : std::uint8_t { boolean, u8, i32, i64, bf16, f32, f64 };
inline constexpr int kDTypes = 7;

inline constexpr DType boolean = DType::boolean, u8 = DType::u8, i32 = DType::i32, i64 = DType::i64, bf16 = DType::bf16,
                       f32 = DType::f32, f64 = DType::f64;

/// Upper half of an f32: for storage and conversion; arithmetic converts to f32 first.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  /// Rounds to nearest, ties to even; every NaN becomes the quiet NaN of its sign.
  STET_HD explicit BFloat16(float x) {
    const auto u = __builtin_bit_cast(std::uint32_t, x);
    const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const std::uint32_t nan = ((u >> 16) & 0x8000u) | 0x7fc0u;
    bits = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
  STET_HD explicit operator float() const { return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16); }
};

template <class T> inline constexpr DType dtype_of = [] { static_assert(sizeof(T) == 0, "not an element type"); }();
template <> inline constexpr DType dtype_of<bool> = DType::boolean;
template <> inline constexpr DType dtype_of<std::uint8_t> = DType::u8;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <> inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <> inline constexpr DType dtype_of<BFloat16> = DType::bf16;
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<double> = DType::f64;

constexpr std::int64_t size_of(DType t) {
  constexpr std::int64_t sizes[kDTypes] = {1, 1, 4, 8, 2, 4, 8};
  return sizes[static_cast<int>(t)];
}
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[kDTypes] = {"bool", "u8", "i32", "i64", "bf16", "f32", "f64"};
  return names[static_cast<int>(t)];
}
constexpr bool is_floating(DType t) { return t >= DType::bf16; }
constexpr DType promote(DType a, DType b) { return a > b ? a : b; }
/// Whether an integer type's range takes in a number; true for floating types.
constexpr bool holds(DType t, double value) {
  constexpr double highest[] = {1, 255, 2147483647, 9223372036854774784};  // the last: below 2^63
  if (is_floating(t)) return true;
  const double high = highest[static_cast<int>(t)];
  return value <= high && value >= (t >= DType::i32 ? -high - 1 : 0);
}

/// The same of a whole number, compared as an integer.
constexpr bool holds_whole(DType t, std::int64_t value) {
  return t == DType::i64 || holds(t, static_cast<double>(value));
}

inline std::ostream& operator<<(std::ostream& out, DType t) { return out << name_of(t); }

/// Calls f.operator()<T>() with the C++ type of `t`.
template <class F> decltype(auto) dispatch(DType t, F&& f) {
  switch (t) {
    case DType::boolean: return f.template operator()<bool>();
    case DType::u8: return f.template operator()<std::uint8_t>();
    case DType::i32: return f.template operator()<std::int32_t>();
    case DType::i64: return f.template operator()<std::int64_t>();
    case DType::bf16: return f.template operator()<BFloat16>();
    case DType::f32: return f.template operator()<float>();
    case DType::f64: return f.template operator()<double>();
  }
  fail<BugError>("dispatch", "unknown dtype ", static_cast<int>(t));
}

}  // namespace stet
