// The reservoir: who is in it, how often, unchanged; and replay's joined batches.
#include <limits>
#include <set>

#include <stet/continual/strategies/replay.h>
#include <stet/nn/layers.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/pools.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;

namespace {

/// Examples first .. last - 1: each has its number as its only feature and its label, and number % 3 as its
/// task.
Batch numbered(std::int64_t first, std::int64_t last) {
  std::vector<float> x;
  std::vector<std::int64_t> y, task;
  for (std::int64_t i = first; i < last; ++i) {
    x.push_back(static_cast<float>(i));
    y.push_back(i);
    task.push_back(i % 3);
  }
  return {tensor(x, {last - first, 1}), tensor(y), tensor(task)};
}

std::vector<std::int64_t> stored(const Reservoir& memory) {
  auto all = memory.state().at("y").to_vector<std::int64_t>();
  all.resize(static_cast<std::size_t>(memory.size()));
  return all;
}

}  // namespace

TEST_CASE("Every example of the stream is stored with the same probability") {
  constexpr std::int64_t kStream = 50, kCapacity = 10;
  constexpr int kRuns = 10000;
  std::vector<double> counts(kStream);
  for (int run = 0; run < kRuns; ++run) {
    Reservoir memory(kCapacity, Generator(static_cast<std::uint64_t>(run)));
    for (std::int64_t at = 0; at < kStream; at += 7) memory.offer(numbered(at, std::min(at + 7, kStream)));
    for (const std::int64_t i : stored(memory)) ++counts[static_cast<std::size_t>(i)];
  }
  // Inclusions of one run exclude each other, which makes the plain statistic too small by (1 - m / n) n / (n
  // - 1).
  const double share = static_cast<double>(kCapacity) / kStream, expected = kRuns * share;
  double statistic = 0;
  for (const double count : counts) statistic += (count - expected) * (count - expected) / expected;
  statistic /= (1 - share) * kStream / (kStream - 1.0);
  CHECK(statistic < 85.35);  // 99.9 % of chi-square with 49 degrees of freedom
  CHECK(statistic > 23.98);  // 0.1 %
}

TEST_CASE("The capacity is never exceeded, and what is stored never changes") {
  Reservoir memory(20, Generator(3));
  std::map<std::int64_t, std::int64_t> slots;
  for (std::int64_t at = 0; at < 500; at += 13) {
    const std::int64_t end = std::min<std::int64_t>(at + 13, 500);
    memory.offer(numbered(at, end));
    CHECK(memory.size() == std::min<std::int64_t>(20, end));
    CHECK(memory.seen() == end);
    const auto x = memory.state().at("x").to_vector<float>();
    const auto y = memory.state().at("y").to_vector<std::int64_t>(),
               task = memory.state().at("task").to_vector<std::int64_t>();
    for (std::int64_t slot = 0; slot < memory.size(); ++slot) {
      const auto i = static_cast<std::size_t>(slot);
      REQUIRE(x[i] == static_cast<float>(y[i]));  // features, label and task of one example stay together
      REQUIRE(task[i] == y[i] % 3);
      const bool kept = slots.contains(slot) && slots[slot] == y[i];
      REQUIRE((kept || (y[i] >= at && y[i] < end)));
      slots[slot] = y[i];
    }
  }
  const auto all = stored(memory);
  CHECK(std::set<std::int64_t>(all.begin(), all.end()).size() == 20);
}

TEST_CASE("What is offered is copied") {
  Reservoir memory(4, Generator(3));
  const Batch batch = numbered(0, 4);
  memory.offer(batch);
  batch.x.fill_(-1);
  batch.y.fill_(-1);
  CHECK(memory.state().at("x").to_vector<float>() == std::vector<float>{0, 1, 2, 3});
}

