// The engine: accumulation, grad(), needed sides only, version counters, deep graphs, leaks.
#include <malloc.h>

#include <chrono>
#include <functional>
#include <iostream>
#include <limits>
#include <thread>

#include <stet/autograd/dot.h>
#include <stet/autograd/engine.h>

#include "support/catch.h"
#include "support/samples.h"
#include "support/sanitizers.h"

using namespace stet;
using Catch::Matchers::Contains;

namespace {

Tensor leaf(std::initializer_list<float> values) {
  Tensor t = tensor(values);
  return t.set_requires_grad();
}

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

}  // namespace

TEST_CASE("backward accumulates into leaves; grad() touches nothing", "[engine]") {
  const Tensor x = leaf({1, 2, 3});
  sum(x * x).backward();
  CHECK(values(x.grad()) == std::vector<double>{2, 4, 6});
  sum(x * 3.0).backward();
  CHECK(values(x.grad()) == std::vector<double>{5, 7, 9});
  const auto g = grad(sum(x * x * x), {x});
  CHECK(values(g[0]) == std::vector<double>{3, 12, 27});
  CHECK(values(x.grad()) == std::vector<double>{5, 7, 9});
}

TEST_CASE("the gradients of two leaves never alias", "[engine]") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  sum(a + b).backward();
  sum(a * 2.0).backward();
  CHECK(values(a.grad()) == std::vector<double>{3, 3});
  CHECK(values(b.grad()) == std::vector<double>{1, 1});
}

TEST_CASE("a gradient has its memory for itself, every element a place", "[engine]") {
  const Tensor a = leaf({1, 2, 3}), b = leaf({3, 4, 5}), seed = ones({3});
  (a + b).backward(seed);
  a.grad().fill_(0);
  CHECK(values(b.grad()) == std::vector<double>{1, 1, 1});
  CHECK(values(seed) == std::vector<double>{1, 1, 1});
  const auto both = grad(a + b, {a, b}, {.seed = seed});
  both[0].fill_(0);
  CHECK(values(both[1]) == std::vector<double>{1, 1, 1});
  CHECK(values(seed) == std::vector<double>{1, 1, 1});
  const Tensor x = leaf({1, 2, 3});
  sum(x).backward();
  x.grad().copy_(tensor({1.f, 2.f, 3.f}));
  CHECK(values(x.grad()) == std::vector<double>{1, 2, 3});
  CHECK(grad(sum(x), {x})[0].is_contiguous());
}

TEST_CASE("grad of inner tensors and of several at once", "[engine]") {
  const Tensor x = leaf({2});
  const Tensor y = x * x, z = y * 3.0 + x;
  const auto g = grad(sum(z), {y, x, z});
  CHECK(g[0].item() == 3);
  CHECK(g[1].item() == 13);
  CHECK(g[2].item() == 1);
}

TEST_CASE("one tensor asked for twice, and a pass for all after one for some", "[engine]") {
  const Tensor x = leaf({1, 2}), y = leaf({3, 4});
  const auto twice = grad(sum(x * x), {x, x});
  CHECK(values(twice[0]) == std::vector<double>{2, 4});
  CHECK(values(twice[1]) == std::vector<double>{2, 4});
  const Tensor loss = sum((x * x) * y);
  CHECK(values(grad(loss, {y}, {.retain_graph = true})[0]) == std::vector<double>{1, 4});
  loss.backward();
  CHECK(values(x.grad()) == std::vector<double>{6, 16});
}

TEST_CASE("second derivatives through slices that lie over each other", "[engine]") {
  const Tensor x = leaf({1, 2, 3});
  const Tensor h = x * x;
  const Tensor loss = sum(square(slice(h, 0, 0, 2))) + sum(square(slice(h, 0, 1, 3))) * 3.0;  // c x^4, c: 1, 4, 3
  const Tensor first = grad(loss, {x}, {.create_graph = true})[0];
  CHECK(values(first) == std::vector<double>{4, 4 * 4 * 8, 3 * 4 * 27});
  CHECK(values(grad(sum(first), {x})[0]) == std::vector<double>{12, 4 * 12 * 4, 3 * 12 * 9});
}

