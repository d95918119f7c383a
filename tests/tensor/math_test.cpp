// Tests of tensor/math.h: a sample of all float inputs against the C library in double, and the special
// values. bench/ulp.cpp does the same over all 2^32 inputs.
#include <stet/tensor/math.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/denormals.h"

namespace {

using stet::test::Denormals;
namespace math = stet::math;

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float denormal = 0x1p-149f;

double exact_sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

// The limit at -inf, where the product would be inf * 0.
double times_limit(double x, double factor) { return std::isinf(x) && x < 0 ? -0.0 : x * factor; }

double exact_gelu_erf(double x) { return times_limit(x, 0.5 * std::erfc(-x * 0.70710678118654752440)); }

double exact_gelu_tanh(double x) {
  return times_limit(x, exact_sigmoid(2 * 0.79788456080286535588 * x * (1 + 0.044715 * x * x)));
}

struct Function {
  std::string name;
  float (*value)(float);
  double (*value_in_double)(double);
  double (*exact)(double);
  double bar;
};

// `f` is a generic lambda: it stands for both instantiations of a template of math.h.
template <class F> Function function(const char* name, F f, double (*exact)(double), double bar) {
  return {name, f, f, exact, bar};
}

const std::vector<Function>& functions() {
  static const std::vector<Function> list = {
      function(
          "exp", [](auto x) { return math::exp(x); }, [](double x) { return std::exp(x); }, 2),
      function(
          "expm1", [](auto x) { return math::expm1(x); }, [](double x) { return std::expm1(x); }, 2),
      function(
          "log", [](auto x) { return math::log(x); }, [](double x) { return std::log(x); }, 2),
      function(
          "log1p", [](auto x) { return math::log1p(x); }, [](double x) { return std::log1p(x); }, 2),
      function(
          "sin", [](auto x) { return math::sin(x); }, [](double x) { return std::sin(x); }, 2),
      function(
          "cos", [](auto x) { return math::cos(x); }, [](double x) { return std::cos(x); }, 2),
      function(
          "tanh", [](auto x) { return math::tanh(x); }, [](double x) { return std::tanh(x); }, 2),
      function(
          "erf", [](auto x) { return math::erf(x); }, [](double x) { return std::erf(x); }, 2),
      function(
          "erfc", [](auto x) { return math::erfc(x); }, [](double x) { return std::erfc(x); }, 2),
      function(
          "sigmoid", [](auto x) { return math::sigmoid(x); }, exact_sigmoid, 4),
      function(
          "softplus", [](auto x) { return math::softplus(x); },
          [](double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }, 2),
      function(
          "silu", [](auto x) { return math::silu(x); }, [](double x) { return times_limit(x, exact_sigmoid(x)); }, 4),
      function(
          "gelu_erf", [](auto x) { return math::gelu_erf(x); }, exact_gelu_erf, 4),
      function(
          "gelu_tanh", [](auto x) { return math::gelu_tanh(x); }, exact_gelu_tanh, 4),
      function(
          "sqrt", [](auto x) { return math::sqrt(x); }, [](double x) { return std::sqrt(x); }, 0.5),
      function(
          "rsqrt", [](auto x) { return math::rsqrt(x); }, [](double x) { return 1 / std::sqrt(x); }, 2),
      function(
          "floor", [](auto x) { return math::floor(x); }, [](double x) { return std::floor(x); }, 0),
      function(
          "abs", [](auto x) { return math::abs(x); }, [](double x) { return std::fabs(x); }, 0),
  };
  return list;
}

// In spacings of float at the exact value; infinite for a wrong class (NaN, infinity, sign of zero). Overflow
// counts as 2^128, the number after the largest float.
double ulp_error(float got, double exact) {
  if (std::isnan(got) || std::isnan(exact)) return std::isnan(got) && std::isnan(exact) ? 0 : HUGE_VAL;
  if (std::signbit(got) != std::signbit(exact)) return HUGE_VAL;
  const double g = std::fmin(0x1p128, std::fabs(got)), e = std::fmin(0x1p128, std::fabs(exact));
  const int exponent = e < 0x1p-126 ? -126 : std::min(127, std::ilogb(e));
  return std::ldexp(std::fabs(g - e), 23 - exponent);
}

bool same_number(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

float apply(const std::string& name, float x) {
  for (const Function& f : functions())
    if (f.name == name) return f.value(x);
  throw std::runtime_error("no function " + name);
}

}  // namespace

TEST_CASE("float functions are within their bar on a sample of all inputs", "[math]") {
  const Denormals denormals;
  for (const Function& f : functions()) {
    double worst = 0;
    float worst_at = 0;
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 9973) {
      const auto x = std::bit_cast<float>(static_cast<uint32_t>(bits));
      const double error = ulp_error(f.value(x), f.exact(x));
      if (error > worst) worst = error, worst_at = x;
    }
    INFO(f.name << ": " << worst << " ulp at " << worst_at);
    CHECK(worst <= f.bar);
  }
}

