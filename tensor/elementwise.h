// Elementwise operations: one struct each, in one list. Tables, gradient checks, special-value tests and
// device parity tests are folds over the lists: what is listed is compiled for every device and tested. To
// add one: write its struct, list it here, give its derivative in autograd/derivatives.h.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include <stet/tensor/macros.h>
#include <stet/tensor/math.h>
#include <stet/tensor/type_list.h>

namespace stet {

/// The type in which integers are added and multiplied: they wrap around, which signed ones must not do.
template <class T> struct Wrapping { using type = T; };
template <> struct Wrapping<std::int64_t> { using type = std::uint64_t; };
template <> struct Wrapping<std::int32_t> { using type = std::uint32_t; };
template <class T> using wrapping = typename Wrapping<T>::type;

// Unary. `integers`: also defined on integer tensors; otherwise they are converted to f32 first.

struct Neg {
  static constexpr std::string_view name = "neg";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) {
    if constexpr (std::is_integral_v<T>) return static_cast<T>(wrapping<T>(0) - static_cast<wrapping<T>>(x));
    else return static_cast<T>(-x);
  }
};
struct Abs {
  static constexpr std::string_view name = "abs";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) {
    if constexpr (std::is_floating_point_v<T>) return math::abs(x);
    else if constexpr (std::is_unsigned_v<T>) return x;
    else return x < 0 ? Neg::eval(x) : x;
  }
};
/// -1, 0 or 1; NaN stays NaN.
struct Sign {
  static constexpr std::string_view name = "sign";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) {
    const T positive = x > T(0) ? T(1) : T(0);
    if constexpr (std::is_unsigned_v<T>) return positive;
    else if constexpr (std::is_floating_point_v<T>) return x != x ? x : x < T(0) ? T(-1) : positive;
    else return x < T(0) ? T(-1) : positive;
  }
};
struct Exp {
  static constexpr std::string_view name = "exp";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::exp(x); }
};
struct Expm1 {
  static constexpr std::string_view name = "expm1";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::expm1(x); }
};
struct Log {
  static constexpr std::string_view name = "log";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::log(x); }
};
struct Log1p {
  static constexpr std::string_view name = "log1p";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::log1p(x); }
};
struct Sqrt {
  static constexpr std::string_view name = "sqrt";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::sqrt(x); }
};
struct Rsqrt {
  static constexpr std::string_view name = "rsqrt";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::rsqrt(x); }
};
struct Square {
  static constexpr std::string_view name = "square";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) {
    return static_cast<T>(static_cast<wrapping<T>>(x) * static_cast<wrapping<T>>(x));
  }
};
struct Reciprocal {
  static constexpr std::string_view name = "reciprocal";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return T(1) / x; }
};
struct Sin {
  static constexpr std::string_view name = "sin";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::sin(x); }
};
struct Cos {
  static constexpr std::string_view name = "cos";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::cos(x); }
};
struct Tanh {
  static constexpr std::string_view name = "tanh";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::tanh(x); }
};
struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::sigmoid(x); }
};
/// max(x, 0); NaN stays NaN, -0 becomes 0.
struct Relu {
  static constexpr std::string_view name = "relu";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) { return x <= T(0) ? T(0) : x; }
};
/// x Phi(x), the exact form.
struct Gelu {
  static constexpr std::string_view name = "gelu";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::gelu_erf(x); }
};
/// The tanh approximation that GPT-2 uses.
struct GeluTanh {
  static constexpr std::string_view name = "gelu_tanh";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::gelu_tanh(x); }
};
struct Silu {
  static constexpr std::string_view name = "silu";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::silu(x); }
};
struct Softplus {
  static constexpr std::string_view name = "softplus";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::softplus(x); }
};
struct Erf {
  static constexpr std::string_view name = "erf";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T x) { return math::erf(x); }
};
struct Floor {
  static constexpr std::string_view name = "floor";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T x) {
    if constexpr (std::is_floating_point_v<T>) return math::floor(x);
    else return x;
  }
};

using UnaryOps = TypeList<Neg, Abs, Sign, Exp, Expm1, Log, Log1p, Sqrt, Rsqrt, Square, Reciprocal, Sin, Cos, Tanh,
                          Sigmoid, Relu, Gelu, GeluTanh, Silu, Softplus, Erf, Floor>;