TEST_CASE("slices of one tensor gather in one sum", "[engine]") {
  constexpr std::int64_t n = 16, width = 4096;
  const Tensor x = test::spread({n, width}, -1, 1, 1, f32).set_requires_grad();
  const Tensor weights = test::spread({n, width}, -1, 1, 2, f32), seed = test::spread({n, width}, -1, 1, 3, f32);
  const auto of_slices = [&](const Tensor& from, std::int64_t step) {  // sum of weights * from, slice by slice
    Tensor total = scalar(0);
    for (std::int64_t i = 0; i < n; i += step)
      total = total + sum(slice(from, 0, i, i + step) * slice(weights, 0, i, i + step));
    return total;
  };
  Tensor y = x * 1;
  Tensor loss = of_slices(y, 1);
  const std::int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  loss.backward();
  CHECK(memory_stats().peak_bytes - before < 5 * x.bytes() / 2);  // two for each slice would be alive at once
  CHECK(test::same_bits(x.grad(), weights));

  // Overlapping slices, beside a path that hands on a gradient which others hold: the seed stays as it was.
  const Tensor kept = seed.clone();
  y = x * 1;
  loss = reshape(y, {n * width});
  x.set_grad({});
  (y + expand(unsqueeze(of_slices(y, 1) + of_slices(y, 4), 0), {n, width})).backward(seed);
  CHECK(test::same_bits(seed, kept));
  const double all = sum(seed).item();
  CHECK(max(abs(x.grad() - (seed + weights * 2 * all))).item() < 1e-3);

  // With a graph of the gradients.
  y = x * x;
  const Tensor first = grad(of_slices(y * y, 2), {x}, {.create_graph = true})[0];
  CHECK(max(abs(first.detach() - 4 * x.detach() * square(x.detach()) * weights)).item() < 1e-5);
  const Tensor second = grad(sum(first), {x})[0];
  CHECK(max(abs(second - 12 * square(x.detach()) * weights)).item() < 1e-4);
}

