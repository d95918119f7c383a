// Squared per-sample gradients in one pass against the loop over samples that they replace.
#include <stet/autograd/engine.h>
#include <stet/autograd/squared.h>

#include "support/catch.h"
#include "support/samples.h"

using namespace stet;
using test::spread;

namespace {

using Losses = std::function<Tensor(const Tensor& x)>;  // (batch, ...) -> (batch,)

/// The definition: one backward pass for each sample.
std::vector<Tensor> by_loop(const Losses& f, const Tensor& x, const std::vector<Tensor>& parameters) {
  std::vector<Tensor> total;
  for (const Tensor& p : parameters) total.push_back(zeros(p.shape(), p.options()));
  for (std::int64_t b = 0; b < x.shape()[0]; ++b) {
    const auto g = grad(sum(f(slice(x, 0, b, b + 1))), parameters, {.allow_unused = true});
    for (std::size_t i = 0; i < g.size(); ++i)
      if (g[i].defined()) total[i] = total[i] + square(g[i]);
  }
  return total;
}

double worst_difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].shape() == b[i].shape());
    const double scale = std::max(max(abs(b[i])).item(), 1e-30);
    const double error = max(abs(a[i] - b[i])).item() / scale;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

Tensor leaf(const Shape& shape, double low, double high, int seed) {
  Tensor t = spread(shape, low, high, seed).clone();
  return t.set_requires_grad();
}

void same_as_loop(const Losses& f, const Tensor& x, const std::vector<Tensor>& parameters) {
  const auto fast = squared_gradients(f(x), parameters);
  CHECK(worst_difference(fast, by_loop(f, x, parameters)) <= 1e-10);
  for (const Tensor& p : parameters) CHECK_FALSE(p.grad().defined());
}

}  // namespace

TEST_CASE("squared gradients of a multi-layer perceptron", "[squared]") {
  const Tensor w1 = leaf({5, 4}, -1, 1, 1), b1 = leaf({5}, -1, 1, 2), w2 = leaf({3, 5}, -1, 1, 3),
               b2 = leaf({3}, -1, 1, 4);
  for (Activation act : {Activation::relu, Activation::tanh, Activation::gelu})
    for (std::int64_t batch : {1, 2, 7}) {
      const Tensor target = arange(batch);
      const Losses f = [&](const Tensor& x) {
        const Tensor logits = linear(linear(x, w1, b1, act), w2, b2);
        return cross_entropy_rows(logits, tensor(std::vector<std::int64_t>(static_cast<std::size_t>(x.shape()[0]), 1)));
      };
      same_as_loop(f, spread({batch, 4}, -1, 1, 5), {w1, b1, w2, b2});
    }
}

TEST_CASE("squared gradients of sequences: squares of sums, not sums of squares", "[squared]") {
  const Tensor w = leaf({5, 4}, -1, 1, 1), b = leaf({5}, -1, 1, 2), gamma = leaf({5}, 0.5, 1.5, 3),
               beta = leaf({5}, -1, 1, 4);
  const Losses f = [&](const Tensor& x) {
    return sum(square(layer_norm(tanh(linear(x, w, b)), gamma, beta)) * 0.3, {1, 2});
  };
  same_as_loop(f, spread({3, 6, 4}, -1, 1, 5), {w, b, gamma, beta});
}

TEST_CASE("squared gradients of an rms norm", "[squared]") {
  const Tensor w = leaf({5, 4}, -1, 1, 1), gamma = leaf({5}, 0.5, 1.5, 3);
  const Losses f = [&](const Tensor& x) { return sum(square(rms_norm(tanh(linear(x, w)), gamma)) * 0.3, {1, 2}); };
  same_as_loop(f, spread({3, 6, 4}, -1, 1, 5), {w, gamma});
}

TEST_CASE("squared gradients of matmul, scale and shift", "[squared]") {
  const Tensor w = leaf({4, 3}, -1, 1, 1), scale = leaf({3}, 0.5, 1, 2), shift = leaf({1, 3}, -1, 1, 3);
  same_as_loop([&](const Tensor& x) { return sum(square(matmul(x, w) * scale + shift), {1}); },
               spread({5, 4}, -1, 1, 4), {w, scale, shift});
  same_as_loop(
      [&](const Tensor& x) {
        return sum(square(matmul(x, w) / scale - shift), {1, 2});
      },
      spread({5, 2, 4}, -1, 1, 4), {w, scale, shift});
}

