// Fused operations against the compositions that they replace: values and gradients, first and second order.
#include <limits>

#include <stet/autograd/engine.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using test::spread;

namespace {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

double distance(const Tensor& a, const Tensor& b) { return a.numel() ? max(abs(a - b)).item() : 0; }

/// Both functions give the same values, gradients and gradients of gradients.
void equal_functions(const Function& fused, const Function& composed, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.clone().set_requires_grad());
  const Tensor a = fused(leaves), b = composed(leaves);
  REQUIRE(a.shape() == b.shape());
  CHECK(distance(a, b) <= 1e-12);
  const Tensor seed = spread(a.shape(), 0.5, 1.5, 90);
  const auto ga = grad(a, leaves, {.seed = seed, .create_graph = true}),
             gb = grad(b, leaves, {.seed = seed, .create_graph = true});
  Tensor ta = scalar(0, f64), tb = scalar(0, f64);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    CHECK(distance(ga[i], gb[i]) <= 1e-12);
    const Tensor weight = spread(leaves[i].shape(), 0.5, 1.5, 91 + static_cast<int>(i));
    ta = ta + sum(square(ga[i]) * weight);
    tb = tb + sum(square(gb[i]) * weight);
  }
  const auto ha = grad(ta, leaves, {.allow_unused = true}), hb = grad(tb, leaves, {.allow_unused = true});
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    REQUIRE(ha[i].defined() == hb[i].defined());
    if (ha[i].defined()) CHECK(distance(ha[i], hb[i]) <= 1e-10);
  }
  // The fast path, which records nothing.
  const auto fast = grad(fused(leaves), leaves, {.seed = seed});
  for (std::size_t i = 0; i < leaves.size(); ++i) CHECK(distance(fast[i], gb[i]) <= 1e-12);
}

}  // namespace

TEST_CASE("rms_norm equals its composition", "[fused]") {
  for (const Shape& shape : {Shape{4, 6}, Shape{2, 3, 37}, Shape{1, 1100}})
    equal_functions([](const auto& v) { return rms_norm(v[0], v[1], 1e-3); },
                    [](const auto& v) { return v[0] / sqrt(mean(square(v[0]), {-1}, true) + 1e-3) * v[1]; },
                    {spread(shape, -2, 2, 1), spread({shape.back()}, 0.5, 1.5, 2)});
}

TEST_CASE("layer_norm equals its composition", "[fused]") {
  for (const Shape& shape : {Shape{4, 6}, Shape{2, 3, 37}, Shape{1, 1100}}) {
    const std::int64_t n = shape.back();
    equal_functions([](const auto& v) { return layer_norm(v[0], v[1], v[2], 1e-3); },
                    [](const auto& v) {
                      const Tensor centred = v[0] - mean(v[0], {-1}, true);
                      return centred / sqrt(mean(square(centred), {-1}, true) + 1e-3) * v[1] + v[2];
                    },
                    {spread(shape, -2, 2, 1), spread({n}, 0.5, 1.5, 2), spread({n}, -1, 1, 3)});
  }
}

TEST_CASE("cross_entropy equals its composition", "[fused]") {
  const Tensor target = tensor<std::int64_t>({2, 0, -1, 4, 4}), weight = tensor(std::vector<double>{0.5, 1, 2, 1, 3});
  for (double s : {0.0, 0.2})
    for (bool weighted : {false, true}) {
      const Tensor w = weighted ? weight : ones({5}, f64);
      equal_functions(
          [&](const auto& v) {
            return cross_entropy_rows(v[0], target, {weighted ? weight : Tensor(), s, -1});
          },
          [&](const auto& v) {
            const Tensor kept = cast(greater_equal(target, scalar(0, i64)), f64);
            const Tensor at = one_hot(maximum(target, scalar(0, i64)), 5, f64), nll = -log_softmax(v[0]) * w;
            return (sum(nll * at, {-1}) * (1 - s) + sum(nll, {-1}) * (s / 5)) * kept;
          },
          {spread({5, 5}, -2, 2, 4)});
    }
}

TEST_CASE("linear equals its composition", "[fused]") {
  equal_functions([](const auto& v) { return linear(v[0], v[1], v[2], Activation::tanh); },
                  [](const auto& v) { return tanh(matmul(v[0], transpose(v[1])) + v[2]); },
                  {spread({3, 4, 5}, -1, 1, 5), spread({6, 5}, -1, 1, 6), spread({6}, -1, 1, 7)});
}

TEST_CASE("rows of no features have gradients of no elements", "[fused]") {
  const Tensor x = zeros({3, 0}).set_requires_grad(), w = zeros({2, 0}).set_requires_grad(),
               b = ones({2}).set_requires_grad();
  sum(linear(x, w, b)).backward();
  CHECK(b.grad().to_vector<double>() == std::vector<double>{3, 3});
  CHECK(w.grad().shape() == Shape({2, 0}));
  const Tensor deep = zeros({2, 3, 0}).set_requires_grad(), m = zeros({0, 4}).set_requires_grad();
  sum(matmul(deep, m)).backward();
  CHECK(m.grad().shape() == Shape({0, 4}));
  CHECK(deep.grad().shape() == Shape({2, 3, 0}));
}