TEST_CASE("pieces of a split write their gradients side by side", "[engine]") {
  constexpr std::int64_t rows = 40, width = 600;
  const std::vector<std::int64_t> sizes{100, 0, 300, 200};
  const Tensor x = test::spread({rows, width}, -1, 1, 1, f32).set_requires_grad();
  const Tensor weights = test::spread({rows, width}, -1, 1, 2, f32);
  const auto loss_of = [&](const Tensor& from, std::vector<std::size_t> used) {
    const auto parts = split(from, sizes, 1), factors = split(weights, sizes, 1);
    Tensor total = scalar(0);
    for (std::size_t i : used) total = total + sum(parts[i] * factors[i]);
    return total;
  };
  const auto expected = [&](std::vector<std::size_t> used) {
    std::vector<Tensor> parts = split(zeros({rows, width}, f32), sizes, 1);
    for (std::size_t i : used) parts[i] = split(weights, sizes, 1)[i];
    return cat(parts, 1);
  };
  const Tensor dirt = full({rows, width}, std::numeric_limits<double>::quiet_NaN(), f32);  // what lies in free memory
  for (const auto& used : std::vector<std::vector<std::size_t>>{{0, 1, 2, 3}, {3, 1, 0, 2}, {2}, {0, 3}, {1}, {1, 2}}) {
    x.set_grad({});
    const Tensor y = x * 1, loss = loss_of(y, used);
    { const Tensor gone = dirt.clone(); }
    loss.backward({}, true);
    CHECK(test::same_bits(x.grad(), expected(used)));
    x.set_grad({});
    { const Tensor gone = dirt.clone(); }
    loss.backward();  // the same graph again
    CHECK(test::same_bits(x.grad(), expected(used)));
  }

  // All pieces: nothing is summed, and one tensor holds the gradients.
  x.set_grad({});
  const Tensor y = x * 1, loss = loss_of(y, {0, 2, 3});
  const std::int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  loss.backward();
  CHECK(memory_stats().peak_bytes - before < 5 * x.bytes() / 2);

  // Pieces that come one after the other do not pile up, and a pass that ends at them leaves nothing behind.
  {
    const auto many = split(x, 10, 1);
    Tensor total = scalar(0);
    for (const Tensor& piece : many) total = total + sum(piece * piece);
    const std::int64_t live = memory_stats().live_bytes;
    reset_peak_memory();
    grad(total, {many[0], many[7]}, {.retain_graph = true});
    CHECK(memory_stats().live_bytes == live);
    const Tensor g = grad(total, {x})[0];
    CHECK(memory_stats().peak_bytes - live < 3 * x.bytes() / 2);
    CHECK(test::same_bits(g, 2 * x.detach()));
  }

  // Gradients that lie in one memory, but in another order, or between others.
  for (const bool swapped : {false, true})
    for (const int axis : {0, 1}) {
      const std::int64_t half = x.shape()[axis] / 2;
      const auto halves = split(x, half, axis), factors = split(weights, half, axis);
      const auto loss_by = [&](std::vector<Tensor> own, std::vector<Tensor> other) {
        return sum(cat(own, axis) * cat(other, axis));
      };
      const Tensor turned = loss_by({halves[swapped], halves[!swapped]}, {factors[swapped], factors[!swapped]});
      CHECK(test::same_bits(grad(turned, {x}, {.retain_graph = true})[0].clone(), weights));
      const Tensor v = x.detach(), between = loss_by({v, halves[swapped], v, halves[!swapped]},
                                                     {v, factors[swapped], v, factors[!swapped]});
      CHECK(test::same_bits(grad(between, {x})[0].clone(), weights));
    }

  // A pass that ends at a piece, before one that has nothing from it.
  const auto parts = split(x, sizes, 1);
  const Tensor left = sum(parts[0]), right = sum(parts[2] * split(weights, sizes, 1)[2]);
  CHECK(test::same_bits(grad(left, {parts[0]}, {.retain_graph = true})[0].clone(), ones({rows, 100}, f32)));
  CHECK(test::same_bits(grad(right, {x})[0], expected({2})));

  // And one that ends in an error, before one that has nothing from the piece that it reached.
  for (const bool first : {false, true}) {
    const auto some = split(x, sizes, 1);
    const Tensor kept = full({rows, 300}, 2, f32), good = sum(some[0]), bad = sum(some[2] * kept);
    const Tensor both = first ? good + bad : bad + good;
    kept.copy_(zeros({rows, 300}, f32));
    CHECK_THROWS_AS(grad(both, {x}, {.retain_graph = true}), Error);
    CHECK(test::same_bits(grad(sum(some[2] * split(weights, sizes, 1)[2]), {x})[0], expected({2})));
  }

  // Beside other ways to the same tensor, and with a graph of the gradients.
  const Tensor z = x * x;
  const Tensor first = grad(loss_of(z, {2, 0}) + sum(z) + loss_of(z * z, {0, 3}), {x}, {.create_graph = true})[0];
  const Tensor v = x.detach(), slope = 2 * v * (expected({0, 2}) + 1) + 4 * v * square(v) * expected({0, 3});
  CHECK(max(abs(first.detach() - slope)).item() < 1e-5);
  const Tensor second = grad(sum(first), {x})[0];
  const Tensor curve = 2 * (expected({0, 2}) + 1) + 12 * square(v) * expected({0, 3});
  CHECK(max(abs(second - curve)).item() < 1e-4);
}

