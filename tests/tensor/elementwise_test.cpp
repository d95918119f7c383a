// Folds over the operation lists: values against the C library, special values at every length, every layout,
// and reductions and products against plain loops in double precision.
#include <cfenv>
#include <cmath>

#include <stet/tensor/compute.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/samples.h"

using namespace stet;
using test::Layout;
using test::spread;

namespace {

const float kInf = std::numeric_limits<float>::infinity(), kNan = std::nanf("");
const std::vector<float> kSpecials{kNan,
                                   kInf,
                                   -kInf,
                                   0.0f,
                                   -0.0f,
                                   1e-40f,
                                   -1e-40f,
                                   std::numeric_limits<float>::max(),
                                   -std::numeric_limits<float>::max(),
                                   1.0f,
                                   -1.0f,
                                   0.5f,
                                   88.0f,
                                   -104.0f};

/// NaN, infinities, zeros and numbers are told apart; numbers must be close.
bool alike(double a, double b, double tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::abs(a - b) <= tolerance * std::max({std::abs(a), std::abs(b), 1e-30});
}

Tensor row(const std::vector<float>& values) { return tensor(values); }

}  // namespace

TEST_CASE("every unary operation: f32 against its own f64 form, in every layout", "[elementwise]") {
  UnaryOps::for_each([]<class Op>() {
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{67}, Shape{5, 7}, Shape{3, 1, 9}, Shape{0, 4}, Shape{20'000}})
      for (Layout layout : test::kLayouts) {
        const Tensor x = spread(shape, 0.1, 3, 1, f32);
        const Tensor got = compute::unary<Op>(test::in_layout(x, layout)),
                     expected = compute::unary<Op>(compute::cast(x, f64));
        REQUIRE(got.shape() == shape);
        const auto a = got.to_vector<double>(), b = expected.to_vector<double>();
        for (std::size_t i = 0; i < a.size(); ++i) {
          INFO(Op::name << ' ' << test::name_of(layout) << " at " << i);
          REQUIRE(alike(a[i], b[i], 5e-7));
        }
      }
  });
}

TEST_CASE("special values give the same answer at every position of every length 1 to 67", "[elementwise][specials]") {
  int cases = 0;
  UnaryOps::for_each([&]<class Op>() {
    for (float special : kSpecials) {
      const double alone = compute::unary<Op>(row({special})).item();
      for (std::size_t n = 1; n <= 67; ++n) {
        const auto y = compute::unary<Op>(row(std::vector<float>(n, special))).template to_vector<float>();
        for (float v : y) {
          INFO(Op::name << '(' << special << "), length " << n);
          REQUIRE(alike(v, alone, 0));
        }
        ++cases;
      }
    }
  });
  BinaryOps::for_each([&]<class Op>() {
    for (float a : kSpecials)
      for (float b : kSpecials) {
        const double alone = compute::binary<Op>(row({a}), row({b})).item();
        for (std::size_t n : {2, 7, 8, 9, 16, 31, 67}) {
          const auto y = compute::binary<Op>(row(std::vector<float>(n, a)), row(std::vector<float>(n, b)))
                             .template to_vector<float>();
          for (float v : y) {
            INFO(Op::name << '(' << a << ", " << b << "), length " << n);
            REQUIRE(alike(v, alone, 0));
          }
          ++cases;
        }
      }
  });
  CHECK(cases > 25'000);
}

TEST_CASE("NaN goes through", "[elementwise][specials]") {
  UnaryOps::for_each([]<class Op>() {
    INFO(Op::name);
    CHECK(std::isnan(compute::unary<Op>(row({kNan})).item()));
  });
  for (std::size_t n = 1; n <= 67; ++n)
    for (std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
      std::vector<float> values(n, 1.0f);
      values[at] = kNan;
      CHECK(std::isnan(max(row(values)).item()));
      CHECK(std::isnan(min(row(values)).item()));
      CHECK(std::isnan(sum(row(values)).item()));
      CHECK(argmax(row(values)).item() == static_cast<double>(at));
      CHECK(argmin(row(values)).item() == static_cast<double>(at));
      CHECK(std::isnan(softmax(row(values)).to_vector<float>()[0]));
    }
}

TEST_CASE("the largest of a row counts wherever it stands, and so does NaN", "[elementwise][specials]") {
  for (std::size_t n : {1, 5, 16, 17, 63, 64, 65, 1024, 1025, 3000})
    for (std::size_t at = 0; at<n; at += n> 100 ? 37 : 1) {
      std::vector<float> values(n, -1.0f);
      values[at] = 100.0f;  // exp(101) is not a float
      INFO(n << " values, the largest at " << at);
      REQUIRE(logsumexp(row(values), -1).item() == 100);
      values[at] = kNan;
      REQUIRE(std::isnan(logsumexp(row(values), -1).item()));
      std::fill(values.begin(), values.end(), std::numeric_limits<float>::infinity());
      values[at] = kNan;  // before and behind larger ones
      REQUIRE(std::isnan(logsumexp(row(values), -1).item()));
    }
}

TEST_CASE("integers: arithmetic, comparisons and conversions", "[elementwise]") {
  const Tensor a = tensor<std::int64_t>({-3, 0, 7}), b = tensor<std::int64_t>({2, -5, 7});
  CHECK((a + b).to_vector<std::int64_t>() == std::vector<std::int64_t>{-1, -5, 14});
  CHECK((a * b).to_vector<std::int64_t>() == std::vector<std::int64_t>{-6, 0, 49});
  CHECK(maximum(a, b).to_vector<std::int64_t>() == std::vector<std::int64_t>{2, 0, 7});
  CHECK(abs(a).to_vector<std::int64_t>() == std::vector<std::int64_t>{3, 0, 7});
  CHECK(sign(a).to_vector<std::int64_t>() == std::vector<std::int64_t>{-1, 0, 1});
  CHECK(square(tensor<std::int32_t>({5})).dtype() == i32);
  CHECK(equal(a, b).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 0, 1});
  const Tensor big = tensor<std::int64_t>({(1LL << 53) + 1});
  CHECK(equal(big, tensor<std::int64_t>({1LL << 53})).to_vector<std::int64_t>()[0] == 0);
}

TEST_CASE("reductions agree with plain loops", "[reduce]") {
  for (const Shape& shape : {Shape{1}, Shape{37}, Shape{1500}, Shape{70'001}, Shape{3, 5}, Shape{130, 90},
                             Shape{4, 5, 6}, Shape{5000, 3}, Shape{2, 3000, 5}})
    for (std::int64_t axis = 0; axis < shape.size(); ++axis)
      for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided}) {
        const Tensor x = spread(shape, -1, 1, 3, f32), in = test::in_layout(x, layout);
        const Tensor moved = contiguous(transpose(unsqueeze(cast(x, f64), -1), axis, -1));
        const std::int64_t n = shape[static_cast<int>(axis)], lines = moved.numel() / n;
        const auto all = moved.to_vector<double>();
        const auto s = sum(in, {axis}).to_vector<double>(), hi = max(in, {axis}).to_vector<double>(),
                   lo = min(in, {axis}).to_vector<double>();
        REQUIRE(static_cast<std::int64_t>(s.size()) == lines);
        for (std::int64_t l = 0; l < lines; ++l) {
          double total = 0, magnitude = 0, top = -2, bottom = 2;
          for (std::int64_t i = 0; i < n; ++i) {
            const double v = all[static_cast<std::size_t>(l * n + i)];
            total += v;
            magnitude += std::abs(v);
            top = std::max(top, v);
            bottom = std::min(bottom, v);
          }
          INFO(shape << " axis " << axis << ' ' << test::name_of(layout) << " line " << l);
          const auto at = static_cast<std::size_t>(l);
          REQUIRE(std::abs(s[at] - total) <= 4 * 6e-8 * magnitude);
          REQUIRE(hi[at] == top);
          REQUIRE(lo[at] == bottom);
        }
      }
  CHECK(sum(zeros({0})).item() == 0);
  CHECK(prod(zeros({0})).item() == 1);
  CHECK(sum(zeros({3, 0}), {1}).to_vector<double>() == std::vector<double>{0, 0, 0});
}

