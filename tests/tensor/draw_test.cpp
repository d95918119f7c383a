// Draws of tensors between bounds: the upper one is never reached, and only the numbers that rounding would have taken
// there are others.
#include <cmath>
#include <limits>

#include <stet/autograd/ops.h>

#include "support/catch.h"
#include "support/device.h"

using namespace stet;
using test::same_bits;

namespace {

constexpr std::int64_t kCount = 1 << 17;

/// a + (b - a) u in f32, whose largest value is `below`: what is drawn, in plain operations.
Tensor expected(double a, double b, double below) {
  Generator generator(3);
  const Tensor u = rand({kCount}, generator);
  return minimum(u * (b - a) + a, scalar(below, f32));
}
Tensor drawn(double a, double b, DType dtype) {
  Generator generator(3);
  return uniform({kCount}, a, b, generator, dtype);
}
double most(const Tensor& x) { return max(cast(x, f64)).item(); }

}  // namespace

TEST_CASE("uniform draws stay below the upper bound, and change nowhere else", "[random]") {
  struct Bounds {
    double low, high;
  };
  for (const auto [a, b] : {Bounds{1024, 1025}, Bounds{-1025, -1024}, Bounds{1 << 20, (1 << 20) + 3}}) {
    const double below = std::nextafter(static_cast<float>(b), static_cast<float>(a));
    const Tensor x = drawn(a, b, f32);
    CHECK(most(x) == below);  // so that the bound was in reach
    CHECK(same_bits(x, expected(a, b, below)));
  }
  CHECK(same_bits(drawn(0, 1, f32), expected(0, 1, 1)));
  CHECK(same_bits(drawn(-3, 2, f32), expected(-3, 2, 2)));
  const double high = 1e15 + 1;
  CHECK(most(drawn(1e15, high, f64)) == std::nextafter(high, 0));
}

TEST_CASE("so do those in bf16", "[random]") {
  const Tensor x = drawn(0, 1, bf16);
  CHECK(most(x) == 0.99609375);
  CHECK(same_bits(x, cast(expected(0, 1, 0.99609375), bf16)));
  CHECK(most(drawn(1, 2, bf16)) == 1.9921875);
  CHECK(most(drawn(-2, -1, bf16)) == -1.0078125);
  CHECK(most(drawn(-1, 0, bf16)) < 0);
  CHECK(most(drawn(0, 1.001, bf16)) == 1);  // the last bf16 below
  CHECK(most(drawn(0, 0.999, bf16)) == 0.99609375);
}

TEST_CASE("a range of one number is that number", "[random]") {
  for (const DType dtype : {f32, f64, bf16}) {
    CHECK(most(drawn(2, 2, dtype)) == 2);
    CHECK(min(cast(drawn(2, 2, dtype), f64)).item() == 2);
    CHECK(most(drawn(0, 0, dtype)) == 0);
  }
  CHECK(most(drawn(1, 1 + 1e-12, f32)) == 1);
}