TEST_CASE("an embedding adds its rows to the gradient that a tied table has", "[engine]") {
  constexpr std::int64_t rows = 5000, width = 64;
  const Tensor table = test::spread({rows, width}, -1, 1, 1, f32).set_requires_grad();
  const Tensor ids = tensor<std::int64_t>({3, 7, 3, 4999}), weights = test::spread({4, width}, -1, 1, 2, f32);
  const auto loss_of = [&] {  // the table is the output's weight as well, as in GPT-2
    return sum(linear(embedding(table, ids) * weights, table)) * 0.125;
  };
  const auto g = grad(loss_of(), {table})[0];  // collected apart: sums of whole tensors
  CHECK_FALSE(table.grad().defined());

  Tensor loss = loss_of();
  const std::int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  loss.backward();
  CHECK(memory_stats().peak_bytes - before < 3 * table.bytes() / 2);  // the gradient, and no second one beside it
  CHECK(max(abs(table.grad() - g)).item() <= 1e-5 * max(abs(g)).item());

  const Tensor kept = table.grad(), copy = kept.clone();  // somebody looks at it: it stays
  loss_of().backward();
  CHECK(test::same_bits(kept, copy));
  CHECK(max(abs(table.grad() - 2 * g)).item() <= 1e-5 * max(abs(g)).item());

  table.set_grad(copy.clone());  // from an earlier batch: embedding alone
  sum(embedding(table, ids) * weights).backward();
  const Tensor rest = grad(sum(embedding(table, ids) * weights), {table})[0];
  CHECK(max(abs(table.grad() - (copy + rest))).item() <= 1e-5 * max(abs(g)).item());
}

TEST_CASE("second and third derivatives", "[engine]") {
  const Tensor x = leaf({2});
  Tensor y = sum(pow(x, 4.0));
  std::vector<double> seen;
  for (int order = 1; order <= 3; ++order) {
    y = sum(grad(y, {x}, {.create_graph = true})[0]);
    seen.push_back(y.item());
  }
  CHECK(seen == std::vector<double>{32, 48, 48});
}

TEST_CASE("a frozen weight costs no gradient product and keeps no input", "[engine]") {
  const Tensor x = test::spread({64, 256}, -1, 1, 1, f32), w = test::spread({256, 256}, -1, 1, 2, f32);
  const Tensor b = zeros({256}).set_requires_grad();
  const auto before = memory_stats();
  const Tensor h = linear(x * 1.0, w, b);  // only the bias learns: the product of x is not needed again
  (void)h;
  // x * 1.0 would be kept for the weight's gradient. A bias alone still holds it (it shares linear's node),
  // so freeze the bias too and nothing at all is kept.
  const Tensor frozen = linear(x * 1.0, w, zeros({256}));
  CHECK_FALSE(frozen.requires_grad());
  CHECK(memory_stats().live_bytes - before.live_bytes <= 3 * 64 * 256 * 4 + 4 * 256 + 64);
  const Tensor through = relu(leaf({1, 2}));
  const Tensor z = matmul(reshape(through, {1, 2}), tensor({{1.f, 2.f}, {3.f, 4.f}}));
  const auto live = memory_stats().live_tensors;
  sum(z).backward();
  CHECK(memory_stats().live_tensors <= live + 1);  // the leaf's gradient, minus what backward freed
}

