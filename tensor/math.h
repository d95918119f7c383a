// Elementary functions for the kernels of every device: branch-free scalar code that vectorises in plain
// loops. float results are the project's own (<= 2 ulp, checked by bench/ulp.cpp); double goes to the C
// library.
//
// Everything here is compiled without contraction into fused multiply-adds (-ffp-contract=off, --fmad=false),
// so that SSE, AVX2, AVX-512 and CUDA give the same bits. Where plain multiply and add would lose more than
// the bar allows, the argument is reduced in two floats, or in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <stet/tensor/macros.h>

namespace stet::math {

namespace detail {

STET_HD uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
STET_HD uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
STET_HD float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }
STET_HD double double_of(uint64_t bits) { return __builtin_bit_cast(double, bits); }

// Bit operations, not calls, so that neither compiler nor device decides how they treat NaN and zero.
STET_HD float magnitude(float x) { return float_of(bits_of(x) & 0x7fffffffu); }
STET_HD float with_sign_of(float magnitude, float x) {
  return float_of(bits_of(magnitude) | (bits_of(x) & 0x80000000u));
}

// Clamps that let NaN pass: the comparison is false and x is kept.
template <class T> STET_HD T at_least(T low, T x) { return x < low ? low : x; }
template <class T> STET_HD T at_most(T high, T x) { return x > high ? high : x; }

// |x|, at most `bound`, by their bits: one instruction. NaN becomes `bound`.
STET_HD float bounded_magnitude(float x, float bound) {
  const uint32_t bits = bits_of(x) & 0x7fffffffu;
  return float_of(bits < bits_of(bound) ? bits : bits_of(bound));
}

constexpr float infinity = __builtin_inff();
constexpr float quiet_nan = __builtin_nanf("");

// ---- exponentials ----------------------------------------------------------------------------------------

// 2^n for n in [-126, 127].
STET_HD float power_of_two(int32_t n) { return float_of(static_cast<uint32_t>(n + 127) << 23); }

// x = n ln2 + high + low, |high| <= ln2 / 2.
struct ExpReduction {
  float high;
  float low;
  int32_t n;
};

// Needs |x| < 180. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, without a conversion
// that NaN would make undefined.
STET_HD ExpReduction reduce_exp(float x) {
  constexpr float shifter = 12582912.0f;
  constexpr float ln2_high = 0x1.62e4p-1f;  // 15 bits: n * ln2_high is exact
  constexpr float ln2_low = 1.42860682e-6f;
  const float shifted = x * 1.44269504f + shifter;
  const float n = shifted - shifter;
  const float a = x - n * ln2_high;  // exact
  const float b = n * ln2_low;
  const float high = a - b;
  return {high, (a - high) - b, static_cast<int32_t>(bits_of(shifted) - 0x4b400000u)};
}

// exp(high + low) - 1 for the reduced argument of functions that need exp only.
STET_HD float exp_minus_one_reduced(float high, float low) {
  float p = 0.00138141739f;
  p = p * high + 0.00836892147f;
  p = p * high + 0.0416684076f;
  p = p * high + 0.166665196f;
  p = p * high + 0.49999994f;
  return high + (low + high * high * p);
}

// 2^f for |f| <= 1/2, and its polynomial to 2e-8.
STET_HD float exp2_reduced(float f) {
  float p = 0.00015353362f;
  p = p * f + 0.0013398875f;
  p = p * f + 0.009618437f;
  p = p * f + 0.055503324f;
  p = p * f + 0.24022648f;
  p = p * f + 0.6931472f;
  return p * f + 1.0f;
}

// exp(x) = value * scale * rest, with value in [0.7, 1.5]. Two factors, because the result may be denormal
// while neither factor is; callers that multiply by something large do so before `rest`.
struct ExpParts {
  float value;
  float scale;
  float rest;
};

STET_HD ExpParts exp_parts(float value, int32_t n) {
  const int32_t half = n >> 1;
  return {value, power_of_two(half), power_of_two(n - half)};
}

STET_HD ExpParts exp_parts(float x) {
  const ExpReduction r = reduce_exp(x);
  return exp_parts(1.0f + exp_minus_one_reduced(r.high, r.low), r.n);
}

STET_HD float exp(float x) {
  const ExpParts e = exp_parts(at_most(90.0f, at_least(-110.0f, x)));
  return e.value * e.scale * e.rest;
}

// exp(x) for |x| < 87, where one scale factor does.
STET_HD float exp_bounded(float x) {
  const ExpReduction r = reduce_exp(x);
  return (1.0f + exp_minus_one_reduced(r.high, r.low)) * power_of_two(r.n);
}

STET_HD float expm1(float x) {
  const ExpReduction r = reduce_exp(at_most(89.0f, at_least(-30.0f, x)));
  float p = 0.000199145928f;
  p = p * r.high + 0.0013941311f;
  p = p * r.high + 0.0083332723f;
  p = p * r.high + 0.0416663513f;
  p = p * r.high + 0.166666672f;
  p = p * r.high + 0.5f;
  const float q = r.high + (r.low + r.high * r.high * p);
  const float half_scale = power_of_two(r.n - 1);  // 2^128 itself would overflow
  const float result = 2.0f * (half_scale * q + (half_scale - 0.5f));
  return magnitude(x) < 0x1p-25f ? x : result;
}

STET_HD float sigmoid(float x) {
  const ExpParts parts = exp_parts(-at_most(120.0f, magnitude(x)));
  const float e = parts.value * parts.scale * parts.rest;
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// x * e / (1 + e) for x < 0 and x / (1 + e) otherwise, where e = exp(-|argument|): the tail of silu and
// tanh-gelu. The small factor comes last, so that a result that is normal never passes through a denormal. Both are
// chosen before the division, of which compilers would make two otherwise.
STET_HD float times_logistic(float x, ExpParts e) {
  const float large = e.value * e.scale;
  const float before = x < 0.0f ? large : 1.0f, after = x < 0.0f ? e.rest : 1.0f;
  return x * before / (1.0f + large * e.rest) * after;
}

STET_HD float silu(float x) { return times_logistic(at_least(-120.0f, x), exp_parts(-bounded_magnitude(x, 120.0f))); }

STET_HD float tanh(float x) {
  const float z = at_most(10.0f, magnitude(x));
  const float u = z * z;
  float p = -0.00619873172f;
  p = p * u + 0.0210205596f;
  p = p * u - 0.0538405217f;
  p = p * u + 0.133324802f;
  p = p * u - 0.333333135f;
  const float near_zero = z + z * u * p;
  const float far = 1.0f - 2.0f / (exp_bounded(2.0f * z) + 1.0f);
  return with_sign_of(z < 0.55f ? near_zero : far, x);
}

// ---- logarithms ------------------------------------------------------------------------------------------

// log(1 + f) + k ln2 for 1 + f in [sqrt(1/2), sqrt(2)].
STET_HD float log_reduced(float f, float k) {
  float p = 0.0691551045f;
  p = p * f - 0.117898539f;
  p = p * f + 0.118729353f;
  p = p * f - 0.123843379f;
  p = p * f + 0.142186627f;
  p = p * f - 0.16669251f;
  p = p * f + 0.200022265f;
  p = p * f - 0.249999866f;
  p = p * f + 0.333333105f;
  const float u = f * f;
  return k * 0x1.62e4p-1f + (f - (0.5f * u - (u * f * p + k * 1.42860682e-6f)));
}

constexpr uint32_t bits_sqrt_half = 0x3f3504f3u;

// The exponent k for which x / 2^k lies in [sqrt(1/2), sqrt(2)), and that quotient; for normal x > 0.
struct BinaryParts {
  float mantissa;
  int32_t exponent;
};

STET_HD BinaryParts split_binary(float x) {
  const uint32_t shifted = bits_of(x) + (0x3f800000u - bits_sqrt_half);
  return {float_of((shifted & 0x007fffffu) + bits_sqrt_half), static_cast<int32_t>(shifted >> 23) - 127};
}

// What log gives at the edges of its domain, given the value inside.
STET_HD float log_edges(float x, float inside) {
  float result = x == 0.0f ? -infinity : inside;
  result = x < 0.0f ? quiet_nan : result;
  return x < infinity ? result : x;  // +inf and NaN
}

STET_HD float log(float x) {
  const bool denormal = x < 0x1p-126f;
  const BinaryParts parts = split_binary(denormal ? x * 0x1p24f : x);
  const float k = static_cast<float>(parts.exponent) - (denormal ? 24.0f : 0.0f);
  return log_edges(x, log_reduced(parts.mantissa - 1.0f, k));
}

STET_HD float log1p(float x) {
  const float u = 1.0f + x;
  const float lost = magnitude(x) < 1.0f ? x - (u - 1.0f) : 1.0f - (u - x);  // u + lost = 1 + x exactly
  const BinaryParts parts = split_binary(u);
  const float f = (parts.mantissa - 1.0f) + lost * power_of_two(at_least(-126, -parts.exponent));
  const bool unscaled = parts.exponent == 0;
  const float result = log_edges(u, log_reduced(unscaled ? x : f, static_cast<float>(parts.exponent)));
  return magnitude(x) < 0x1p-25f ? x : result;
}

STET_HD float softplus(float x) {
  const ExpParts parts = exp_parts(-at_most(110.0f, magnitude(x)));
  return (x > 0.0f ? x : 0.0f) + log1p(parts.value * parts.scale * parts.rest);
}

// ---- sine and cosine -------------------------------------------------------------------------------------

// For |r| <= pi / 4.
STET_HD float sin_reduced(float r) {
  const float u = r * r;
  float p = -0.000195169778f;
  p = p * u + 0.00833217613f;
  p = p * u - 0.166666552f;
  return r + r * u * p;
}

STET_HD float cos_reduced(float r) {
  const float u = r * r;
  float p = 2.44380917e-05f;
  p = p * u - 0.00138873642f;
  p = p * u + 0.0416666456f;
  return 1.0f - (0.5f * u - u * u * p);
}

// sin(quadrant * pi / 2 + r): cos is one quadrant further.
STET_HD float sin_of_quadrant(uint32_t quadrant, float r) {
  const float value = (quadrant & 1u) != 0 ? cos_reduced(r) : sin_reduced(r);
  return float_of(bits_of(value) ^ ((quadrant & 2u) << 30));
}

struct QuadrantReduction {
  float r;
  uint32_t quadrant;
};

// z = quadrant * pi / 2 + r (modulo 2 pi) for every finite z >= 0: Payne and Hanek's method. z is an integer
// of 24 bits times 2^(e - 150); of its product with 2 / pi only the bits of weight below 4 matter, so 96 bits
// of 2 / pi from position e - 152 are enough, and the product is formed in 64-bit integers. The words of 2 /
// pi are chosen by selection instead of a table, to stay branch-free.
STET_HD QuadrantReduction reduce_half_pi(float z) {
  const uint32_t bits = bits_of(z);
  const uint32_t position = (bits >> 23) < 126u ? 0u : (bits >> 23) - 120u;  // after 32 zero bits in front
  const uint32_t shift = 32u - (position & 31u);
  const bool skip1 = (position & 32u) != 0, skip2 = (position & 64u) != 0, skip4 = (position & 128u) != 0;
  uint64_t w0 = skip4 ? 0xf534ddc0u : 0u, w1 = skip4 ? 0xdb629599u : 0xa2f9836eu;
  uint64_t w2 = skip4 ? 0x3c439041u : 0x4e441529u, w3 = skip4 ? 0xfe5163abu : 0xfc2757d1u;
  uint64_t w4 = 0xf534ddc0u, w5 = 0xdb629599u, w6 = 0x3c439041u;  // unused when skip4
  w0 = skip2 ? w2 : w0, w1 = skip2 ? w3 : w1, w2 = skip2 ? w4 : w2, w3 = skip2 ? w5 : w3, w4 = skip2 ? w6 : w4;
  w0 = skip1 ? w1 : w0, w1 = skip1 ? w2 : w1, w2 = skip1 ? w3 : w2, w3 = skip1 ? w4 : w3;
  const uint64_t high = (((w0 << 32) | w1) >> shift) & 0xffffffffu;
  const uint64_t middle = (((w1 << 32) | w2) >> shift) & 0xffffffffu;
  const uint64_t low = (((w2 << 32) | w3) >> shift) & 0xffffffffu;
  const uint64_t integer = (bits & 0x007fffffu) | 0x00800000u;
  const uint64_t product = ((integer * high) << 32) + integer * middle + ((integer * low) >> 32);
  const uint64_t quadrant = (product + (uint64_t{1} << 61)) >> 62;
  const uint64_t rest = product - (quadrant << 62);
  // The signed 64-bit remainder to double by halves, since only AVX-512 converts 64-bit integers.
  const double value = static_cast<double>(static_cast<int32_t>(rest >> 32)) * 0x1p-30 +
                       static_cast<double>(static_cast<int32_t>((rest & 0xffffffffu) >> 1)) * 0x1p-61;
  const float r = static_cast<float>(value * 1.5707963267948966);
  const bool small = z < 0.785398f;
  const float reduced = z < infinity ? r : quiet_nan;
  return {small ? z : reduced, small ? 0u : static_cast<uint32_t>(quadrant)};
}

STET_HD float sin(float x) {
  const QuadrantReduction a = reduce_half_pi(magnitude(x));
  return float_of(bits_of(sin_of_quadrant(a.quadrant, a.r)) ^ (bits_of(x) & 0x80000000u));
}

STET_HD float cos(float x) {
  const QuadrantReduction a = reduce_half_pi(magnitude(x));
  return sin_of_quadrant(a.quadrant + 1u, a.r);
}

// ---- functions that need double inside --------------------------------------------------------------------

// 2^t to about 2^-29, for |t| < 1000.
STET_HD double exp2_double(double t) {
  constexpr double shifter = 0x1.8p52;
  const double shifted = t + shifter;
  const double f = t - (shifted - shifter);
  double p = 0.000153531648710279;
  p = p * f + 0.0013399132434056334;
  p = p * f + 0.009618439806572576;
  p = p * f + 0.0555033185400578;
  p = p * f + 0.24022647880391437;
  p = p * f + 0.6931472031158965;
  return (1.0 + f * p) * double_of((bits_of(shifted) + 1023u) << 52);
}

// log2(x) to about 2^-43, for normal x > 0: atanh series in the mantissa.
STET_HD double log2_double(double x) {
  constexpr uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
  const uint64_t shifted = bits_of(x) + (0x3ff0000000000000u - sqrt_half);
  const double mantissa = double_of((shifted & 0x000fffffffffffffu) + sqrt_half);
  const double exponent = double_of((shifted >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double u = s * s;
  double p = 0.2829402506675054;
  p = p * u + 0.3199029723670342;
  p = p * u + 0.41220931674255473;
  p = p * u + 0.5770779417491351;
  p = p * u + 0.9617966941153852;
  p = p * u + 2.885390081777849;
  return exponent + s * p;
}

// erfc(z) for 0 <= z, given z and z^2: exp(-z^2) times a polynomial in (z - 3) / (z + 3), over 1 + 2 z. The
// rounding of z^2 alone would cost a float version a hundred ulp in the tail.
STET_HD double erfc_double(double z, double square) {
  const double t = (z - 3.0) / (z + 3.0);
  double p = -0.00026249861364417725;
  p = p * t - 0.0007631629882962103;
  p = p * t + 0.0020103719067825366;
  p = p * t + 0.0025620843590628333;
  p = p * t - 0.023803456712889352;
  p = p * t + 0.06829584962133486;
  p = p * t - 0.1192698727458775;
  p = p * t + 0.1296465096808;
  p = p * t - 0.047562464421229085;
  p = p * t - 0.13562114383592155;
  p = p * t + 1.2530080597333495;
  return exp2_double(square * -1.4426950408889634) * p / (1.0 + 2.0 * z);
}

STET_HD float erfc(float x) {
  const double z = at_most(10.7f, magnitude(x));
  const double tail = erfc_double(z, z * z);
  return static_cast<float>(x < 0.0f ? 2.0 - tail : tail);
}

STET_HD float gelu_erf(float x) {
  const double clamped = at_least(-15.0f, x);
  const double w = bounded_magnitude(x, 15.0f);
  const double half_tail = 0.5 * erfc_double(w * 0.70710678118654752, 0.5 * w * w);
  return static_cast<float>(clamped * (x < 0.0f ? half_tail : 1.0 - half_tail));
}

// The exponent of 2 reaches 200 in the tail: it is formed and reduced in double, the rest is float.
STET_HD float gelu_tanh(float x) {
  constexpr double shifter = 0x1.8p52;
  constexpr double log2_e = 1.4426950408889634;
  const double z = bounded_magnitude(x, 12.0f);
  const double t = z * (-2.0 * 0.7978845608028654 * log2_e + z * z * (-2.0 * 0.7978845608028654 * 0.044715 * log2_e));
  const double n = (t + shifter) - shifter;
  const float power = exp2_reduced(static_cast<float>(t - n)), exponent = static_cast<float>(n) + 12582912.0f;
  const ExpParts e = exp_parts(power, static_cast<int32_t>(bits_of(exponent) - 0x4b400000u));
  return times_logistic(at_least(-12.0f, x), e);
}

// Below 0.92 an odd polynomial; above, 1 - exp(-polynomial), where the exponential's error is scaled down.
STET_HD float erf(float x) {
  const float z = at_most(4.0f, magnitude(x));
  const float u = z * z;
  float p = 8.34522361e-05f;
  p = p * u - 0.000813743682f;
  p = p * u + 0.00520063424f;
  p = p * u - 0.0268592704f;
  p = p * u + 0.112836942f;
  p = p * u - 0.376126349f;
  p = p * u + 0.128379166f;
  float q = -0.000196069377f;
  q = q * z + 0.00304472633f;
  q = q * z - 0.0222338475f;
  q = q * z + 0.103947975f;
  q = q * z + 0.637161195f;
  q = q * z + 1.1276896f;
  q = q * z + 0.000191933024f;
  const float z16 = 16.0f * z;  // keeps z * p normal for the smallest normal z, where workers flush denormals
  const float near_zero = (z16 + z16 * p) * 0.0625f;
  return with_sign_of(z < 0.92f ? near_zero : 1.0f - exp_bounded(-q), x);
}

// pow as the C standard has it, special cases included, through 2^(y log2 |x|) in double.
STET_HD float pow(float x, float y) {
  const float ax = magnitude(x);
  double log2_ax = log2_double(ax);
  log2_ax = ax == 0.0f ? -static_cast<double>(infinity) : log2_ax;
  log2_ax = ax < infinity ? log2_ax : static_cast<double>(ax);  // +inf and NaN
  const double t = at_most(200.0, at_least(-200.0, y * log2_ax));
  const float size = static_cast<float>(exp2_double(t));
  const bool integer = __builtin_floorf(y) == y;
  const bool odd = integer && __builtin_floorf(0.5f * y) != 0.5f * y;
  float result = odd ? with_sign_of(size, x) : size;
  result = x < 0.0f && ax < infinity && !integer ? quiet_nan : result;
  result = x == -1.0f && magnitude(y) == infinity ? 1.0f : result;
  return x == 1.0f || y == 0.0f ? 1.0f : result;
}

// ---- double: the C library, arranged so that nothing cancels
// -------------------------------------------------

STET_HD double sigmoid(double x) {
  const double e = ::exp(-::fabs(x));
  return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

STET_HD double softplus(double x) { return (x > 0.0 ? x : 0.0) + ::log1p(::exp(-::fabs(x))); }

// The clamps make the limit at -inf -0 instead of inf * 0; beyond them the true value is zero in double.
STET_HD double silu(double x) { return at_least(-800.0, x) * sigmoid(x); }

STET_HD double gelu_erf(double x) { return 0.5 * at_least(-40.0, x) * ::erfc(x * -0.70710678118654752); }

STET_HD double exp_bounded(double x) { return ::exp(x); }
STET_HD double with_sign_of(double magnitude, double x) { return __builtin_copysign(magnitude, x); }

STET_HD double gelu_tanh(double x) {
  const double u = 0.7978845608028654 * x * (1.0 + 0.044715 * x * x);
  return at_least(-40.0, x) * sigmoid(2.0 * u);
}

}  // namespace detail

// ---- the interface: T is float or double
// ---------------------------------------------------------------------

template <class T> inline constexpr bool is_float = std::is_same_v<T, float>;

// clang-format off
template <class T> STET_HD T exp(T x) { if constexpr (is_float<T>) return detail::exp(x); else return ::exp(x); }
template <class T> STET_HD T expm1(T x) { if constexpr (is_float<T>) return detail::expm1(x); else return ::expm1(x); }
template <class T> STET_HD T log(T x) { if constexpr (is_float<T>) return detail::log(x); else return ::log(x); }
template <class T> STET_HD T log1p(T x) { if constexpr (is_float<T>) return detail::log1p(x); else return ::log1p(x); }
template <class T> STET_HD T sin(T x) { if constexpr (is_float<T>) return detail::sin(x); else return ::sin(x); }
template <class T> STET_HD T cos(T x) { if constexpr (is_float<T>) return detail::cos(x); else return ::cos(x); }
template <class T> STET_HD T tanh(T x) { if constexpr (is_float<T>) return detail::tanh(x); else return ::tanh(x); }
template <class T> STET_HD T erf(T x) { if constexpr (is_float<T>) return detail::erf(x); else return ::erf(x); }
template <class T> STET_HD T erfc(T x) { if constexpr (is_float<T>) return detail::erfc(x); else return ::erfc(x); }
template <class T> STET_HD T pow(T x, T y) { if constexpr (is_float<T>) return detail::pow(x, y); else return ::pow(x, y); }
template <class T> STET_HD T sqrt(T x) { if constexpr (is_float<T>) return __builtin_sqrtf(x); else return __builtin_sqrt(x); }
template <class T> STET_HD T floor(T x) { if constexpr (is_float<T>) return __builtin_floorf(x); else return __builtin_floor(x); }
template <class T> STET_HD T abs(T x) { if constexpr (is_float<T>) return detail::magnitude(x); else return __builtin_fabs(x); }
// clang-format on

template <class T> STET_HD T rsqrt(T x) { return T(1) / math::sqrt(x); }

template <class T> STET_HD T sigmoid(T x) { return detail::sigmoid(x); }

/// log(1 + exp(x)).
template <class T> STET_HD T softplus(T x) { return detail::softplus(x); }

/// x * sigmoid(x), and -0 at -inf.
template <class T> STET_HD T silu(T x) { return detail::silu(x); }

/// x * Phi(x) with the normal distribution function, written with erfc so that the left tail keeps its
/// digits.
template <class T> STET_HD T gelu_erf(T x) { return detail::gelu_erf(x); }

/// The tanh approximation: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
template <class T> STET_HD T gelu_tanh(T x) { return detail::gelu_tanh(x); }

// Slopes of the three at x. Beyond the clamps they keep the value there, 0 and 1 but for less than 1e-34, so that
// infinity times 0 never arises.

/// Phi(x) + x phi(x).
template <class T> STET_HD T gelu_erf_slope(T x) {
  const T z = detail::at_most(T(40), detail::at_least(T(-40), x));
  return T(0.5) * (T(1) + math::erf(z * T(M_SQRT1_2))) +
         z * (T(0.5 * M_2_SQRTPI * M_SQRT1_2) * math::exp(T(-0.5) * z * z));
}

/// With s = sigmoid(2 u(x)), where gelu_tanh(x) = x s: s + x s (1 - s) 2 u'. Of both factors the small one is made from
/// exp(-|2 u|). In float it stays at 3e-35 from -9.9 on.
template <class T> STET_HD T gelu_tanh_slope(T x) {
  constexpr T c = T(2 * M_2_SQRTPI * M_SQRT1_2), a = T(0.044715);
  const T size = detail::at_most(is_float<T> ? T(9.9) : T(40), math::abs(x)), square = size * size;
  const T e = detail::exp_bounded(-c * (size + a * square * size));
  const T s = T(1) / (T(1) + e), small = e * s;
  return (x < T(0) ? small : s) + detail::with_sign_of(size, x) * (s * small * (c * (T(1) + T(3) * a * square)));
}

/// s (1 + x (1 - s)) with s = sigmoid(x).
template <class T> STET_HD T silu_slope(T x) {
  const T z = detail::at_most(T(800), detail::at_least(T(-800), x)), s = detail::sigmoid(z);
  return s * (T(1) + z * (T(1) - s));
}

}  // namespace stet::math
