// Two passes at once in one graph: the later one is refused by the operation where they meet, and neither gradients nor
// the graph are harmed.
#include <atomic>
#include <cmath>
#include <functional>
#include <thread>

#include <stet/autograd/engine.h>
#include <stet/autograd/ops.h>
#include <stet/autograd/squared.h>

#include "support/catch.h"

using namespace stet;
using Catch::Matchers::Contains;

namespace {

/// The identity, whose derivative does something else first.
struct PausedDerivative {
  static constexpr std::string_view name = "paused";
  std::function<void()> meanwhile;
  void operator()(Backward& pass) const {
    meanwhile();
    pass.give(0, pass.grad());
  }
};
Tensor paused(const Tensor& x, std::function<void()> meanwhile) {
  return record(x.clone(), {&x}, [&] { return PausedDerivative{std::move(meanwhile)}; });
}

void on_another_thread(const std::function<void()>& work) { std::thread(work).join(); }

}  // namespace

TEST_CASE("a pass is refused where another one is at work, by the operation's name", "[engine][threads]") {
  const Tensor x = tensor({1.f, 2.f}).set_requires_grad();
  const Tensor trunk = exp(x) * 2.0, other = sum(trunk * 3.0);
  const auto expect_refusal = [&](const std::function<void()>& pass) {
    CHECK_THROWS_WITH(pass(), Contains("[backward] two passes at once in one graph meet at 'mul' (2,)"));
  };
  int refused = 0;
  const Tensor first = sum(paused(trunk, [&] {
    const auto all = [&] {
      expect_refusal([&] { other.backward({}, true); });
      expect_refusal([&] { grad(other, {x}, {.retain_graph = true}); });
      expect_refusal([&] { release_graph(other); });
      refused += 3;
    };
    on_another_thread(all);
    all();  // and from inside a derivative
  }));
  first.backward({}, true);
  CHECK(refused == 6);
  const Tensor expected = exp(x.detach()) * 2.0;
  CHECK(same(x.grad(), expected));
  // What was refused has left no trace: either loss can be passed again.
  x.set_grad({});
  other.backward({}, true);
  CHECK(same(x.grad(), expected * 3.0));
  CHECK(same(grad(other, {x}, {.retain_graph = true})[0], expected * 3.0));
  release_graph(other);
  CHECK_THROWS_WITH(other.backward(), Contains("was freed by an earlier backward"));
}

TEST_CASE("passes on two threads may share leaves, and a graph one after the other", "[engine][threads]") {
  const Tensor x = tensor({1.f, 2.f}).set_requires_grad();
  Tensor apart;
  const Tensor first =
      sum(paused(exp(x), [&] { on_another_thread([&] { apart = grad(sum(exp(x) * 3.0), {x})[0]; }); }));
  const Tensor here = grad(first, {x}, {.retain_graph = true})[0];
  CHECK(same(here, exp(x.detach())));
  CHECK(same(apart, exp(x.detach()) * 3.0));
  on_another_thread([&] { CHECK(same(grad(first, {x})[0], here)); });
}

TEST_CASE("a pass that ends in an error leaves its operations to the next one", "[engine][threads]") {
  const Tensor x = tensor({1.f, 2.f}).set_requires_grad();
  bool fails = true;
  const Tensor loss = sum(paused(exp(x), [&] { check(!fails, "test", "no"); }));
  CHECK_THROWS_WITH(loss.backward({}, true), Contains("[test] no"));
  fails = false;
  loss.backward({}, true);
  CHECK(same(x.grad(), exp(x.detach())));
  // An operation that was freed lies behind one that was not: the search for it lets go as well.
  const Tensor trunk = exp(x), ahead = sum(trunk * 2.0);
  sum(trunk).backward();
  for (int i = 0; i < 2; ++i) CHECK_THROWS_WITH(ahead.backward(), Contains("was freed by an earlier backward"));
}

TEST_CASE("many passes of two threads through one trunk: each is right or refused", "[engine][threads]") {
  const Tensor x = ones({50}).set_requires_grad();
  Tensor trunk = x;
  for (int i = 0; i < 20; ++i) trunk = trunk * 1.5 - 0.1;
  const Tensor losses[] = {sum(trunk * 2.0), sum(trunk * 3.0)};
  std::atomic<int> wrong{0}, started{0}, right{0};
  const auto work = [&](int k) {
    const Tensor& loss = losses[k];
    const double expected = std::pow(1.5, 20) * (k + 2);
    ++started;
    while (started < 2) std::this_thread::yield();
    for (int i = 0; i < 500; ++i) try {
        const Tensor g = grad(loss, {x}, {.retain_graph = true})[0];
        ++(std::abs(g.to_vector<double>()[7] / expected - 1) < 1e-5 ? right : wrong);
      } catch (const Error&) {
      }
  };
  std::thread a(work, 0), b(work, 1);
  a.join();
  b.join();
  CHECK(wrong == 0);
  CHECK(right > 0);
}
