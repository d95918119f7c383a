// Error of every float function of tensor/math.h, in ulp against the C library in double, over all 2^32
// inputs. Usage: ulp [--stride N] [--only NAME]; exits with 1 if a function misses its bar.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <stet/tensor/math.h>

namespace {

namespace math = stet::math;

constexpr int block = 4096;

// One block at a time, so that the functions run inside the vector loops they are meant for.
struct Function {
  const char* name;
  void (*apply)(const float* in, float* out, double* exact);
  double bar;
};

struct Worst {
  double ulp = 0;
  float at = 0;
  float at_second = 0;  // pow's exponent
  uint64_t mismatches = 0;
  float mismatch_at = 0;

  void merge(const Worst& other) {
    if (other.ulp > ulp) ulp = other.ulp, at = other.at, at_second = other.at_second;
    if (mismatches == 0) mismatch_at = other.mismatch_at;
    mismatches += other.mismatches;
  }
};

template <class F> void apply_block(const float* in, float* out, double* exact) {
  for (int i = 0; i < block; ++i) out[i] = F::eval(in[i]);
  for (int i = 0; i < block; ++i) exact[i] = F::exact(in[i]);
}

// |got - exact| in spacings of float at `exact`; infinite if one is NaN or the signs differ, zeros included.
// Overflow counts as 2^128, the number after the largest float. Branch-free: it runs 2^32 times for each
// function.
double ulp_error(float got, double exact) {
  constexpr double limit = 0x1p128, smallest = 0x1p-126, largest = 0x1p127;
  const double g = got > limit ? limit : got < -limit ? -limit : got;
  const double e = exact > limit ? limit : exact < -limit ? -limit : exact;
  const double magnitude = std::fabs(e) < smallest ? smallest : std::fabs(e) > largest ? largest : std::fabs(e);
  const double power = __builtin_bit_cast(double, __builtin_bit_cast(uint64_t, magnitude) & 0x7ff0000000000000u);
  const double error = std::fabs(g - e) / power * 0x1p23;
  const bool signs = (__builtin_bit_cast(int64_t, static_cast<double>(got)) ^ __builtin_bit_cast(int64_t, exact)) < 0;
  const bool got_nan = got != got, exact_nan = exact != exact;
  const bool wrong = (got_nan != exact_nan) | (signs & !got_nan);
  return wrong ? HUGE_VAL : got_nan ? 0.0 : error;
}

void record(double error, float x, float second, Worst& worst) {
  if (std::isinf(error)) {
    if (worst.mismatches++ == 0) worst.mismatch_at = x;
  } else if (error > worst.ulp) {
    worst.ulp = error, worst.at = x, worst.at_second = second;
  }
}

void compare_block(const float* in, const float* out, const double* exact, Worst& worst) {
  int news = 0;
  for (int i = 0; i < block; ++i) news += ulp_error(out[i], exact[i]) > worst.ulp;
  if (news == 0) return;
  for (int i = 0; i < block; ++i) record(ulp_error(out[i], exact[i]), in[i], 0, worst);
}

Worst check_range(const Function& function, uint64_t first, uint64_t last, uint64_t stride) {
  Worst worst;
  std::vector<float> in(block), out(block);
  std::vector<double> exact(block);
  for (uint64_t start = first; start < last; start += stride * block) {
    for (size_t i = 0; i < block; ++i) {
      const auto bits = static_cast<uint32_t>(std::min(start + stride * i, last - 1));
      std::memcpy(&in[i], &bits, sizeof bits);
    }
    function.apply(in.data(), out.data(), exact.data());
    compare_block(in.data(), out.data(), exact.data(), worst);
  }
  return worst;
}

// Ranges are cut finer than the threads, since the C library's speed depends on the argument.
Worst check(const Function& function, uint64_t stride) {
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  constexpr uint64_t all = uint64_t{1} << 32, cut = all / 256;
  std::vector<Worst> found(threads);
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      for (uint64_t part = t; part < 256; part += threads)
        found[t].merge(check_range(function, part * cut, (part + 1) * cut, stride));
    });
  Worst worst;
  for (unsigned t = 0; t < threads; ++t) pool[t].join(), worst.merge(found[t]);
  return worst;
}

// ---- pow: random pairs, and all pairs of special values ---------------------------------------------------

