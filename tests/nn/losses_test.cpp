// Losses: closed forms, reductions, extreme inputs, gradients by finite differences, and misuse. Their
// numbers against PyTorch: nn_golden_test.cpp.
#include <stet/autograd/gradcheck.h>
#include <stet/nn/losses.h>
#include <stet/nn/sequence.h>

#include <cmath>
#include <limits>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using Catch::Matchers::Contains;
using nn::Reduction;
using test::message_of;
using test::spread;

namespace {

Tensor targets(const std::vector<std::int64_t>& values) { return tensor(values); }
bool is_nan(const Tensor& x) { return std::isnan(x.item()); }

}  // namespace

TEST_CASE("Cross-entropy of a closed form") {
  const Tensor logits = zeros({3, 4}, f64);
  CHECK(nn::cross_entropy(logits, targets({0, 1, 3})).item() == Approx(std::log(4)));
  CHECK(nn::cross_entropy(logits, targets({0, 1, 3}), {.label_smoothing = 0.3}).item() == Approx(std::log(4)));
  CHECK(nn::cross_entropy(logits, targets({0, 1, 3}), {.reduction = Reduction::sum}).item() == Approx(3 * std::log(4)));
  CHECK(nn::cross_entropy(logits, targets({0, 1, 3}), {.reduction = Reduction::none}).shape() == Shape{3});
  CHECK(nn::cross_entropy(logits, targets({0, 1, 3}), {.reduction = Reduction::batch_mean}).item() ==
        Approx(std::log(4)));
}

TEST_CASE("Cross-entropy divides by the weight of the targets it counts") {
  const Tensor logits = spread({3, 2}, -1, 1, 0);
  const auto row = [&](int i, std::int64_t t) {
    return nn::cross_entropy(slice(logits, 0, i, i + 1), targets({t})).item();
  };
  CHECK(nn::cross_entropy(logits, targets({0, 1, -100})).item() == Approx((row(0, 0) + row(1, 1)) / 2));
  CHECK(nn::cross_entropy(logits, targets({0, 1, 7}), {.ignore_index = 7}).item() ==
        Approx((row(0, 0) + row(1, 1)) / 2));
  const Tensor weight = tensor({3.0, 1.0});
  CHECK(nn::cross_entropy(logits, targets({0, 1, 0}), {.weight = weight}).item() ==
        Approx((3 * row(0, 0) + row(1, 1) + 3 * row(2, 0)) / 7));
  CHECK(nn::cross_entropy(logits, targets({0, 1, -100}), {.weight = weight}).item() ==
        Approx((3 * row(0, 0) + row(1, 1)) / 4));
  CHECK(is_nan(nn::cross_entropy(logits, targets({-100, -100, -100}))));
  CHECK(is_nan(nn::cross_entropy(logits, targets({-100, -100, -100}), {.weight = weight})));
}

TEST_CASE("Cross-entropy leaves out what it is told to ignore, however large the number") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const Tensor logits = spread({3, 4}, -1, 1, 3), weight = spread({4}, 0.5, 1.5, 4);
  const Tensor sequences = spread({2, 3, 4}, -1, 1, 5);
  for (const std::int64_t ignored : {most, -most - 1, (std::int64_t{1} << 53) + 1}) {
    const auto same_as_usual = [&](const auto& loss) { CHECK(loss(ignored).item() == loss(-100).item()); };
    same_as_usual([&](std::int64_t i) { return nn::cross_entropy(logits, targets({1, i, 2}), {.ignore_index = i}); });
    same_as_usual([&](std::int64_t i) {
      return nn::cross_entropy(logits, targets({1, i, 2}), {.weight = weight, .ignore_index = i});
    });
    const auto labels = [](std::int64_t i) { return reshape(targets({0, 1, i, i, 3, 2}), {2, 3}); };
    same_as_usual([&](std::int64_t i) { return nn::next_token_loss(sequences, labels(i), {.ignore_index = i}); });
    CHECK(nn::count_labels(labels(ignored), ignored) == 3);
  }
  CHECK_THAT(message_of([&] { nn::next_token_loss(sequences, zeros({2, 3}, i32)); }), Contains("target holds i32"));
}