TEST_CASE("norms of no features have derivatives of the second order", "[fused]") {
  const Tensor x = zeros({2, 0}, f64), w = ones({0}, f64), b = zeros({0}, f64);
  equal_functions([](const auto& v) { return layer_norm(v[0], v[1], v[2]); },
                  [](const auto& v) { return v[0] * v[1] + v[2]; }, {x, w, b});
  equal_functions([](const auto& v) { return rms_norm(v[0], v[1]); }, [](const auto& v) { return v[0] * v[1]; },
                  {x, w});
}

TEST_CASE("cross_entropy ignores any number that it is told to", "[fused]") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t ignored : {most, -most - 1, (std::int64_t{1} << 53) + 1, std::int64_t{-100}}) {
    const Tensor x = spread({3, 4}, -1, 1, 8).set_requires_grad(), target = tensor<std::int64_t>({ignored, 2, ignored});
    const Tensor loss = cross_entropy_rows(x, target, {.ignore_index = ignored});
    const auto rows = loss.to_vector<double>();
    CHECK((rows[0] == 0 && rows[1] > 0 && rows[2] == 0));
    for (const bool create_graph : {false, true}) {
      const Tensor g = grad(sum(loss), {x}, {.create_graph = create_graph, .retain_graph = true})[0].detach();
      CHECK(same(select(g, 0, 0), zeros({4}, f64)));
      CHECK(same(select(g, 0, 2), zeros({4}, f64)));
      CHECK(select(g, 0, 1).to_vector<double>()[2] < 0);
    }
  }
  // A neighbour that a double does not tell apart is no label.
  const std::int64_t odd = (std::int64_t{1} << 53) + 1;
  CHECK_THROWS_WITH(
      (cross_entropy_rows(zeros({1, 3}), tensor<std::int64_t>({odd - 1}), {.ignore_index = odd}), test::settle()),
      Catch::Matchers::Contains("[cross_entropy] target 9007199254740992 at position 0"));
}

TEST_CASE("running sums: bf16 stays bf16, and a large gradient takes nothing from small ones behind it", "[fused]") {
  const Tensor x = ones({3}).set_requires_grad();
  (cumsum(x, 0) * tensor({1e10f, 1.f, 1.f})).backward(ones({3}));
  CHECK(x.grad().to_vector<double>() == std::vector<double>{1e10, 2, 1});
  const Tensor half = cast(ones({3}), bf16).set_requires_grad();
  CHECK(cumsum(half, 0).dtype() == bf16);
  sum(cumsum(half, 0)).backward();
  CHECK(half.grad().to_vector<double>() == std::vector<double>{3, 2, 1});
}

TEST_CASE("second derivatives of powers are finite at zero", "[fused]") {
  const Tensor a = zeros({1}, f64).set_requires_grad(), b = full({1}, 3, f64).set_requires_grad();
  const Tensor first = grad(sum(pow(a, b)), {a}, {.create_graph = true})[0];
  const auto second = grad(sum(first), {a, b}, {.allow_unused = true});
  CHECK(second[0].item() == 0);
  CHECK(second[1].item() == 0);
  const Tensor by_b = grad(sum(pow(a, b)), {b}, {.create_graph = true})[0];
  for (const Tensor& g : grad(sum(by_b), {a, b}, {.allow_unused = true}))
    if (g.defined()) CHECK(g.item() == 0);
}

TEST_CASE("cross_entropy keeps its accuracy for large logits", "[fused]") {
  const Tensor big = tensor({{1000.f, 1000.f - 3.f, 998.f}, {-5000.f, -5001.f, -5000.5f}});
  const Tensor target = tensor<std::int64_t>({1, 0});
  const auto f32_loss = cross_entropy_rows(big, target).to_vector<double>();
  const auto f64_loss = cross_entropy_rows(cast(big, f64), target).to_vector<double>();
  for (std::size_t i = 0; i < 2; ++i) CHECK(std::abs(f32_loss[i] - f64_loss[i]) <= 3e-7 * std::abs(f64_loss[i]));
}

TEST_CASE("weights of any layout", "[fused]") {
  const Tensor strided = slice(tensor({{0.5f, 9.f}, {2.f, 9.f}, {1.f, 9.f}}), 1, 0, 1);
  const Tensor weight = reshape(transpose(transpose(strided)), {3}),
               view = select(tensor({{0.5f, 9.f}, {2.f, 9.f}, {1.f, 9.f}}), 1, 0);
  REQUIRE_FALSE(view.is_contiguous());
  const Tensor x = spread({4, 3}, -1, 1, 8, f32).clone().set_requires_grad(),
               target = tensor<std::int64_t>({0, 1, 2, 1});
  CHECK(same(cross_entropy_rows(x, target, {view}), cross_entropy_rows(x, target, {weight})));
  CHECK(same(grad(sum(cross_entropy_rows(x, target, {view})), {x})[0],
             grad(sum(cross_entropy_rows(x, target, {weight})), {x})[0]));
  CHECK(same(layer_norm(x, view, view), layer_norm(x, weight, weight)));
  CHECK(same(grad(sum(square(layer_norm(x, view))), {x})[0], grad(sum(square(layer_norm(x, weight))), {x})[0]));
}
