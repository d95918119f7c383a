// The derivatives of all elementwise operations, on one page. g is the gradient of the result y = op(x) or
// op(a, b); each line gives that of an operand. They are written in differentiable operations, so second
// derivatives come free; broadcasting is undone by the caller.
#pragma once

#include <cmath>

#include <stet/autograd/ops.h>

namespace stet {

// What a derivative reads decides what is kept for backward.
struct FromNothing {};  // of(g)
struct FromInput {};    // of(g, x)
struct FromOutput {};   // of(g, y)

using T = const Tensor&;

template <class Op> struct Derivative;

// clang-format off
template <> struct Derivative<Neg>        : FromNothing { static Tensor of(T g) { return -g; } };
template <> struct Derivative<Abs>        : FromInput   { static Tensor of(T g, T x) { return g * sign(x); } };
template <> struct Derivative<Sign>       : FromNothing { static Tensor of(T g) { return g * 0.0; } };
template <> struct Derivative<Exp>        : FromOutput  { static Tensor of(T g, T y) { return g * y; } };
template <> struct Derivative<Expm1>      : FromOutput  { static Tensor of(T g, T y) { return g * (y + 1.0); } };
template <> struct Derivative<Log>        : FromInput   { static Tensor of(T g, T x) { return g / x; } };
template <> struct Derivative<Log1p>      : FromInput   { static Tensor of(T g, T x) { return g / (x + 1.0); } };
template <> struct Derivative<Sqrt>       : FromOutput  { static Tensor of(T g, T y) { return g * 0.5 / y; } };
template <> struct Derivative<Rsqrt>      : FromOutput  { static Tensor of(T g, T y) { return g * -0.5 * (y * y * y); } };
template <> struct Derivative<Square>     : FromInput   { static Tensor of(T g, T x) { return g * 2.0 * x; } };
template <> struct Derivative<Reciprocal> : FromOutput  { static Tensor of(T g, T y) { return -g * (y * y); } };
template <> struct Derivative<Sin>        : FromInput   { static Tensor of(T g, T x) { return g * cos(x); } };
template <> struct Derivative<Cos>        : FromInput   { static Tensor of(T g, T x) { return -g * sin(x); } };
template <> struct Derivative<Tanh>       : FromOutput  { static Tensor of(T g, T y) { return g * (1.0 - y * y); } };
template <> struct Derivative<Sigmoid>    : FromOutput  { static Tensor of(T g, T y) { return g * (y * (1.0 - y)); } };
template <> struct Derivative<Relu>       : FromOutput  { static Tensor of(T g, T y) { return relu_grad(g, y); } };
template <> struct Derivative<Gelu>       : FromInput   { static Tensor of(T g, T x) { return gelu_grad(g, x); } };
template <> struct Derivative<GeluTanh>   : FromInput   { static Tensor of(T g, T x) { return gelu_tanh_grad(g, x); } };
template <> struct Derivative<Silu>       : FromInput   { static Tensor of(T g, T x) { return silu_grad(g, x); } };
template <> struct Derivative<Softplus>   : FromInput   { static Tensor of(T g, T x) { return g * sigmoid(x); } };
template <> struct Derivative<Erf>        : FromInput   { static Tensor of(T g, T x) { return g * exp(x * x * -1.0) * M_2_SQRTPI; } };
template <> struct Derivative<Floor>      : FromNothing { static Tensor of(T g) { return g * 0.0; } };

// Two operands: a() and b() give the gradients of each.
struct FromOther {};  // a(g, b), b(g, a)
struct FromBoth {};   // a(g, a, b), b(g, a, b)

template <> struct Derivative<Add> : FromNothing { static Tensor a(T g) { return g; }              static Tensor b(T g) { return g; } };
template <> struct Derivative<Sub> : FromNothing { static Tensor a(T g) { return g; }              static Tensor b(T g) { return -g; } };
template <> struct Derivative<Mul> : FromOther   { static Tensor a(T g, T b) { return g * b; }     static Tensor b(T g, T a) { return g * a; } };
template <> struct Derivative<Div> : FromBoth    { static Tensor a(T g, T, T b) { return g / b; }  static Tensor b(T g, T a, T b) { return -g * a / (b * b); } };
template <> struct Derivative<Pow> : FromBoth {  // x^0 is 1 and 0^y is 0 around their points, also where log or the power is not finite
  static Tensor a(T g, T a, T b) { return where(equal(b, b * 0.0), g * 0.0, g * b * pow(a, where(equal(b, b * 0.0), b, b - 1.0))); }
  static Tensor b(T g, T a, T b) { return where(equal(a, a * 0.0), g * a * 0.0, g * pow(a, b) * log(where(equal(a, a * 0.0), a * 0.0 + 1.0, a))); } };
template <> struct Derivative<Maximum> : FromBoth {  // equal operands: half each
  static Tensor a(T g, T a, T b) { return where(a > b, g, where(equal(a, b), g * 0.5, g * 0.0)); }
  static Tensor b(T g, T a, T b) { return where(b > a, g, where(equal(a, b), g * 0.5, g * 0.0)); } };
template <> struct Derivative<Minimum> : FromBoth {
  static Tensor a(T g, T a, T b) { return where(a < b, g, where(equal(a, b), g * 0.5, g * 0.0)); }
  static Tensor b(T g, T a, T b) { return where(b < a, g, where(equal(a, b), g * 0.5, g * 0.0)); } };
template <> struct Derivative<ReluGrad> : FromBoth { static Tensor a(T g, T, T y) { return relu_grad(g, y); } static Tensor b(T g, T, T) { return g * 0.0; } };
// The slopes' own derivatives, the second ones of gelu, gelu_tanh and silu.
template <> struct Derivative<GeluGrad> : FromBoth {
  static Tensor a(T g, T, T x) { return gelu_grad(g, x); }
  static Tensor b(T g, T g1, T x) { return g * g1 * ((2.0 - x * x) * exp(x * x * -0.5) * (0.5 * M_2_SQRTPI * M_SQRT1_2)); } };
template <> struct Derivative<GeluTanhGrad> : FromBoth {  // with t = tanh(u(x)): (1 - t^2) (u' + x u'' / 2 - x t u'^2)
  static Tensor a(T g, T, T x) { return gelu_tanh_grad(g, x); }
  static Tensor b(T g, T g1, T x) {
    const double c = M_2_SQRTPI * M_SQRT1_2;  // sqrt(2 / pi)
    const Tensor square = x * x, t = tanh((x + square * x * 0.044715) * c), slope = (square * (3 * 0.044715) + 1.0) * c;
    return g * g1 * ((1.0 - t * t) * (slope + square * (3 * 0.044715 * c) - x * t * (slope * slope))); } };
template <> struct Derivative<SiluGrad> : FromBoth {
  static Tensor a(T g, T, T x) { return silu_grad(g, x); }
  static Tensor b(T g, T g1, T x) { const Tensor s = sigmoid(x); return g * g1 * (s * (1.0 - s) * (x * (1.0 - s * 2.0) + 2.0)); } };
// clang-format on

}  // namespace stet