// Binary, on two operands of one dtype.

struct Add {
  static constexpr std::string_view name = "add";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T a, T b) {
    return static_cast<T>(static_cast<wrapping<T>>(a) + static_cast<wrapping<T>>(b));
  }
};
struct Sub {
  static constexpr std::string_view name = "sub";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T a, T b) {
    return static_cast<T>(static_cast<wrapping<T>>(a) - static_cast<wrapping<T>>(b));
  }
};
struct Mul {
  static constexpr std::string_view name = "mul";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T a, T b) {
    return static_cast<T>(static_cast<wrapping<T>>(a) * static_cast<wrapping<T>>(b));
  }
};
struct Div {
  static constexpr std::string_view name = "div";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T a, T b) { return a / b; }
};
struct Pow {
  static constexpr std::string_view name = "pow";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T a, T b) { return math::pow(a, b); }
};
/// NaN if either is NaN.
struct Maximum {
  static constexpr std::string_view name = "maximum";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T a, T b) { return (a > b || a != a) ? a : b; }
};
struct Minimum {
  static constexpr std::string_view name = "minimum";
  static constexpr bool integers = true;
  template <class T> STET_HD static T eval(T a, T b) { return (a < b || a != a) ? a : b; }
};
/// The gradient g where y, relu's output, is positive: relu's derivative in one pass.
struct ReluGrad {
  static constexpr std::string_view name = "relu_grad";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T g, T y) { return y > T(0) ? g : T(0); }
};

/// The gradient g of gelu(x), gelu_tanh(x) or silu(x) as that of x: the derivative in one pass.
struct GeluGrad {
  static constexpr std::string_view name = "gelu_grad";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T g, T x) { return g * math::gelu_erf_slope(x); }
};
struct GeluTanhGrad {
  static constexpr std::string_view name = "gelu_tanh_grad";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T g, T x) { return g * math::gelu_tanh_slope(x); }
};
struct SiluGrad {
  static constexpr std::string_view name = "silu_grad";
  static constexpr bool integers = false;
  template <class T> STET_HD static T eval(T g, T x) { return g * math::silu_slope(x); }
};

using BinaryOps = TypeList<Add, Sub, Mul, Div, Pow, Maximum, Minimum, ReluGrad, GeluGrad, GeluTanhGrad, SiluGrad>;

// Comparisons; the result is bool.

struct Equal {
  static constexpr std::string_view name = "equal";
  template <class T> STET_HD static bool eval(T a, T b) { return a == b; }
};
struct NotEqual {
  static constexpr std::string_view name = "not_equal";
  template <class T> STET_HD static bool eval(T a, T b) { return a != b; }
};
struct Less {
  static constexpr std::string_view name = "less";
  template <class T> STET_HD static bool eval(T a, T b) { return a < b; }
};
struct LessEqual {
  static constexpr std::string_view name = "less_equal";
  template <class T> STET_HD static bool eval(T a, T b) { return a <= b; }
};
struct Greater {
  static constexpr std::string_view name = "greater";
  template <class T> STET_HD static bool eval(T a, T b) { return a > b; }
};
struct GreaterEqual {
  static constexpr std::string_view name = "greater_equal";
  template <class T> STET_HD static bool eval(T a, T b) { return a >= b; }
};

using CompareOps = TypeList<Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual>;

// Reductions: an identity and an associative combination.

struct Sum {
  static constexpr std::string_view name = "sum";
  template <class T> STET_HD static T identity() { return T(0); }
  template <class T> STET_HD static T eval(T a, T b) { return Add::eval(a, b); }
};
struct Prod {
  static constexpr std::string_view name = "prod";
  template <class T> STET_HD static T identity() { return T(1); }
  template <class T> STET_HD static T eval(T a, T b) { return Mul::eval(a, b); }
};
/// Starts from the first element, so an empty line is an error that the caller checks.
struct Max {
  static constexpr std::string_view name = "max";
  template <class T> STET_HD static T eval(T a, T b) { return Maximum::eval(a, b); }
};
struct Min {
  static constexpr std::string_view name = "min";
  template <class T> STET_HD static T eval(T a, T b) { return Minimum::eval(a, b); }
};

using ReduceOps = TypeList<Sum, Prod, Max, Min>;

}  // namespace stet