TEST_CASE("squared gradients where the graph does not show the batch", "[squared]") {
  const Tensor w = leaf({4, 4}, -1, 1, 1), outer = spread({4, 4}, -1, 1, 2);
  const Losses turned = [&](const Tensor& x) {
    return sum(square(transpose(matmul(outer, transpose(linear(x, w, {}, Activation::tanh))))), {1});
  };
  for (const std::int64_t batch : {1, 3, 4}) same_as_loop(turned, spread({batch, 4}, -1, 1, 3), {w});
  const Losses attended = [&](const Tensor& x) {  // every axis as long as the batch
    const Tensor y = linear(x, w), scores = softmax(matmul(y, transpose(y)));
    return sum(square(permute(matmul(scores, y), {0, 2, 1})), {1, 2});
  };
  for (const std::int64_t batch : {2, 4}) same_as_loop(attended, spread({batch, 4, 4}, -1, 1, 4), {w});
}

TEST_CASE("squared gradients of an embedding add equal ids before squaring", "[squared]") {
  const Tensor table = leaf({6, 4}, -1, 1, 1), w = leaf({6, 4}, -1, 1, 2);
  const Tensor ids = tensor<std::int64_t>({{1, 1, 5}, {0, 1, 1}, {2, 3, 2}});
  const Losses f = [&](const Tensor& x) {
    const Tensor at = cast(x, DType::i64);
    return mean(cross_entropy_rows(linear(embedding(table, at), w), at), {1});
  };
  same_as_loop(f, cast(ids, DType::f64), {table, w});
}

TEST_CASE("a shared parameter's gradients are added before squaring", "[squared]") {
  const Tensor w = leaf({4, 4}, -1, 1, 1), b = leaf({4}, -1, 1, 2);
  same_as_loop([&](const Tensor& x) { return sum(square(linear(linear(x, w, b, Activation::tanh), w, b)), {1}); },
               spread({5, 4}, -1, 1, 3), {w, b});
  // Tied embedding and head, as GPT-2 has them.
  const Tensor table = leaf({6, 4}, -1, 1, 4);
  const Losses tied = [&](const Tensor& x) {
    const Tensor at = cast(x, DType::i64);
    return mean(cross_entropy_rows(linear(embedding(table, at), table), at), {1});
  };
  same_as_loop(tied, cast(tensor<std::int64_t>({{1, 1, 5}, {0, 1, 1}}), DType::f64), {table});
}

TEST_CASE("squared gradients of a table too large for all samples at once", "[squared]") {
  const Tensor table = zeros({1 << 21, 1}).set_requires_grad();  // two samples' gradients fit
  const Tensor ids = tensor<std::int64_t>({{1, 1}, {0, 1}, {5, 5}});
  const Tensor found = squared_gradients(sum(embedding(table, ids), {1, 2}), {table})[0];
  const Tensor first = flatten(slice(found, 0, 0, 6));
  CHECK(first.to_vector<double>() == std::vector<double>{1, 2 * 2 + 1, 0, 0, 0, 2 * 2});
  CHECK(sum(found).item() == 10);
}

TEST_CASE("squared gradients of a scale whose operand is used twice", "[squared]") {
  const Tensor w = leaf({3, 4}, -1, 1, 1), scale = leaf({3}, 0.5, 1, 2);
  const Losses f = [&](const Tensor& x) {
    const Tensor h = linear(x, w);
    return sum(square(tanh(h) + scale * h), {1});
  };
  same_as_loop(f, spread({5, 4}, -1, 1, 3), {w, scale});
}

