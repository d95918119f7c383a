// Whole numbers at the ends of their range: arithmetic that wraps, powers, ranges, and shapes whose sizes multiply to
// more than 2^63 but for a 0 among them.
#include <limits>

#include <stet/autograd/ops.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

using Whole = std::vector<std::int64_t>;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(), kLeast = -kMost - 1;

Whole whole(const Tensor& x) { return x.to_vector<std::int64_t>(); }

}  // namespace

TEST_CASE("arithmetic of integers wraps around", "[integers]") {
  const Tensor ends = tensor<std::int64_t>({kMost, kLeast}), one = whole_number(1);
  CHECK(whole(ends + one) == Whole{kLeast, kLeast + 1});
  CHECK(whole(ends - one) == Whole{kMost - 1, kMost});
  CHECK(whole(ends * 2.0) == Whole{-2, 0});
  CHECK(whole(-ends) == Whole{-kMost, kLeast});
  CHECK(whole(abs(ends)) == Whole{kMost, kLeast});
  CHECK(whole(square(ends)) == Whole{1, 0});
  CHECK(whole(sum(tensor<std::int64_t>({kMost, 3}))) == Whole{kLeast + 2});
  CHECK(whole(sum(expand(whole_number(kMost), {2000}))) == Whole{-2000});
  CHECK(whole(prod(tensor<std::int64_t>({kMost, 3}))) == Whole{kMost - 2});
  CHECK(whole(cumsum(tensor<std::int64_t>({kMost, 1, 1}), 0)) == Whole{kMost, kLeast, kLeast + 1});
  CHECK(whole(scatter_add(ends, 0, tensor<std::int64_t>({0, 0}), tensor<std::int64_t>({1, 1}))) ==
        Whole{kLeast + 1, kLeast});
  CHECK(whole(tensor<std::int32_t>({2147483647}) + tensor<std::int32_t>({1})) == Whole{-2147483648});
}

TEST_CASE("powers of integers with whole exponents of 0 or more are exact", "[integers]") {
  const Tensor x = tensor<std::int64_t>({16777217, -3, 0});
  CHECK(pow(x, 1).dtype() == i64);
  CHECK(whole(pow(x, 1)) == whole(x));
  CHECK(whole(pow(x, 0)) == Whole{1, 1, 1});
  CHECK(whole(pow(x, 2)) == Whole{281475010265089, 9, 0});
  CHECK(whole(pow(tensor<std::int64_t>({3, -3}), 39)) == Whole{4052555153018976267, -4052555153018976267});
  CHECK(whole(pow(tensor<std::int64_t>({2, 2}), 64)) == Whole{0, 0});  // wraps
  CHECK(whole(pow(tensor<std::int64_t>({1, -1}), 0x1p62)) == Whole{1, 1});
  for (int n = 0; n < 20; ++n) {
    Whole expected{1, 1};
    for (int i = 0; i < n; ++i) expected = {expected[0] * 7, expected[1] * -5};
    CHECK(whole(pow(tensor<std::int64_t>({7, -5}), n)) == expected);
  }
  const Tensor bytes = tensor<std::uint8_t>({3, 200});
  CHECK(pow(bytes, 3).dtype() == DType::u8);
  CHECK(whole(pow(bytes, 3)) == Whole{27, 0});
  CHECK(whole(pow(bytes, 300)) == Whole{113, 0});  // the exponent need not fit the bytes
  CHECK(pow(tensor({true, false}), 0).dtype() == i64);
  CHECK(whole(pow(tensor({true, false}), 3)) == Whole{1, 0});
  for (const double exponent : {-1.0, 0.5}) CHECK(pow(x, exponent).dtype() == f32);
  CHECK(pow(x, x).dtype() == f32);
  CHECK(pow(tensor<std::int64_t>({4}), 0.5).item() == 2);
  CHECK(pow(tensor<std::int64_t>({4}), -1).item() == 0.25);
  // A new tensor, also where nothing is to be done.
  const Tensor same_numbers = pow(x, 1);
  same_numbers.fill_(7);
  CHECK(whole(x) == Whole{16777217, -3, 0});
}