TEST_CASE("Losses of closed forms") {
  const Tensor x = tensor({0.5, -3.0}), zero = zeros({2}, f64);
  CHECK(same(nn::mse(x, zero, Reduction::none), tensor({0.25, 9.0})));
  CHECK(same(nn::huber(x, zero, {.reduction = Reduction::none}), tensor({0.125, 2.5})));
  CHECK(same(nn::huber(x, zero, {.delta = 4, .reduction = Reduction::none}), tensor({0.125, 4.5})));
  CHECK(nn::bce_with_logits(zero, tensor({0.0, 1.0})).item() == Approx(std::log(2)));
  CHECK(nn::bce_with_logits(zero, tensor({0.0, 1.0}), {.pos_weight = scalar(3, f64)}).item() ==
        Approx(2 * std::log(2)));
  const Tensor p = tensor({0.25, 0.75});
  CHECK(nn::kl_div(log(p), p).item() == Approx(0).margin(1e-15));
  CHECK(nn::kl_div(log(tensor({0.5, 0.5})), p, {.reduction = Reduction::sum}).item() ==
        Approx(0.25 * std::log(0.5) + 0.75 * std::log(1.5)));
}

TEST_CASE("Losses survive extreme inputs") {
  CHECK(nn::cross_entropy(tensor({{1e4f, -1e4f}}), targets({0})).item() == 0);
  CHECK(nn::cross_entropy(tensor({{1e4f, -1e4f}}), targets({1})).item() == Approx(2e4));
  CHECK(nn::bce_with_logits(tensor({-80.0f}), tensor({0.0f})).item() == Approx(std::exp(-80.0)).epsilon(1e-5));
  CHECK(nn::bce_with_logits(tensor({80.0f}), tensor({1.0f})).item() == Approx(std::exp(-80.0)).epsilon(1e-5));
  CHECK(nn::bce_with_logits(tensor({1e30f}), tensor({0.0f})).item() == Approx(1e30));
  CHECK(nn::huber(tensor({1e30f}), tensor({0.0f})).item() == Approx(1e30));
  CHECK(nn::kl_div(tensor({-1.0f, -2.0f}), tensor({0.0f, 1.0f}), {.reduction = Reduction::sum}).item() == Approx(2));
  CHECK(is_nan(nn::kl_div(tensor({-1.0f}), tensor({-0.5f}))));
  // What is impossible and does not happen costs nothing, however it is written.
  const float inf = std::numeric_limits<float>::infinity();
  for (const bool logs : {false, true})
    for (const float low : {-inf, -1.0f}) {
      const Tensor x = tensor({low, -2.0f}).clone();
      x.set_requires_grad();
      const Tensor t = logs ? tensor({-inf, 0.0f}) : tensor({0.0f, 1.0f});
      const Tensor loss = nn::kl_div(x, t, {.log_target = logs, .reduction = Reduction::sum});
      CHECK(loss.item() == 2);
      loss.backward();
      CHECK(same(x.grad(), tensor({0.0f, -1.0f})));
    }
  CHECK(nn::kl_div(tensor({-inf}), tensor({0.5f})).item() == inf);
}

TEST_CASE("Reductions agree with each other") {
  const Tensor x = spread({4, 3}, -2, 2, 1), t = spread({4, 3}, 0.1, 0.9, 2);
  const auto agree = [&](const auto& loss) {
    const Tensor each = loss(Reduction::none);
    CHECK(each.shape() == x.shape());
    CHECK(loss(Reduction::sum).item() == Approx(sum(each).item()));
    CHECK(loss(Reduction::mean).item() == Approx(sum(each).item() / 12));
    CHECK(loss(Reduction::batch_mean).item() == Approx(sum(each).item() / 4));
  };
  agree([&](Reduction r) { return nn::mse(x, t, r); });
  agree([&](Reduction r) { return nn::huber(x, t, {.reduction = r}); });
  agree([&](Reduction r) { return nn::bce_with_logits(x, t, {.reduction = r}); });
  agree([&](Reduction r) { return nn::kl_div(x, t, {.reduction = r}); });
  CHECK_THAT(message_of([] { nn::mse(scalar(1), scalar(1), Reduction::batch_mean); }), Contains("[mse] batch_mean"));
}