TEST_CASE("matrix products agree with plain loops within 8 eps (|A| |B|)", "[matmul]") {
  // Edges of tiles; several blocks along k, n and m; one row; a long sum; rows 4 KiB apart.
  const std::vector<std::array<std::int64_t, 3>> sizes{
      {1, 1, 1},       {10, 100, 784}, {100, 784, 10}, {3, 5, 7},     {17, 33, 65},   {64, 10, 256},   {49, 17, 100},
      {129, 130, 131}, {6, 16, 2},     {7, 24, 70},    {2, 200, 300}, {5, 0, 3},      {4, 3, 0},       {200, 70, 900},
      {70, 1100, 99},  {1100, 30, 80}, {61, 41, 600},  {1, 71, 300},  {66, 50, 4200}, {2048, 19, 400}, {1, 53, 90}};
  Generator generator(11);
  for (const auto& [m, n, k] : sizes)
    for (int flip = 0; flip < 4; ++flip) {
      const Tensor a = flip & 1 ? transpose(uniform({k, m}, -1, 1, generator)) : uniform({m, k}, -1, 1, generator);
      const Tensor b = flip & 2 ? transpose(uniform({n, k}, -1, 1, generator)) : uniform({k, n}, -1, 1, generator);
      const auto got = matmul(a, b).to_vector<double>();
      const auto x = a.to_vector<double>(), y = b.to_vector<double>();
      REQUIRE(static_cast<std::int64_t>(got.size()) == m * n);
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double total = 0, magnitude = 0;
          for (std::int64_t p = 0; p < k; ++p) {
            const double v = x[static_cast<std::size_t>(i * k + p)] * y[static_cast<std::size_t>(p * n + j)];
            total += v;
            magnitude += std::abs(v);
          }
          INFO(m << 'x' << n << 'x' << k << " flip " << flip << " at " << i << ", " << j);
          REQUIRE(std::abs(got[static_cast<std::size_t>(i * n + j)] - total) <= 8 * 6e-8 * magnitude + 1e-30);
        }
    }
}