TEST_CASE("an input changed in place after it was saved makes backward throw", "[engine][misuse]") {
  const Tensor x = leaf({1, 2}), c = tensor({3.f, 4.f});
  const Tensor y = sum(x * c);
  c.fill_(0);
  CHECK_THROWS_WITH(y.backward(), Contains("[mul] input 1 (2,) was modified in place after it was saved"));
  const Tensor a = leaf({1, 2});
  Tensor e = exp(a);
  const Tensor loss = sum(e * 2.0);
  {
    const NoGrad no_grad;
    e.fill_(1);
  }
  CHECK_THROWS_WITH(loss.backward(), Contains("[exp] its result (2,) was modified in place"));
  // Views share the counter.
  const Tensor base = tensor({1.f, 2.f, 3.f, 4.f});
  const Tensor part = sum(x * slice(base, 0, 0, 2));
  slice(base, 0, 3, 4).fill_(9);
  CHECK_THROWS_WITH(part.backward(), Contains("modified in place"));
  // Indices, conditions and targets too.
  const Tensor table = ones({2, 2}).set_requires_grad();
  const auto changed = [&](const Tensor& index, const std::function<Tensor(const Tensor&)>& f) {
    const Tensor result = sum(f(index));
    index.copy_(zeros(index.shape(), index.dtype()));
    CHECK_THROWS_WITH(result.backward(), Contains("modified in place"));
  };
  const auto ids = [] { return tensor<std::int64_t>({1, 0}); };
  changed(ids(), [&](const Tensor& i) { return embedding(table, i); });
  changed(ids(), [&](const Tensor& i) { return index_select(table, 0, i); });
  changed(ids(), [&](const Tensor& i) { return index_add(table, 0, i, 2); });
  changed(ids(), [&](const Tensor& i) { return cross_entropy_rows(table, i); });
  changed(ones({2}), [&](const Tensor& weight) { return cross_entropy_rows(table, ids(), {.weight = weight}); });
  changed(reshape(ids(), {1, 2}), [&](const Tensor& i) { return gather(table, 0, i); });
  changed(reshape(ids(), {1, 2}), [&](const Tensor& i) {
    return scatter_add(zeros({2, 2}), 0, i, slice(table, 0, 0, 1));
  });
  changed(tensor({true, false}), [&](const Tensor& which) { return where(which, table, table * 2.0); });
  const auto order = sort(table, 1);
  changed(order.indices, [&](const Tensor&) { return order.values; });
}

TEST_CASE("misuse of backward and grad", "[engine][misuse]") {
  const Tensor x = leaf({1, 2, 3});
  CHECK_THROWS_WITH((x * 2.0).backward(), Contains("needs a one-element loss or an explicit seed, got shape (3,)"));
  CHECK_THROWS_WITH((x * 2.0).backward(ones({2})), Contains("seed f32 (2,) for a loss f32 (3,)"));
  CHECK_THROWS_WITH(tensor({1.f}).backward(), Contains("does not depend on any tensor that asks for gradients"));
  const Tensor y = sum(x * x);
  y.backward();
  CHECK_THROWS_WITH(y.backward(), Contains("was freed by an earlier backward"));
  const Tensor kept = sum(x * x);
  kept.backward({}, true);
  CHECK_NOTHROW(kept.backward());
  CHECK_THROWS_WITH(grad(sum(x), {tensor({1.f})}), Contains("tensor 0 (1,) does not ask for gradients"));
  const Tensor other = leaf({1});
  CHECK_THROWS_WITH(grad(sum(x), {other}), Contains("the loss does not depend on tensor 0"));
  CHECK_FALSE(grad(sum(x), {other}, {.allow_unused = true})[0].defined());
  CHECK_THROWS_WITH(x.fill_(1), Contains("in-place write to a tensor (3,) that records history"));
  CHECK_THROWS_WITH((x * 2.0).set_requires_grad(), Contains("was computed from others"));
  CHECK_THROWS_WITH((x * 2.0).grad(), Contains("only leaves keep a gradient"));
  CHECK_THROWS_WITH(arange(3).set_requires_grad(), Contains("holds i64"));
  CHECK_THROWS_WITH(x.set_grad(ones({4})),
                    Contains("[set_grad] gradient f32 (4,) on ") && Contains(" for tensor f32 (3,) on "));
  CHECK_THROWS_WITH(x.set_grad(ones({3}, f64)), Contains("gradient f64 (3,)"));
}

TEST_CASE("a pass that throws leaves the graph usable", "[engine]") {
  const Tensor x = leaf({1, 2}), c = tensor({3.f, 4.f});
  const Tensor inner = x * 2.0, y = sum(inner * c) + sum(inner);
  c.fill_(1);
  CHECK_THROWS(y.backward({}, true));
  x.set_grad(Tensor());
  const Tensor fresh = sum(inner * 5.0);
  fresh.backward();
  CHECK(values(x.grad()) == std::vector<double>{10, 10});
}

TEST_CASE("NoGrad and detach cut the history", "[engine]") {
  const Tensor x = leaf({1, 2});
  {
    const NoGrad no_grad;
    CHECK_FALSE((x * 2.0).requires_grad());
  }
  CHECK((x * 2.0).requires_grad());
  CHECK_FALSE(x.detach().requires_grad());
  x.detach().fill_(7);  // shares memory
  CHECK(values(x) == std::vector<double>{7, 7});
}