TEST_CASE("the graph is gone after squared gradients, unless it is kept", "[squared]") {
  const Tensor w = leaf({3, 4}, -1, 1, 1), x = spread({5, 4}, -1, 1, 2);
  const Tensor losses = sum(square(linear(x, w)), {1});
  const auto first = squared_gradients(losses, {w}, true);
  CHECK(worst_difference(squared_gradients(losses, {w}), first) == 0);
  CHECK_THROWS_WITH(squared_gradients(losses, {w}), Catch::Matchers::Contains("was freed"));
}

TEST_CASE("several seeds cost one weight product and equal several passes", "[squared]") {
  const Tensor w1 = leaf({5, 4}, -1, 1, 1), b1 = leaf({5}, -1, 1, 2), w2 = leaf({3, 5}, -1, 1, 3),
               b2 = leaf({3}, -1, 1, 4);
  const std::vector<Tensor> parameters{w1, b1, w2, b2};
  const Tensor x = spread({6, 4}, -1, 1, 5);
  const auto forward = [&] { return linear(linear(x, w1, b1, Activation::relu), w2, b2); };
  std::vector<Tensor> seeds, expected;
  for (int s = 0; s < 3; ++s) seeds.push_back(spread({6, 3}, -1, 1, 10 + s));
  for (const Tensor& seed : seeds) {
    const auto part = squared_gradients(sum(forward() * seed, {1}), parameters);
    for (std::size_t i = 0; i < part.size(); ++i)
      if (expected.size() <= i) expected.push_back(part[i]);
      else expected[i] = expected[i] + part[i];
  }
  CHECK(worst_difference(squared_gradients(forward(), seeds, parameters), expected) <= 1e-12);
  // A parameter that is used twice.
  const Tensor w = leaf({4, 4}, -1, 1, 6);
  const auto twice = [&] { return linear(linear(x, w, {}, Activation::tanh), w); };
  Tensor apart = zeros({4, 4}, f64);
  seeds.clear();
  for (int s = 0; s < 3; ++s) {
    seeds.push_back(spread({6, 4}, -1, 1, 20 + s));
    apart = apart + squared_gradients(sum(twice() * seeds.back(), {1}), {w})[0];
  }
  CHECK(worst_difference(squared_gradients(twice(), seeds, {w}), {apart}) <= 1e-12);
}

TEST_CASE("the batch size does not change a sum of squares", "[squared]") {
  const Tensor w = leaf({3, 4}, -1, 1, 1), b = leaf({3}, -1, 1, 2);
  const Tensor x = spread({128, 4}, -1, 1, 3);
  const auto part = [&](std::int64_t from, std::int64_t to) {
    return squared_gradients(sum(square(linear(slice(x, 0, from, to), w, b)), {1}), {w, b});
  };
  const auto whole = part(0, 128);
  for (std::int64_t batch : {1, 7, 64}) {
    std::vector<Tensor> total{zeros({3, 4}, f64), zeros({3}, f64)};
    for (std::int64_t at = 0; at < 128; at += batch) {
      const auto some = part(at, std::min<std::int64_t>(at + batch, 128));
      for (std::size_t i = 0; i < 2; ++i) total[i] = total[i] + some[i];
    }
    CHECK(worst_difference(total, whole) <= 1e-12);
  }
}

TEST_CASE("an axis as long as the batch is told from it", "[squared]") {
  const Tensor w = leaf({5, 3}, -1, 1, 1), x = spread({4, 4, 3}, -1, 1, 2);
  const auto of = [&](const Tensor& in, const Axes& order) {
    return squared_gradients(sum(sum(square(permute(linear(in, w), order)), {2}), {1}), {w})[0];
  };
  Tensor each = zeros({5, 3}, f64);
  for (std::int64_t i = 0; i < 4; ++i) each = each + of(slice(x, 0, i, i + 1), {0, 2, 1});
  CHECK(worst_difference({of(x, {0, 2, 1})}, {each}) <= 1e-12);
  CHECK_THROWS_WITH(of(x, {1, 0, 2}), Catch::Matchers::Contains("expected the batch of 4 on axis 0"));
}

