// Scenarios: which examples and outputs a task has, pixel maps, held-out examples, the read counter.
#include <stet/continual/scenario.h>

#include <set>

#include "support/catch.h"
#include "support/pools.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;

namespace {

std::vector<std::int64_t> labels_of(const Examples& examples) {
  return examples.range(0, examples.size()).y.to_vector<std::int64_t>();
}

std::vector<std::int64_t> distinct(std::vector<std::int64_t> values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

using Ints = std::vector<std::int64_t>;

/// One 3 x 3 image with the pixels 1 .. 9, twice, labelled 0 and 1.
Pool nine() {
  return {tensor(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {2, 9}), tensor(Ints{0, 1})};
}

}  // namespace

TEST_CASE("Examples of a pool that is a view are those of its copy") {
  const Pool whole = test::clouds(4, 20, 5, 1);
  const Pool part{slice(whole.x, 1, 1, 4), whole.y};
  Ints all(static_cast<std::size_t>(whole.y.numel()));
  std::iota(all.begin(), all.end(), 0);
  const auto rows = [&](const Pool& pool) {
    return Examples(std::make_shared<const Pool>(pool), all, 0).range(0, std::ssize(all)).x;
  };
  CHECK(same(rows(part), rows({contiguous(part.x), part.y})));
}

TEST_CASE("Split classes: outputs in each setting") {
  const Pool train = test::clouds(6, 4, 5, 1), test = test::clouds(6, 2, 5, 2);
  const auto order = Ints{5, 0, 3, 1, 2, 4};
  for (const Setting setting : {Setting::task_incremental, Setting::class_incremental}) {
    const Scenario s = split_classes(train, test, setting, 2, order);
    REQUIRE(s.tasks.size() == 3);
    CHECK(s.outputs == 6);
    CHECK(s.tasks[1].name == "3,1");
    CHECK(s.tasks[1].outputs == Ints{2, 3});
    CHECK(s.tasks[1].train.size() == 8);
    CHECK(s.tasks[1].test.size() == 4);
    CHECK(distinct(labels_of(s.tasks[1].train)) == Ints{2, 3});
    const Batch batch = s.tasks[1].train.range(0, 8);
    CHECK(distinct(batch.task.to_vector<std::int64_t>()) == Ints{1});
    // The examples are those of classes 3 and 1: class 1 stands first in the pool and is output 3.
    CHECK(same(select(batch.x, 0, 0), select(train.x, 0, 1)));
    CHECK(batch.y.to_vector<std::int64_t>().front() == 3);
  }
  const Scenario domain = split_classes(train, test, Setting::domain_incremental, 2, order);
  CHECK(domain.outputs == 2);
  for (const Task& task : domain.tasks) {
    CHECK(task.outputs == Ints{0, 1});
    CHECK(distinct(labels_of(task.train)) == Ints{0, 1});
  }
  const auto mask = split_classes(train, test, Setting::task_incremental, 3).output_mask().to_vector<float>();
  CHECK(mask == std::vector<float>{0, 0, 0, -1e30f, -1e30f, -1e30f, -1e30f, -1e30f, -1e30f, 0, 0, 0});
}

TEST_CASE("Bytes are read as value / 255, to the bit") {
  std::vector<std::uint8_t> bytes(256);
  for (std::size_t i = 0; i < 256; ++i) bytes[i] = static_cast<std::uint8_t>(i);
  const auto pool = std::make_shared<const Pool>(Pool{tensor(bytes, {1, 256}), tensor(Ints{0})});
  const auto x = Examples(pool, {0}, 0).range(0, 1).x.to_vector<float>();
  for (std::size_t i = 0; i < 256; ++i) CHECK(x[i] == static_cast<float>(i) / 255.0f);
}

TEST_CASE("Permuted: the first task is unchanged, the others are rearrangements") {
  const Pool train = test::clouds(3, 5, 20, 1), test = test::clouds(3, 2, 20, 2);
  Generator generator(7);
  const Scenario s = permuted(train, test, Setting::domain_incremental, 3, generator);
  REQUIRE(s.tasks.size() == 3);
  CHECK(s.outputs == 3);
  CHECK(same(s.tasks[0].train.range(0, 15).x, train.x));
  CHECK(same(s.tasks[0].test.read().range(0, 6).x, test.x));
  const Tensor moved = s.tasks[1].train.range(0, 15).x;
  CHECK_FALSE(same(moved, train.x));
  CHECK_FALSE(same(moved, s.tasks[2].train.range(0, 15).x));
  CHECK(same(sort(moved, 1).values, sort(train.x, 1).values));
  // Training and test examples are rearranged alike.
  Generator again(7);
  const Scenario swapped = permuted(test, train, Setting::domain_incremental, 3, again);
  CHECK(same(swapped.tasks[1].test.read().range(0, 15).x, moved));
  Generator third(7);
  CHECK(permuted(train, test, Setting::class_incremental, 3, third).outputs == 9);
}

TEST_CASE("Classes that the test split alone has are outputs, too, where each task has all classes") {
  Generator generator(7);
  const Pool train = test::clouds(2, 5, 4, 1), test = test::clouds(3, 2, 4, 2);
  const Scenario s = permuted(train, test, Setting::class_incremental, 2, generator);
  CHECK(s.outputs == 6);
  CHECK(s.tasks[1].outputs == Ints{3, 4, 5});
  CHECK(distinct(labels_of(s.tasks[1].test.read())) == Ints{3, 4, 5});
}

TEST_CASE("Rotated: 0 degrees is the identity, 90 turn a known image counter-clockwise") {
  const Scenario s = rotated(nine(), nine(), Setting::domain_incremental, 3, {0, 90, 180, -90, 22.5});
  const auto image = [&](std::size_t task) { return s.tasks[task].train.range(0, 1).x.to_vector<float>(); };
  CHECK(image(0) == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(image(1) == std::vector<float>{3, 6, 9, 2, 5, 8, 1, 4, 7});
  CHECK(image(2) == std::vector<float>{9, 8, 7, 6, 5, 4, 3, 2, 1});
  CHECK(image(3) == std::vector<float>{7, 4, 1, 8, 5, 2, 9, 6, 3});
  CHECK(s.tasks[4].name == "22.5 degrees");
}

TEST_CASE("Corners that turn out of an image are 0") {
  std::vector<float> white(25, 1.0f);
  const Pool pool{tensor(white, {1, 25}), tensor(Ints{0})};
  const auto x =
      rotated(pool, pool, Setting::domain_incremental, 5, {45}).tasks[0].train.range(0, 1).x.to_vector<float>();
  CHECK(x[0] == 0);
  CHECK(x[4] == 0);
  CHECK(x[12] == 1);
}

TEST_CASE("Held-out examples come from the training split alone") {
  const Pool train = test::clouds(4, 10, 3, 1), test = test::clouds(4, 5, 3, 2);
  const Scenario s = split_classes(train, test, Setting::class_incremental, 2), held = hold_out(s, 0.25);
  for (std::size_t t = 0; t < 2; ++t) {
    CHECK(held.tasks[t].train.size() == 15);
    CHECK(held.tasks[t].test.size() == 5);
    CHECK(same(held.tasks[t].train.range(0, 15).x, s.tasks[t].train.range(0, 15).x));
    CHECK(same(held.tasks[t].test.read().range(0, 5).x, s.tasks[t].train.range(15, 20).x));
    CHECK(held.tasks[t].test.reads() == 1);
    CHECK(s.tasks[t].test.reads() == 0);
  }
  CHECK_THROWS_WITH(hold_out(s, 1), Contains("share 1"));
  CHECK_THROWS_WITH(hold_out(s, 0.001), Contains("leaves one side empty"));
}

TEST_CASE("Fingerprints tell tasks apart by all that they are made of, and no test split is read") {
  const auto pool = std::make_shared<const Pool>(test::clouds(3, 4, 5, 1));
  const Examples examples(pool, {0, 1, 2}, 0, {0, 1, 2}, {0, 1, 2, 3, 4});
  const Task task{"a", examples, TestSplit(examples), {0, 1}};
  CHECK(task.fingerprint() == Task{"a", examples, TestSplit(examples), {0, 1}}.fingerprint());
  CHECK(task.test.reads() == 0);
  std::set<std::uint64_t> seen{task.fingerprint()};
  const auto fresh = [&](const Task& other) { CHECK(seen.insert(other.fingerprint()).second); };
  fresh({"b", examples, TestSplit(examples), {0, 1}});
  fresh({"a", examples, TestSplit(examples), {1, 0}});
  for (const Examples& other :
       {Examples(pool, {0, 2, 1}, 0, {0, 1, 2}, {0, 1, 2, 3, 4}),
        Examples(pool, {0, 1, 2}, 1, {0, 1, 2}, {0, 1, 2, 3, 4}),
        Examples(pool, {0, 1, 2}, 0, {0, 2, 1}, {0, 1, 2, 3, 4}), Examples(pool, {0, 1, 2}, 0, {}, {0, 1, 2, 3, 4}),
        Examples(pool, {0, 1, 2}, 0, {0, 1, 2}, {0, 1, 2, 4, -1}), examples.subset(0, 2)}) {
    fresh({"a", other, TestSplit(examples), {0, 1}});
    fresh({"a", examples, TestSplit(other), {0, 1}});
  }
  // The same numbers, cut into lists elsewhere.
  fresh({"a", Examples(pool, {0}, 0, {0, 1, 2}, {}), TestSplit(examples), {0, 1}});
  fresh({"a", Examples(pool, {0, 0}, 0, {1, 2}, {}), TestSplit(examples), {0, 1}});
  std::vector<std::uint64_t> second;
  for (const std::uint64_t seed : {1, 1, 2}) {
    Generator generator(seed);
    second.push_back(permuted(*pool, *pool, Setting::domain_incremental, 2, generator).tasks[1].fingerprint());
  }
  CHECK(second[0] == second[1]);
  CHECK(second[0] != second[2]);
}

TEST_CASE("Scenarios that cannot be are refused") {
  const Pool train = test::clouds(4, 2, 3, 1), wide = test::clouds(4, 2, 4, 1);
  CHECK_THROWS_WITH(split_classes(train, train, Setting::class_incremental, 3),
                    Contains("4 classes do not split into tasks of 3"));
  CHECK_THROWS_WITH(split_classes(train, train, Setting::class_incremental, 2, {0, 1, 2, 2}), Contains("class 2 of 4"));
  CHECK_THROWS_WITH(split_classes(train, wide, Setting::class_incremental, 2), Contains("expected (n, d) with one d"));
  CHECK_THROWS_WITH(rotated(train, train, Setting::domain_incremental, 2, {90}), Contains("side 2 for 3 pixels"));
  CHECK_THROWS_WITH(rotated(nine(), nine(), Setting::domain_incremental, 3, {}), Contains("at least one angle"));
  CHECK_THROWS_WITH(rotated(nine(), nine(), Setting::domain_incremental, 3, {0, std::nan("")}),
                    Contains("an angle of nan degrees"));
  const auto pool = std::make_shared<const Pool>(train);
  CHECK_THROWS_WITH(Examples(pool, {8}, 0), Contains("index 8 of 8"));
  CHECK_THROWS_WITH(Examples(pool, {0, 1}, 2, {0, -1, -1, -1}), Contains("label 1 at index 1 has no output in task 2"));
  CHECK_THROWS_WITH(Examples(pool, {0}, 0).range(0, 2), Contains("position 1 of 1"));
  CHECK(Examples().range(0, 0).size() == 0);
  for (const std::int64_t output : {-1, 2, 5'000'000}) {
    const Scenario by_hand{Setting::task_incremental, 2, {{"odd", Examples(pool, {0}, 0), {}, {0, output}}}};
    CHECK_THROWS_WITH(by_hand.output_mask(),
                      Contains("task 'odd' has output " + std::to_string(output)) && Contains("expected 0 to 1"));
  }
}
