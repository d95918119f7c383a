// Diagnostics against values worked out by hand and against other forms of the same formula.
#include <cmath>

#include <stet/continual/diagnostics.h>

#include "support/catch.h"
#include "support/message.h"

using namespace stet;
using namespace stet::continual;

namespace {

/// (rows, columns) f64 of random normal numbers.
Tensor random(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  Generator generator(seed);
  return randn({rows, columns}, generator, DType::f64);
}

/// Hilbert-Schmidt independence of two linear kernels by its own definition, tr(K H L H) (Gretton et al. 2005).
double hsic(const Tensor& x, const Tensor& y) {
  const std::int64_t n = x.shape()[0];
  const Tensor h = eye(n, DType::f64) - 1.0 / static_cast<double>(n);
  const Tensor product = matmul(matmul(matmul(x, transpose(x)), h), matmul(matmul(y, transpose(y)), h));
  return sum(product * eye(n, DType::f64)).item();
}

/// (1, 1, rows, keys): query i looks at all keys up to i + keys - rows alike.
Tensor uniform_causal(std::int64_t rows, std::int64_t keys) {
  std::vector<float> p;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < keys; ++j) {
      const std::int64_t seen = i + keys - rows + 1;
      p.push_back(j < seen ? 1.0f / static_cast<float>(seen) : 0.0f);
    }
  return tensor(p, {1, 1, rows, keys});
}

}  // namespace

TEST_CASE("Weight drift is the change's norm over the norm before, of the weights that match") {
  const nn::State before{{"a.weight", tensor({3.f, 4.f})}, {"b.bias", tensor({1.f})}};
  const nn::State after{{"a.weight", tensor({3.f, 1.f})}, {"b.bias", tensor({5.f})}};
  CHECK(weight_drift(before, after, "a.*") == Approx(3.0 / 5.0));
  CHECK(weight_drift(before, after) == Approx(std::sqrt((9.0 + 16.0) / 26.0)));
  CHECK(weight_drift(before, before) == 0);
}

TEST_CASE("A generator that stands in the state is no weight") {
  const Tensor seed = tensor(std::vector<std::int64_t>{std::int64_t{1} << 60, 0});
  const nn::State before{{"a.weight", tensor({3.f, 4.f})}, {"drop.generator", seed}},
      after{{"a.weight", tensor({3.f, 1.f})}};
  CHECK(weight_drift(before, after) == Approx(3.0 / 5.0));
  CHECK(test::message_of([&] { weight_drift(before, before, "drop.*"); }).find("no weight matches") !=
        std::string::npos);
}

TEST_CASE("Weight drift names what it cannot compare") {
  const nn::State before{{"a", tensor({3.f, 4.f})}, {"zero", tensor({0.f})}};
  CHECK(test::message_of([&] { weight_drift(before, before, "c*"); }).find("no weight matches 'c*'") !=
        std::string::npos);
  CHECK(test::message_of([&] { weight_drift(before, {}, "a"); }).find("'a' is missing") != std::string::npos);
  CHECK(test::message_of([&] {
          weight_drift(before, {{"a", tensor({1.f})}}, "a");
        }).find("'a' was ") != std::string::npos);
  CHECK(test::message_of([&] { weight_drift(before, before, "zero"); }).find("all 0") != std::string::npos);
}

TEST_CASE("Linear CKA is blind to shifts, scales and rotations, and to nothing else") {
  const Tensor x = random(12, 3, 1);
  const double c = std::cos(0.7), s = std::sin(0.7);
  const Tensor turn = tensor({{c, -s, 0.0}, {s, c, 0.0}, {0.0, 0.0, -1.0}});
  CHECK(linear_cka(x, x) == Approx(1));
  CHECK(linear_cka(x, matmul(x, turn) * 5.0 + 3.0) == Approx(1));
  CHECK(linear_cka(x, x * tensor({1.0, 4.0, 1.0})) < 0.99);  // stretched along one axis
}