TEST_CASE("whole numbers beyond 2^53 are kept", "[integers]") {
  for (const std::int64_t value : {kMost, kLeast, (std::int64_t{1} << 53) + 1}) {
    CHECK(whole(whole_number(value)) == Whole{value});
    CHECK(whole(zeros({2}, i64) + whole_number(value)) == Whole{value, value});
  }
  Generator generator(1);
  for (const std::int64_t drawn : whole(randint({1000}, 0, kMost, generator))) REQUIRE((drawn >= 0 && drawn < kMost));
  for (const std::int64_t drawn : whole(randint({1000}, kMost - 2, kMost, generator))) REQUIRE(drawn >= kMost - 2);
  CHECK_THAT(message_of([&] { randint({2}, 0, kMost, generator, i32); }), Contains("i32 does not hold these"));
  CHECK_THAT(message_of([&] { randint({2}, -1, 5, generator, DType::u8); }), Contains("[randint] -1 to 4: u8"));
}

TEST_CASE("ranges of integers refuse fractions", "[integers]") {
  CHECK(message_of([] { arange(0, 1, 0.25); }) ==
        "[arange] from start 0 to stop 1 by step 0.25 in i64: expected whole numbers or a floating dtype");
  CHECK_THAT(message_of([] { arange(0.5, 3, 1, i32); }),
             Contains("[arange] from start 0.5 to stop 3 by step 1 in i32"));
  CHECK(arange(0, 1, 0.25, f64).to_vector<double>() == std::vector<double>{0, 0.25, 0.5, 0.75});
  CHECK(whole(arange(5, 0, -2)) == Whole{5, 3, 1});
  CHECK(whole(arange(0, 2.5)) == Whole{0, 1, 2});  // the end is not among the numbers
}

TEST_CASE("shapes without elements may have sizes that multiply to more than 2^63", "[integers]") {
  constexpr std::int64_t wide = std::int64_t{1} << 40;
  for (const Shape& shape : {Shape{0, wide, wide}, Shape{wide, wide, 0}, Shape{wide, 0, wide}}) {
    const Tensor x = zeros(shape);
    CHECK(x.is_contiguous());
    CHECK(x.numel() == 0);
    CHECK(contiguous(transpose(x, 0, 2)).is_contiguous());
    CHECK((x + 1.0).shape() == shape);
    CHECK(slice(x, 0, 0, 1).numel() == 0);
    CHECK(slice(x, 2, wide / 2, wide).numel() == 0);
    CHECK(reshape(x, {0}).numel() == 0);
    CHECK(flatten(x).shape() == Shape{0});
    CHECK(sum(x).item() == 0);
    CHECK(index_select(x, 0, zeros({0}, i64)).numel() == 0);
  }
  CHECK_THAT(message_of([] { sum(zeros({0, wide, wide}), {0}); }), Contains("has more than 2^63 - 1 elements"));
  CHECK_THAT(message_of([] { flatten(zeros({0, wide, wide}), 1); }), Contains("[flatten] shape "));
  CHECK(slice(zeros({0, wide, wide}), 1, wide / 2, wide).numel() == 0);
  CHECK(reshape(zeros({0}), {wide, wide, -1}).shape() == Shape({wide, wide, 0}));
  CHECK_THAT(message_of([] { reshape(zeros({0}), {wide, wide, -1, 0}); }), Contains("[reshape] 0 elements"));
  CHECK_THAT(message_of([] { reshape(zeros({6}), {wide, wide, -1}); }), Contains("[reshape] 6 elements"));
  CHECK_THAT(message_of([] { reshape(zeros({6}), {wide, wide}); }), Contains("[reshape] shape "));
}