uint64_t next_random(uint64_t& state) {  // splitmix64
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void compare_pow(float x, float y, Worst& worst) {
  record(ulp_error(math::pow(x, y), std::pow(static_cast<double>(x), static_cast<double>(y))), x, y, worst);
}

Worst check_pow(uint64_t stride) {
  Worst worst;
  constexpr float inf = std::numeric_limits<float>::infinity();
  const float specials[] = {0.f, 1.f, 2.f,  3.f,        0.5f,       1.5f,      1e-45f,    1e-38f, 3e38f,
                            inf, NAN, 1e8f, 16777215.f, 16777216.f, 0.999999f, 1.000001f, 127.f,  149.f};
  for (float x : specials)
    for (float y : specials)
      for (int signs = 0; signs < 4; ++signs) compare_pow(signs & 1 ? -x : x, signs & 2 ? -y : y, worst);
  uint64_t state = 1;
  for (uint64_t i = 0; i < 200000000 / stride + 100000; ++i) {
    const uint64_t word = next_random(state);
    const auto low = static_cast<uint32_t>(word);
    float x, y = static_cast<float>(static_cast<double>(static_cast<int32_t>(word >> 32)) * 0x1p-26);  // +-32
    std::memcpy(&x, &low, sizeof x);
    if (i % 4 == 0) y = std::floor(y);
    if (i % 4 == 1) x = 1.0f + static_cast<float>(static_cast<int32_t>(low)) * 0x1p-34f, y *= 64.0f;  // 1 +- 1/8
    if (i % 4 == 2) x = std::fabs(x), y *= 0.1f;
    compare_pow(x, y, worst);
  }
  return worst;
}

// ---- the list
// ------------------------------------------------------------------------------------------------

double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

// x * factor, with the limit -0 at -inf, where the product would be inf * 0.
double times_limit(double x, double factor) { return x == -HUGE_VAL ? -0.0 : x * factor; }

struct Exp {
  static float eval(float x) { return math::exp(x); }
  static double exact(double x) { return std::exp(x); }
};
struct Expm1 {
  static float eval(float x) { return math::expm1(x); }
  static double exact(double x) { return std::expm1(x); }
};
struct Log {
  static float eval(float x) { return math::log(x); }
  static double exact(double x) { return std::log(x); }
};
struct Log1p {
  static float eval(float x) { return math::log1p(x); }
  static double exact(double x) { return std::log1p(x); }
};
struct Sin {
  static float eval(float x) { return math::sin(x); }
  static double exact(double x) { return std::sin(x); }
};
struct Cos {
  static float eval(float x) { return math::cos(x); }
  static double exact(double x) { return std::cos(x); }
};
struct Tanh {
  static float eval(float x) { return math::tanh(x); }
  static double exact(double x) { return std::tanh(x); }
};
struct Erf {
  static float eval(float x) { return math::erf(x); }
  static double exact(double x) { return std::erf(x); }
};
struct Erfc {
  static float eval(float x) { return math::erfc(x); }
  static double exact(double x) { return std::erfc(x); }
};
struct Sigmoid {
  static float eval(float x) { return math::sigmoid(x); }
  static double exact(double x) { return sigmoid(x); }
};
struct Softplus {
  static float eval(float x) { return math::softplus(x); }
  static double exact(double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }
};
struct Silu {
  static float eval(float x) { return math::silu(x); }
  static double exact(double x) { return times_limit(x, sigmoid(x)); }
};
struct GeluErf {
  static float eval(float x) { return math::gelu_erf(x); }
  static double exact(double x) { return times_limit(x, 0.5 * std::erfc(-x * 0.70710678118654752440)); }
};
struct GeluTanh {
  static float eval(float x) { return math::gelu_tanh(x); }
  static double exact(double x) {
    return times_limit(x, sigmoid(2 * 0.79788456080286535588 * x * (1 + 0.044715 * x * x)));
  }
};
struct Sqrt {
  static float eval(float x) { return math::sqrt(x); }
  static double exact(double x) { return std::sqrt(x); }
};
struct Rsqrt {
  static float eval(float x) { return math::rsqrt(x); }
  static double exact(double x) { return 1 / std::sqrt(x); }
};
struct Floor {
  static float eval(float x) { return math::floor(x); }
  static double exact(double x) { return std::floor(x); }
};
struct Abs {
  static float eval(float x) { return math::abs(x); }
  static double exact(double x) { return std::fabs(x); }
};

const Function functions[] = {
    {"exp", apply_block<Exp>, 2},           {"expm1", apply_block<Expm1>, 2},
    {"log", apply_block<Log>, 2},           {"log1p", apply_block<Log1p>, 2},
    {"sin", apply_block<Sin>, 2},           {"cos", apply_block<Cos>, 2},
    {"tanh", apply_block<Tanh>, 2},         {"erf", apply_block<Erf>, 2},
    {"erfc", apply_block<Erfc>, 2},         {"sigmoid", apply_block<Sigmoid>, 4},
    {"softplus", apply_block<Softplus>, 2}, {"silu", apply_block<Silu>, 4},
    {"gelu_erf", apply_block<GeluErf>, 4},  {"gelu_tanh", apply_block<GeluTanh>, 4},
    {"sqrt", apply_block<Sqrt>, 0.5},       {"rsqrt", apply_block<Rsqrt>, 2},
    {"floor", apply_block<Floor>, 0},       {"abs", apply_block<Abs>, 0},
};

bool report(const char* name, const Worst& worst, double bar, bool pair) {
  const bool good = worst.ulp <= bar && worst.mismatches == 0;
  std::printf("%-10s %8.3f %6.1f   %-16.9g %10llu", name, worst.ulp, bar, worst.at,
              static_cast<unsigned long long>(worst.mismatches));
  if (pair) std::printf("   (y = %.9g)", worst.at_second);
  if (worst.mismatches != 0) std::printf("   first at %.9g", worst.mismatch_at);
  std::printf("%s\n", good ? "" : "   FAILED");
  std::fflush(stdout);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t stride = 1;
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--stride") == 0) stride = std::max(1ull, std::strtoull(argv[i + 1], nullptr, 10));
    if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
  }
  std::printf("%-10s %8s %6s   %-16s %10s\n", "function", "max ulp", "bar", "at x", "mismatches");
  bool good = true, known = only.empty();
  for (const Function& function : functions) {
    if (!only.empty() && only != function.name) continue;
    known = true;
    good = report(function.name, check(function, stride), function.bar, false) && good;
  }
  if (only.empty() || only == "pow") good = report("pow", check_pow(stride), 2, true) && good, known = true;
  if (!known) std::fprintf(stderr, "no function is called %s\n", only.c_str());
  return good && known ? 0 : 1;
}