TEST_CASE("A draw has different examples, all where there are few, none where there are none") {
  Reservoir memory(10, Generator(3));
  CHECK(memory.draw(5).size() == 0);
  memory.offer(numbered(0, 6));
  CHECK(memory.draw(0).size() == 0);
  const auto some = memory.draw(4).y.to_vector<std::int64_t>();
  CHECK(std::set<std::int64_t>(some.begin(), some.end()).size() == 4);
  Reservoir other(10, Generator(3));
  other.offer(numbered(0, 6));
  const auto order = other.draw(6).y.to_vector<std::int64_t>();  // a smaller draw is its beginning
  CHECK(some == std::vector<std::int64_t>(order.begin(), order.begin() + 4));
  const Batch all = memory.draw(100);
  CHECK(all.size() == 6);
  CHECK(same(reshape(all.x, {6}), cast(all.y, f32)));
}

TEST_CASE("A saved reservoir goes on as it would have") {
  Reservoir a(10, Generator(3)), b(10, Generator(99));
  a.offer(numbered(0, 40));
  a.draw(3);
  b.load(a.state());
  a.offer(numbered(40, 80));
  b.offer(numbered(40, 80));
  CHECK(stored(a) == stored(b));
  CHECK(same(a.draw(5).x, b.draw(5).x));
  // What was loaded stays as it was.
  const nn::State given = a.state();
  const Tensor x = given.at("x").clone(), y = given.at("y").clone();
  b.load(given);
  b.offer(numbered(80, 800));
  CHECK(same(given.at("x"), x));
  CHECK(same(given.at("y"), y));
  Reservoir empty(10, Generator(1));
  empty.load(Reservoir(10, Generator(2)).state());
  CHECK(empty.size() == 0);
}

TEST_CASE("Reservoirs refuse what does not fit") {
  CHECK_THROWS_WITH(Reservoir(0, Generator()), Contains("capacity 0"));
  Reservoir memory(10, Generator(3)), other(11, Generator(3));
  CHECK_THROWS_WITH(memory.offer({zeros({2, 1}, i64), zeros({2}, i64), zeros({2}, i64)}),
                    Contains("examples (2, 1) of i64: expected f32"));
  memory.offer(numbered(0, 3));
  CHECK_THROWS_WITH(memory.offer({zeros({2, 5}), zeros({2}, i64), zeros({2}, i64)}), Contains("examples (2, 5)"));
  CHECK_THROWS_WITH(other.load(memory.state()), Contains("does not fit capacity 11"));
  CHECK_THROWS_WITH(other.load({}), Contains("no 'counters'"));
  nn::State broken = memory.state();
  broken.erase("y");
  CHECK_THROWS_WITH(memory.load(broken), Contains("does not fit"));
  for (const std::int64_t seen : {std::int64_t{-100000}, std::numeric_limits<std::int64_t>::max()})
    for (const bool stored : {true, false}) {
      nn::State damaged = stored ? memory.state() : nn::State();
      damaged["counters"] = tensor(std::vector<std::int64_t>{seen, 1, 2});
      CHECK_THROWS_WITH(memory.load(damaged), Contains("[reservoir] the state has " + std::to_string(seen) +
                                                       " examples seen, expected 0 to"));
    }
  CHECK(memory.size() == 3);
}

TEST_CASE("Replay joins stored examples of earlier tasks, with their tasks") {
  const Scenario scenario =
      split_classes(test::clouds(4, 30, 5, 1), test::clouds(4, 2, 5, 2), Setting::task_incremental, 2);
  nn::Mlp model({5, 4});
  optim::Sgd optimizer(model.parameters(), {});
  const Forward forward = [&](const Tensor& x) { return model(x); };
  Context context{model, optimizer, scenario, forward, 0, {}};
  Replay replay({.capacity = 12, .batch_size = 8});
  Batch batch = context.train().range(0, 4);
  replay.examples(context, batch);
  CHECK(batch.size() == 4);
  replay.end_task(context);
  CHECK(replay.memory().size() == 12);
  CHECK(replay.memory().seen() == 60);
  context.task = 1;
  batch = context.train().range(0, 4);
  replay.examples(context, batch);
  REQUIRE(batch.size() == 12);
  CHECK(batch.x.shape() == Shape{12, 5});
  CHECK(batch.task.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0});
}