// The sample is uniform in bits, which leaves few inputs where networks live.
TEST_CASE("float functions are within their bar on a fine grid around zero", "[math]") {
  const Denormals denormals;
  for (const Function& f : functions()) {
    double worst = 0;
    float worst_at = 0;
    for (int i = -200'000; i <= 200'000; ++i) {
      const float x = static_cast<float>(i) * 6.1e-4f;
      const double error = ulp_error(f.value(x), f.exact(x));
      if (error > worst) worst = error, worst_at = x;
    }
    INFO(f.name << ": " << worst << " ulp at " << worst_at);
    CHECK(worst <= f.bar);
  }
}

TEST_CASE("special values agree with the exact functions, signs of zero included", "[math]") {
  const Denormals denormals;
  const float largest = std::numeric_limits<float>::max();
  const float positive[] = {0.0f, denormal, 0x1p-126f, 0x1p-30f, 0x1p-24f, 1.0f,  0.5f,    88.7228f, 88.7229f, 87.3365f,
                            90.f, 104.0f,   120.0f,    1e9f,     1e20f,    1e38f, largest, inf,      nan_value};
  for (const Function& f : functions())
    for (const float x : positive)
      for (const float argument : {x, -x}) {
        INFO(f.name << "(" << argument << ") = " << f.value(argument));
        CHECK(ulp_error(f.value(argument), f.exact(argument)) <= f.bar);
      }
}

TEST_CASE("values that must be exact", "[math]") {
  const Denormals denormals;
  struct Row {
    const char* name;
    float x, y;
  };
  const Row rows[] = {{"exp", 0, 1},
                      {"exp", -0.0f, 1},
                      {"exp", -inf, 0},
                      {"expm1", -0.0f, -0.0f},
                      {"expm1", -inf, -1},
                      {"expm1", 100, inf},
                      {"log", 1, 0},
                      {"log", 0, -inf},
                      {"log", -0.0f, -inf},
                      {"log", -1, nan_value},
                      {"log", -inf, nan_value},
                      {"log1p", -1, -inf},
                      {"log1p", -0.0f, -0.0f},
                      {"log1p", -2, nan_value},
                      {"log1p", inf, inf},
                      {"sin", -0.0f, -0.0f},
                      {"sin", inf, nan_value},
                      {"cos", 0, 1},
                      {"cos", -inf, nan_value},
                      {"tanh", -0.0f, -0.0f},
                      {"tanh", 20, 1},
                      {"tanh", -inf, -1},
                      {"erf", -0.0f, -0.0f},
                      {"erf", 6, 1},
                      {"erfc", 0, 1},
                      {"erfc", -inf, 2},
                      {"erfc", inf, 0},
                      {"sigmoid", 0, 0.5f},
                      {"sigmoid", inf, 1},
                      {"sigmoid", -inf, 0},
                      {"softplus", inf, inf},
                      {"softplus", -inf, 0},
                      {"silu", -inf, -0.0f},
                      {"gelu_erf", -inf, -0.0f},
                      {"gelu_tanh", -inf, -0.0f},
                      {"gelu_erf", inf, inf},
                      {"rsqrt", 0, inf},
                      {"rsqrt", inf, 0},
                      {"rsqrt", 4, 0.5f},
                      {"sqrt", -1, nan_value},
                      {"floor", -0.5f, -1},
                      {"floor", -0.0f, -0.0f},
                      {"abs", -0.0f, 0},
                      {"abs", -inf, inf}};
  for (const Row& row : rows) {
    INFO(row.name << "(" << row.x << ") = " << apply(row.name, row.x));
    CHECK(same_number(apply(row.name, row.x), row.y));
  }
}

TEST_CASE("denormal results are rounded, not flushed", "[math]") {
  const Denormals denormals;
  CHECK(math::exp(-103.0f) == static_cast<float>(std::exp(-103.0)));
  CHECK(math::sigmoid(-103.0f) == static_cast<float>(std::exp(-103.0)));
  CHECK(math::gelu_erf(-13.5f) == static_cast<float>(exact_gelu_erf(-13.5)));
  CHECK(math::erfc(9.7f) == static_cast<float>(std::erfc(static_cast<double>(9.7f))));
  CHECK(math::log(denormal) == static_cast<float>(std::log(0x1p-149)));
}