TEST_CASE("a product is added to what is there", "[matmul]") {
  const std::vector<std::array<std::int64_t, 3>> sizes{
      {10, 12, 20}, {200, 70, 300}, {64, 64, 900}, {100, 33, 100}, {1024, 33, 500}};  // rows 4 KiB apart
  for (const auto& [m, n, k] : sizes)
    for (int flip = 0; flip < 4; ++flip) {
      const Tensor a = spread(flip & 1 ? Shape{k, m} : Shape{m, k}, -1, 1, 1, f32);
      const Tensor b = spread(flip & 2 ? Shape{n, k} : Shape{k, n}, -1, 1, 2, f32),
                   before = spread({m, n}, -9, 9, 3, f32);
      const Tensor target = before + 0, product = empty({m, n});
      compute::gemm_into(target, a, flip & 1, b, flip & 2, true);
      compute::gemm_into(product, a, flip & 1, b, flip & 2, false);
      INFO(m << 'x' << n << 'x' << k << " flip " << flip);
      CHECK(max(abs(target - (before + product))).item() <= 2e-4);
    }
}

TEST_CASE("a batch of large products is each product alone, bit for bit", "[matmul]") {
  const test::OnCpu host("a library of a GPU may choose another algorithm for a batch");
  const Tensor a = spread({3, 210, 200}, -1, 1, 1, f32), b = spread({3, 200, 210}, -1, 1, 2, f32), all = matmul(a, b);
  for (std::int64_t i = 0; i < 3; ++i) {
    const Tensor one = matmul(contiguous(select(a, 0, i)), contiguous(select(b, 0, i)));
    CHECK(max(abs(select(all, 0, i) - one)).item() == 0);
  }
}

/// Four roundings of the terms of each sum, which may be added in another order.
bool same_sums(const Tensor& a, const Tensor& b, const Tensor& terms) {
  return max(abs(a - b) / terms).item() <= 4 * (a.dtype() == f64 ? 0x1p-52 : 0x1p-23);
}

TEST_CASE("linear equals its composition, whatever the epilogue", "[matmul]") {
  for (std::int64_t rows : {1, 10, 64, 200, 700})
    for (Activation act :
         {Activation::none, Activation::relu, Activation::gelu, Activation::tanh, Activation::sigmoid}) {
      const Tensor x = spread({rows, 100}, -1, 1, 1, f32), w = spread({120, 100}, -1, 1, 2, f32),
                   b = spread({120}, -1, 1, 3, f32);
      Tensor plain = matmul(x, transpose(w)) + b;
      if (act == Activation::relu) plain = relu(plain);
      if (act == Activation::gelu) plain = gelu(plain);
      if (act == Activation::tanh) plain = tanh(plain);
      if (act == Activation::sigmoid) plain = sigmoid(plain);
      CHECK(same_sums(linear(x, w, b, act), plain, linear(abs(x), abs(w), abs(b))));
    }
}

TEST_CASE("linear adds each tile of columns its own part of the bias", "[matmul]") {
  for (DType dtype : {f32, f64})  // large enough that the product is cut on both sides, and along the sums
    for (std::int64_t k : {320, 2000}) {
      const Tensor x = spread({300, k}, -1, 1, 1, dtype), w = spread({500, k}, -1, 1, 2, dtype),
                   b = spread({500}, -9, 9, 3, dtype), plain = matmul(x, transpose(w)) + b;
      const Tensor terms = linear(abs(x), abs(w), abs(b));
      CHECK(same_sums(linear(x, w, b), plain, terms));
      CHECK(same_sums(linear(x, w, b, Activation::relu), relu(plain), terms));
    }
}

TEST_CASE("sorting is stable, NaN counts as the largest", "[sort]") {
  const Tensor x = tensor({3.f, kNan, 1.f, 3.f, -kInf});
  const auto up = sort(x);
  CHECK(up.indices.to_vector<std::int64_t>() == std::vector<std::int64_t>{4, 2, 0, 3, 1});
  const auto down = sort(x, -1, true);
  CHECK(down.indices.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0, 3, 2, 4});
  CHECK(topk(x, 2).indices.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0});
  CHECK(topk(x, 2, -1, false).indices.to_vector<std::int64_t>() == std::vector<std::int64_t>{4, 2});
  CHECK(cumsum(tensor<std::int64_t>({1, 2, 3}), 0).to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 3, 6});
  CHECK(argmax(tensor({2.f, 5.f, 5.f})).item() == 1);
}