TEST_CASE("an output that takes another sample's row is refused, whichever two they are", "[squared][misuse]") {
  const Tensor w = leaf({2, 3}, -1, 1, 1), x = spread({5, 3}, -1, 1, 2);
  for (std::int64_t to = 0; to < 5; ++to)
    for (std::int64_t from = 0; from < 5; ++from) {
      std::vector<std::int64_t> rows{0, 1, 2, 3, 4};
      rows[static_cast<std::size_t>(to)] = from;
      const auto square_of = [&] {
        return squared_gradients(sum(square(index_select(linear(x, w), 0, tensor(rows))), {1}), {w});
      };
      INFO(to << " takes " << from);
      if (to == from) CHECK(square_of().size() == 1);
      else CHECK_THROWS_WITH(square_of(), Catch::Matchers::Contains("whose rows reach the outputs of other samples"));
    }
}

TEST_CASE("what cannot be squared is refused by name", "[squared][misuse]") {
  const Tensor w = leaf({4, 3}, -1, 1, 1), x = spread({5, 4}, -1, 1, 2), square_w = leaf({4, 4}, -1, 1, 3);
  const auto message = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing thrown";
  };
  // A parameter that passes through another operation first.
  CHECK(message([&] {
          squared_gradients(sum(linear(x, transpose(w)), {1}), {w});
        }).find("'permute' consumes parameter") != std::string::npos);
  CHECK(message([&] {
          squared_gradients(sum(linear(x, square_w * 2.0), {1}), {square_w});
        }).find("'mul' consumes parameter") != std::string::npos);
  // A weight made of a parameter has no batch, although its rows may be as many as the samples.
  const Tensor p = leaf({3, 2}, -1, 1, 5), made_of = spread({4, 3}, -1, 1, 6);
  for (const std::int64_t batch : {4, 5}) {
    const Tensor four = spread({batch, 4}, -1, 1, 7), two = spread({batch, 2}, -1, 1, 8);
    const Tensor rows = tensor(std::vector<std::int64_t>(static_cast<std::size_t>(batch), 1));
    const auto weight = [&] { return matmul(made_of, p); };  // (4, 2)
    const auto refused = [&](const auto& outputs) {
      CHECK(message([&] { squared_gradients(outputs(), {p}); }).find("'matmul' consumes parameter") !=
            std::string::npos);
    };
    refused([&] { return sum(square(matmul(four, weight())), {1}); });
    refused([&] { return sum(square(linear(two, weight())), {1}); });
    refused([&] { return sum(square(transpose(matmul(weight(), transpose(two)))), {1}); });
    refused([&] { return sum(square(embedding(weight(), rows)), {1}); });
    refused([&] { return sum(square(four * sum(weight(), {1})), {1}); });
    refused([&] { return sum(square(two), {1}) * sum(weight()); });
  }
  // The batch folded away.
  const Tensor seq = spread({2, 5, 4}, -1, 1, 4);
  CHECK(message([&] {
          squared_gradients(sum(reshape(matmul(reshape(seq, {10, 4}), w), {2, 15}), {1}), {w});
        }).find("expected the batch of 2 on axis 0") != std::string::npos);
  CHECK(message([&] { squared_gradients(sum(matmul(x, w)), {w}); }).find("one unreduced loss a sample") !=
        std::string::npos);
  CHECK(message([&] { squared_gradients(sum(x, {1}), {w}); }).find("not computed from any parameter") !=
        std::string::npos);
}

TEST_CASE("a layer without outputs, over sequences too, has squares of no elements", "[squared]") {
  for (const Shape& shape : {Shape{2, 3}, Shape{2, 5, 3}, Shape{2, 5, 4, 3}, Shape{2, 0, 3}}) {
    const Tensor w = ones({0, 3}).set_requires_grad(), b = ones({0}).set_requires_grad();
    const Tensor scale = ones({3}).set_requires_grad();
    const Tensor y = linear(layer_norm(ones(shape), scale), w, b);
    Axes rest;
    for (int axis = 1; axis < y.rank(); ++axis) rest.push_back(axis);
    const auto found = squared_gradients(sum(y, rest), {w, b, scale});
    CHECK(found[0].shape() == Shape({0, 3}));
    CHECK(found[1].shape() == Shape({0}));
    CHECK(same(found[2], zeros({3})));
  }
}