// Workers flush denormals to zero. That may change denormal inputs and results, and nothing else.
TEST_CASE("flushing denormals leaves normal results alone", "[math]") {
  const Denormals denormals;
  const auto without_denormals = [](float x) { return std::fabs(x) < 0x1p-126f ? 0.0f : x; };
  for (const Function& f : functions()) {
    int64_t changed = 0;
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 99991) {
      const auto x = std::bit_cast<float>(static_cast<uint32_t>(bits));
      if (without_denormals(x) == 0) continue;
      const float kept = f.value(x);
      const unsigned int mode = _mm_getcsr();
      _mm_setcsr(mode | 0x8040u);
      const float flushed = f.value(x);
      _mm_setcsr(mode);
      changed += !same_number(without_denormals(kept), without_denormals(flushed)) && without_denormals(kept) != 0;
    }
    INFO(f.name);
    CHECK(changed == 0);
  }
}

// The same on every instruction set, compiler and device: a change here changes seeded results. NaN counts as
// one value.
TEST_CASE("float functions give the pinned bits", "[math]") {
  const Denormals denormals;
  uint64_t hash = 0xcbf29ce484222325u;
  for (const Function& f : functions())
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 99991) {
      const float y = f.value(std::bit_cast<float>(static_cast<uint32_t>(bits)));
      hash = (hash ^ (std::isnan(y) ? 0x7fc00000u : std::bit_cast<uint32_t>(y))) * 0x100000001b3u;
    }
  CHECK(hash == 0xe0f69a2faaf59661u);
}

TEST_CASE("pow agrees with C's for all pairs of special values", "[math]") {
  const Denormals denormals;
  const float values[] = {0.0f, denormal, 0.5f,        0.999999f,   1.0f,  1.5f, 2.0f,
                          3.0f, 149.0f,   16777215.0f, 16777216.0f, 3e38f, inf,  nan_value};
  for (const float a : values)
    for (const float b : values)
      for (const float x : {a, -a})
        for (const float y : {b, -b}) {
          INFO("pow(" << x << ", " << y << ") = " << math::pow(x, y));
          CHECK(ulp_error(math::pow(x, y), std::pow(static_cast<double>(x), static_cast<double>(y))) <= 1);
        }
}

TEST_CASE("pow is within its bar", "[math]") {
  const Denormals denormals;
  double worst = 0;
  for (int i = 1; i < 1000; ++i)
    for (int j = -200; j <= 200; ++j) {
      const float x = static_cast<float>(i) * 0.0137f, y = static_cast<float>(j) * 0.171f;
      worst = std::fmax(worst, ulp_error(math::pow(x, y), std::pow(static_cast<double>(x), static_cast<double>(y))));
    }
  CHECK(worst <= 2);
  CHECK(math::pow(2.0, 0.5) == std::sqrt(2.0));
}

TEST_CASE("double functions keep their digits", "[math]") {
  const Denormals denormals;
  for (const Function& f : functions())
    for (double x = -30.0; x < 700.0; x += 0.37) {
      const double exact = f.exact(x);
      INFO(f.name << "(" << x << ")");
      if (std::isnan(exact)) {
        CHECK(std::isnan(f.value_in_double(x)));
      } else {
        CHECK(std::fabs(f.value_in_double(x) - exact) <= 1e-12 * std::fabs(exact));
      }
    }
  const double minus_inf = -HUGE_VAL;
  CHECK(math::sigmoid(-745.0) > 0.0);
  CHECK(math::softplus(-745.0) > 0.0);
  CHECK(math::silu(minus_inf) == 0.0);
  CHECK(math::gelu_erf(minus_inf) == 0.0);
  CHECK(math::gelu_tanh(minus_inf) == 0.0);
  CHECK(math::gelu_erf(-38.0) < 0.0);
  CHECK(std::isnan(math::gelu_erf(std::numeric_limits<double>::quiet_NaN())));
}

TEST_CASE("slopes in f32 equal those in f64", "[math]") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto compare = [&](const char* name, const auto& slope) {
    for (float x = -40; x < 40; x += 0.0037f) {
      INFO(name << "(" << x << ")");
      REQUIRE(std::fabs(slope(x) - slope(static_cast<double>(x))) <= 1e-6);
    }
    INFO(name);
    CHECK(std::fabs(slope(-inf)) < 1e-30f);
    CHECK(slope(inf) == 1.0f);
    CHECK(std::isnan(slope(nan)));
  };
  compare("gelu", [](auto x) { return math::gelu_erf_slope(x); });
  compare("gelu_tanh", [](auto x) { return math::gelu_tanh_slope(x); });
  compare("silu", [](auto x) { return math::silu_slope(x); });
}