TEST_CASE("Linear CKA is the normalised independence criterion, whatever the widths") {
  const Tensor x = random(9, 4, 2) + 2.0, y = cat({random(9, 2, 3), slice(x, 1, 0, 1)}, 1);
  CHECK(linear_cka(x, y) == Approx(hsic(x, y) / std::sqrt(hsic(x, x) * hsic(y, y))));
  CHECK(linear_cka(x, y) == Approx(linear_cka(y, x)));
  // Uncorrelated columns.
  CHECK(linear_cka(tensor({{1.f}, {1.f}, {-1.f}, {-1.f}}), tensor({{1.f}, {-1.f}, {1.f}, {-1.f}})) == 0);
}

TEST_CASE("Linear CKA refuses what has no alignment") {
  CHECK(test::message_of([] { linear_cka(random(3, 2, 1), random(4, 2, 1)); }).find("(3, 2)") != std::string::npos);
  CHECK(test::message_of([] { linear_cka(random(1, 2, 1), random(1, 2, 1)); }).find("at least 2") != std::string::npos);
  CHECK(test::message_of([] {
          linear_cka(ones({3, 2}), random(3, 2, 1));
        }).find("the same for all") != std::string::npos);
  for (std::int64_t n = 3; n < 20; ++n)  // the mean's rounding is no difference
    CHECK(test::message_of([&] {
            linear_cka(random(n, 2, 1), full({n, 2}, 0.1, f64));
          }).find("the same for all") != std::string::npos);
}

TEST_CASE("The cosine of gradients takes all pieces together") {
  const std::vector<Tensor> a{tensor({3.f, 0.f}), tensor({{4.f}})}, b{tensor({0.f, 1.f}), tensor({{-1.f}})};
  CHECK(gradient_cosine(a, a) == Approx(1));
  CHECK(gradient_cosine(a, b) == Approx(-4 / (5 * std::sqrt(2.0))));
  CHECK(gradient_cosine(a, {Tensor(), tensor({{2.f}})}) == Approx(0.8));  // no gradient is a gradient of 0
  CHECK(gradient_cosine({a[0], Tensor()}, {a[0], tensor({{4.f}})}) == Approx(0.6));
  CHECK(std::isnan(gradient_cosine(a, {Tensor(), Tensor()})));
  CHECK(test::message_of([&] { gradient_cosine(a, {a[0]}); }).find("2 and 1 pieces") != std::string::npos);
  CHECK(test::message_of([&] { gradient_cosine(a, {a[1], a[1]}); }).find("piece 0") != std::string::npos);
}

TEST_CASE("Entropy and distance of attention that looks at all it may alike") {
  const std::int64_t rows = 4, keys = 6;
  double entropy = 0, distance = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto seen = static_cast<double>(i + keys - rows + 1);
    entropy += std::log(seen) / static_cast<double>(rows);
    distance += (seen - 1) / 2 / static_cast<double>(rows);
  }
  const Tensor p = uniform_causal(rows, keys);
  CHECK(attention_entropy(p).item() == Approx(entropy));
  CHECK(attention_distance(p).item() == Approx(distance));
}

TEST_CASE("Entropy and distance are those of each head, over batch and queries") {
  // Two samples, two heads, two queries, two keys: head 0 looks at the key of its own place, head 1 at key 0.
  const Tensor own = eye(2), first = tensor({{1.f, 0.f}, {1.f, 0.f}}), both = full({2, 2}, 0.5);
  const Tensor p = stack({stack({own, first}), stack({own, both})});
  const auto entropy = attention_entropy(p).to_vector<double>(), distance = attention_distance(p).to_vector<double>();
  REQUIRE(entropy.size() == 2);
  CHECK(entropy[0] == 0);
  CHECK(entropy[1] == Approx(std::log(2.0) / 2));
  CHECK(distance[0] == 0);
  CHECK(distance[1] == Approx((0 + 1 + 0.5 + 0.5) / 4));
  const double rare = 1e-6;
  CHECK(attention_entropy(reshape(tensor({1 - rare, rare}), {1, 1, 1, 2})).item() ==
        Approx(-rare * std::log(rare) - (1 - rare) * std::log(1 - rare)));
  CHECK(test::message_of([] { attention_entropy(ones({2, 2})); }).find("(2, 2)") != std::string::npos);
  CHECK(test::message_of([] { attention_distance(ones({1, 1, 0, 2})); }).find("empty") != std::string::npos);
}