TEST_CASE("Gradients of the losses") {
  const Tensor x = spread({5, 3}, -2, 2, 3), t = spread({5, 3}, 0.1, 0.9, 4);
  const auto right = [](const auto& loss, const std::vector<Tensor>& inputs) {
    const auto result = gradcheck(loss, inputs);
    CHECK(result.ok);
  };
  using Inputs = const std::vector<Tensor>&;
  right([](Inputs in) { return nn::mse(in[0], in[1]); }, {x, t});
  right([](Inputs in) { return nn::huber(in[0], in[1], {.delta = 0.7}); }, {x, t});
  right([](Inputs in) { return nn::bce_with_logits(in[0], in[1], {.pos_weight = tensor({0.5, 2.0, 1.0})}); }, {x, t});
  right([](Inputs in) { return nn::kl_div(in[0], in[1]); }, {x, t});
  right([](Inputs in) { return nn::kl_div(in[0], in[1], {.log_target = true}); }, {x, t});
  right(
      [](Inputs in) {
        return nn::cross_entropy(in[0], targets({0, 2, -100, 1, 1}),
                                 {.weight = tensor({1.0, 2.0, 0.5}), .label_smoothing = 0.1});
      },
      {x});
}

TEST_CASE("Losses name what does not fit") {
  const Tensor x = ones({4, 3});
  CHECK_THAT(message_of([&] { nn::mse(x, ones({4})); }),
             Contains("[mse] input (4, 3) and target (4,) must have the same shape"));
  CHECK_THAT(message_of([&] { nn::huber(x, ones({4, 1})); }), Contains("[huber] input (4, 3) and target (4, 1)"));
  CHECK_THAT(message_of([&] { nn::huber(x, x, {.delta = 0}); }), Contains("delta 0 must be positive"));
  CHECK_THAT(message_of([&] { nn::bce_with_logits(x, ones({3})); }), Contains("[bce_with_logits]"));
  CHECK_THAT(message_of([&] { nn::bce_with_logits(x, x, {.pos_weight = ones({4})}); }), Contains("(4,)"));
  CHECK_THAT(message_of([&] {
               nn::bce_with_logits(ones({3}), ones({3}), {.pos_weight = ones({2, 3})});
             }),
             Contains("pos_weight (2, 3) does not broadcast to logits (3,)"));
  CHECK_THAT(message_of([&] { nn::kl_div(x, ones({3})); }), Contains("[kl_div]"));
  CHECK_THAT(message_of([&] { nn::mse(ones({3}, i64), ones({3}, i64)); }), Contains("[mse] input holds i64"));
  CHECK_THAT(message_of([&] {
               nn::cross_entropy(x, targets({0, 1}));
             }),
             Contains("[cross_entropy] target (2,) for logits (4, 3): expected (4,)"));
  CHECK_THAT(message_of([&] {
               nn::cross_entropy(x, targets({0, 1, 3, 0}));
             }),
             Contains("target 3 at position 2 is out of range for 3 classes"));
  CHECK_THAT(message_of([&] { nn::cross_entropy(x, ones({4})); }), Contains("target holds f32, expected i64"));
  CHECK_THAT(message_of([&] {
               nn::cross_entropy(x, targets({0, 1, 2, 0}), {.weight = ones({2})});
             }),
             Contains("weight (2,) for 3 classes"));
  CHECK_THAT(message_of([&] {
               nn::cross_entropy(x, targets({0, 1, 2, 0}), {.label_smoothing = 1.5});
             }),
             Contains("label smoothing 1.5"));
}

TEST_CASE("Accuracy") {
  const Tensor logits = tensor({{0.1f, 0.9f}, {0.8f, 0.2f}, {0.3f, 0.7f}, {0.6f, 0.4f}});
  CHECK(nn::accuracy(logits, targets({1, 0, 0, 0})) == 0.75);
  CHECK(nn::accuracy(reshape(logits, {2, 2, 2}), reshape(targets({1, 0, 1, 0}), {2, 2})) == 1);
  CHECK_THAT(message_of([&] {
               nn::accuracy(logits, targets({1, 0}));
             }),
             Contains("[accuracy] target (2,) for logits (4, 2)"));
  CHECK_THAT(message_of([&] { nn::accuracy(zeros({0, 2}), zeros({0}, i64)); }), Contains("no rows"));
}
