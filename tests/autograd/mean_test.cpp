// Means and variances: exact where the numbers are, in every dtype, and differentiable twice.
#include <cmath>

#include <stet/autograd/gradcheck.h>

#include "support/catch.h"
#include "support/samples.h"

using namespace stet;
using test::spread;

TEST_CASE("the mean of ones is one, whatever their number and dtype", "[reduce]") {
  for (const DType dtype : {boolean, DType::u8, i32, i64, bf16, f32, f64}) {
    int wrong = 0;
    for (std::int64_t n = 1; n <= 1000; ++n) wrong += mean(ones({n}, dtype)).item() != 1;
    INFO(dtype);
    CHECK(wrong == 0);
  }
  CHECK(mean(ones({3}, bf16)).dtype() == bf16);
  CHECK(mean(ones({3}, i64)).dtype() == f32);
  CHECK(std::isnan(mean(zeros({0})).item()));
}

TEST_CASE("means and variances of bf16 are rounded once", "[reduce]") {
  Generator generator(2);
  for (std::int64_t n = 2; n < 300; n += 7) {
    const Tensor x = cast(rand({3, n}, generator) + 0.5, bf16), wide = cast(x, f32);
    CHECK(same(mean(x, {1}), cast(mean(wide, {1}), bf16)));
    CHECK(same(var(x, {1}, true), cast(var(wide, {1}, true), bf16)));
  }
}

TEST_CASE("means and variances have first and second derivatives", "[reduce]") {
  const Tensor x = spread({3, 4}, -1, 2, 1);
  const auto verify = [&](const char* name, const std::function<Tensor(const Tensor&)>& f) {
    const auto result =
        gradcheck([&](const auto& v) { return square(f(v[0])); }, {x}, {.second_order = true, .name = name});
    INFO(result.message);
    CHECK(result.ok);
  };
  verify("mean", [](const Tensor& v) { return mean(v); });
  verify("mean of rows", [](const Tensor& v) { return mean(v, {1}, true); });
  verify("var", [](const Tensor& v) { return var(v, {0}, false, 0.5); });
  const Tensor low = cast(x, bf16).set_requires_grad();
  mean(low).backward();
  CHECK(low.grad().dtype() == bf16);
  CHECK(same(low.grad(), cast(full({3, 4}, 1.0 / 12), bf16)));
}

TEST_CASE("a variance with a correction of n or more divides by zero", "[reduce]") {
  const Tensor x = tensor({1.f, 3.f});
  CHECK(var(x, {}, false, 1).item() == 2);
  for (const double correction : {2.0, 2.5, 3.0}) CHECK(var(x, {}, false, correction).item() == HUGE_VAL);
  CHECK(std::isnan(var(tensor({1.f})).item()));
}