TEST_CASE("nothing stays alive after a graph is gone", "[engine][leak]") {
  const auto before = memory_stats();
  {
    const Tensor x = leaf({1, 2, 3});
    const Tensor y = sum(tanh(x) * exp(x) + softmax(x));
    const auto g = grad(y, {x}, {.create_graph = true});
    sum(square(g[0])).backward();
  }
  CHECK(memory_stats().live_tensors == before.live_tensors);
  CHECK(memory_stats().live_bytes == before.live_bytes);
}

TEST_CASE("two threads may not write one leaf's gradient at once, but may share it for forward", "[engine][threads]") {
  const Tensor w = leaf({1, 2, 3, 4});
  std::vector<std::thread> workers;
  std::vector<double> results(4);
  for (std::size_t i = 0; i < results.size(); ++i)
    workers.emplace_back(
        [&, i] { results[i] = grad(sum(w * w * static_cast<double>(i + 1)), {w})[0].to_vector<double>()[0]; });
  for (auto& worker : workers) worker.join();
  CHECK(results == std::vector<double>{2, 4, 6, 8});
}

namespace {

/// Bytes that the program holds from malloc right now; unlike the resident size they shrink when memory is freed.
std::int64_t held_bytes() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return static_cast<std::int64_t>(info.uordblks + info.hblkhd);
#else
  return 0;
#endif
}

template <class Step>
void deep_chain(const char* name, const Step& step, std::int64_t length, [[maybe_unused]] double bytes_a_node) {
  const Tensor x = scalar(0.5).set_requires_grad();
  const std::int64_t before = held_bytes();
  const auto start = std::chrono::steady_clock::now();
  Tensor y = x;
  for (std::int64_t i = 0; i < length; ++i) y = step(y);
  const double used = static_cast<double>(held_bytes() - before) / static_cast<double>(length);
  INFO(name << ": " << used << " bytes a node");
#if !defined(STET_ADDRESS_SANITIZER) && !defined(STET_THREAD_SANITIZER)
  CHECK(used <= bytes_a_node);
#endif
  y.backward();
  CHECK(x.grad().defined());
  y = x;
  std::cout << name << " chain: " << length << " nodes, " << used << " bytes a node, "
            << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()
            << " s to build, differentiate and free\n";
}

}  // namespace

TEST_CASE("a chain of a million nodes needs no stack and 400 bytes a node", "[engine][deep]") {
  const test::OnCpu cpu("a million live tensors are a million guarded allocations on the simulated device");
  // This process's stack is limited from outside by the test entry house/deep_graph (ulimit -s 1024).
  deep_chain(
      "mul", [](const Tensor& t) { return t * 1.0000001; }, 1'000'000, 400);
  deep_chain(
      "tanh", [](const Tensor& t) { return tanh(t); }, 1'000'000, 400);
  deep_chain(
      "view", [](const Tensor& t) { return reshape(t, t.rank() ? Shape{} : Shape{1}); }, 1'000'000, 400);
}

TEST_CASE("graph_to_dot shows operations, shapes and edges", "[engine][dot]") {
  const Tensor x = leaf({1, 2});
  const std::string dot = graph_to_dot(sum(tanh(x) + x));
  CHECK_THAT(dot, Contains("digraph stet") && Contains("tanh\\nf32 (2,)") && Contains("add") && Contains("leaf"));
  CHECK(std::count(dot.begin(), dot.end(), '>') == 4);  // tanh<-x, add<-tanh, add<-x, sum<-add
  CHECK_THAT(dot, Contains("shape=ellipse, style=filled") && Contains("\\nf32 (2,)\", shape=box]"));
  CHECK_THAT(graph_to_dot(x), Contains("shape=ellipse") && !Contains("shape=box"));
  CHECK(dot.find("[label=\"1\"]") != std::string::npos);  // add's second operand
}
