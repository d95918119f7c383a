// Results are the same bits at any number of threads: every kind of operation, and a 1,000-step training run.
#include <cstring>
#include <thread>

#include <stet/autograd/engine.h>
#include <stet/nn/layers.h>
#include <stet/nn/losses.h>
#include <stet/optim/optimizers.h>
#include <stet/tensor/threads.h>

#include "support/catch.h"
#include "support/samples.h"
#include "support/sanitizers.h"

using namespace stet;
using test::spread;

namespace {

// The thread sanitizer looks at who synchronises with whom, which a few steps show, and takes fifty times as long.
#if defined(STET_THREAD_SANITIZER)
const std::vector<int> kCounts{2, 4};
constexpr int kSteps = 50;
#else
const std::vector<int> kCounts{1, 2, 3, 4, 8, 16};
constexpr int kSteps = 1000;
#endif

struct RestoreThreads {
  int before = threads();
  ~RestoreThreads() { set_threads(before); }
};

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Tensor x = contiguous(a[i]), y = contiguous(b[i]);
    if (!(x.shape() == y.shape()) || x.dtype() != y.dtype()) return false;
    if (std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.bytes())) != 0) return false;
  }
  return true;
}

/// Large enough that every operation is cut into several pieces.
std::vector<Tensor> every_operation() {
  const Tensor x = spread({300, 700}, -1, 1, 1, f32), y = spread({300, 700}, 0.5, 2, 2, f32),
               line = spread({200'003}, -1, 1, 3, f32);
  const Tensor w = spread({500, 700}, -1, 1, 4, f32), d = cast(x, f64);
  std::vector<Tensor> out{x + y,
                          x * tensor({2.f}),
                          exp(x),
                          tanh(transpose(x)),
                          pow(y, y),
                          where(x > 0.0, x, y),
                          x < y,
                          sum(line),
                          sum(x, {0}),
                          sum(x, {1}),
                          sum(spread({9000, 20}, -1, 1, 5, f32), {0}),
                          mean(x),
                          var(x),
                          prod(y, {1}),
                          max(x, {0}),
                          argmax(x, 0),
                          argmin(x, 1),
                          logsumexp(x),
                          softmax(x),
                          log_softmax(x, 0),
                          cumsum(x, 1),
                          sort(x, 1).values,
                          topk(x, 5).indices,
                          matmul(x, transpose(w)),
                          matmul(transpose(x), y),
                          matmul(d, transpose(d)),
                          linear(x, w, spread({500}, -1, 1, 6, f32), Activation::relu),
                          layer_norm(x, spread({700}, 0, 1, 7, f32)),
                          rms_norm(x, spread({700}, 0, 1, 7, f32)),
                          cat({x, y}, 1),
                          index_select(x, 1, arange(350) * 2.0),
                          index_add(x, 0, cast(spread({300}, 0, 50, 8), i64), 50),
                          contiguous(transpose(x)),
                          cast(x, bf16),
                          matmul(spread({3, 40, 784}, -1, 1, 9, f32), spread({784, 30}, -1, 1, 10, f32)),
                          matmul(transpose(spread({10, 100}, -1, 1, 9, f32)), spread({10, 784}, -1, 1, 10, f32)),
                          matmul(spread({10, 784}, -1, 1, 9, f32), transpose(spread({100, 784}, -1, 1, 10, f32)))};
  Generator generator(5);
  out.push_back(randn({100'000}, generator));
  out.push_back(rand({50'001}, generator));
  out.push_back(randint({30'000}, 0, 17, generator));
  out.push_back(bernoulli({40'000}, 0.3, generator));
  out.push_back(randperm(20'000, generator));
  Tensor leaf = x.clone();
  leaf.set_requires_grad();
  out.push_back(grad(mean(cross_entropy_rows(leaf, argmax(y))), {leaf})[0]);
  return out;
}

std::vector<Tensor> train(int steps) {
  Generator generator(7);
  manual_seed(3);
  nn::Mlp model({50, 200, 150, 10});
  optim::Adam optimizer(model.parameters(), optim::AdamOptions{});
  optimizer.clip_norm(1);
  const Tensor x = randn({600, 50}, generator), y = randint({600}, 0, 10, generator);
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const Tensor index = randint({96}, 0, 600, generator);
    nn::cross_entropy(model(index_select(x, 0, index)), index_select(y, 0, index)).backward();
    optimizer.step();
  }
  std::vector<Tensor> out;
  for (const auto& [name, value] : model.state()) out.push_back(value);
  return out;
}

}  // namespace

TEST_CASE("every operation gives the same bits at 1, 2, 3, 4, 8 and 16 threads", "[threads]") {
  const RestoreThreads restore;
  set_threads(1);
  const auto expected = every_operation();
  for (int count : kCounts) {
    set_threads(count);
    CHECK(threads() == count);
    const auto got = every_operation();
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO("operation " << i << " at " << count << " threads");
      CHECK(same_bits({got[i]}, {expected[i]}));
    }
  }
}

TEST_CASE("a 1,000-step training run gives the same bits at any number of threads", "[threads]") {
  const RestoreThreads restore;
  set_threads(1);
  const auto expected = train(kSteps);
  for (int count : kCounts) {
    set_threads(count);
    INFO(count << " threads");
    CHECK(same_bits(train(kSteps), expected));
  }
}

TEST_CASE("the pool runs every chunk once, nested and from several callers", "[threads]") {
  const RestoreThreads restore;
  set_threads(4);
  std::vector<std::atomic<int>> hits(1000);
  parallel_for(1000, [&](std::int64_t i) {
    parallel_for(3, [&](std::int64_t) { hits[static_cast<std::size_t>(i)].fetch_add(1); });
  });
  for (const auto& h : hits) CHECK(h.load() == 3);
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int r = 0; r < 200; ++r) parallel_for(20, [&](std::int64_t) { total.fetch_add(1); });
    });
  for (auto& caller : callers) caller.join();
  CHECK(total.load() == 4 * 200 * 20);
  CHECK_THROWS_WITH(set_threads(0), Catch::Matchers::Contains("0 threads: expected 1 to 256"));
}

TEST_CASE("an error in a chunk reaches the caller, from any thread, and the pool goes on", "[threads]") {
  const RestoreThreads restore;
  for (int count : {1, 4}) {
    set_threads(count);
    for (std::int64_t bad : {0, 1, 500, 999}) {
      INFO(count << " threads, chunk " << bad);
      CHECK_THROWS_WITH(parallel_for(1000,
                                     [&](std::int64_t i) {
                                       parallel_for(2, [&](std::int64_t) { check(i != bad, "chunk", i, " fails"); });
                                     }),
                        Catch::Matchers::Contains("[chunk] " + std::to_string(bad) + " fails"));
      CHECK_THROWS_AS(parallel_for(1000, [](std::int64_t) { throw std::bad_alloc(); }), std::bad_alloc);
      std::vector<std::atomic<int>> hits(1000);
      parallel_for(1000, [&](std::int64_t i) { hits[static_cast<std::size_t>(i)].fetch_add(1); });
      for (const auto& h : hits) CHECK(h.load() == 1);
    }
  }
}
