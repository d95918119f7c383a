// The loader's promises: every epoch visits each example once, the same seed gives the same order, and a
// restored position goes on with the very batches that would have come.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <stet/data/loader.h>
#include <stet/tensor/error.h>

#include "support/catch.h"

using namespace stet;
using data::Loader;
using data::LoaderOptions;
using Batch = std::vector<std::int64_t>;

namespace {

std::vector<Batch> epoch_of(Loader& loader) {
  std::vector<Batch> batches;
  while (const auto batch = loader.next()) batches.emplace_back(batch->begin(), batch->end());
  return batches;
}

Batch joined(const std::vector<Batch>& batches) {
  Batch all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

Batch sorted(Batch batch) {
  std::sort(batch.begin(), batch.end());
  return batch;
}

Batch range(std::int64_t count) {
  Batch all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return all;
}

std::string message_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("Each epoch of a loader is a permutation of its own") {
  for (const std::int64_t count : {1, 2, 7, 64, 100, 1000}) {
    Loader loader(count, {.batch_size = 7}, Generator(3));
    const Batch first = joined(epoch_of(loader));
    const Batch second = joined(epoch_of(loader));
    CHECK(loader.epoch() == 2);
    CHECK(sorted(first) == range(count));
    CHECK(sorted(second) == range(count));
    if (count >= 64) {
      CHECK(first != second);
      CHECK(first != range(count));
    }
  }
}

TEST_CASE("Without shuffling the order is that of the indices") {
  Loader loader(10, {.batch_size = 4, .shuffle = false});
  for (int epoch = 0; epoch < 2; ++epoch)
    CHECK(epoch_of(loader) == std::vector<Batch>{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}});
  Loader subset(Batch{5, 3, 9}, {.batch_size = 2, .shuffle = false});
  CHECK(epoch_of(subset) == std::vector<Batch>{{5, 3}, {9}});
}

TEST_CASE("A loader over given indices visits those and no others") {
  const Batch indices = {4, 8, 15, 16, 23, 42};
  Loader loader(indices, {.batch_size = 4});
  CHECK(sorted(joined(epoch_of(loader))) == indices);
}

TEST_CASE("drop_last leaves out the short batch, and only that") {
  for (const std::int64_t count : {8, 9, 10, 11, 12}) {
    Loader keep(count, {.batch_size = 4}, Generator(1));
    Loader drop(count, {.batch_size = 4, .drop_last = true}, Generator(1));
    auto kept = epoch_of(keep);
    const auto dropped = epoch_of(drop);
    CHECK(static_cast<std::int64_t>(kept.size()) == keep.batches());
    CHECK(static_cast<std::int64_t>(dropped.size()) == drop.batches());
    CHECK(drop.batches() == count / 4);
    CHECK(keep.batches() == (count + 3) / 4);
    if (count % 4 != 0) kept.pop_back();
    CHECK(kept == dropped);
  }
}

TEST_CASE("The same seed gives the same order, another seed another one") {
  Loader a(100, {}, Generator(5)), b(100, {}, Generator(5)), other(100, {}, Generator(6));
  const auto first = epoch_of(a);
  CHECK(first == epoch_of(b));
  CHECK(epoch_of(a) == epoch_of(b));
  CHECK(first != epoch_of(other));
}

TEST_CASE("The batch size does not change the order") {
  Loader small(100, {.batch_size = 3}, Generator(5)), large(100, {.batch_size = 100}, Generator(5));
  CHECK(joined(epoch_of(small)) == joined(epoch_of(large)));
}

TEST_CASE("A loader goes on from any saved position with the same batches") {
  for (const bool drop_last : {false, true}) {
    const LoaderOptions options = {.batch_size = 4, .drop_last = drop_last};
    Loader original(Batch{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, options, Generator(11));
    for (int step = 0; step < 12; ++step) {  // over epoch ends and the nothing that marks them
      const auto state = original.state();
      Loader ahead = original;
      Loader resumed(Batch{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, options, Generator(99));
      resumed.restore(state);
      CHECK(resumed.state() == state);
      for (int i = 0; i < 9; ++i) {
        const auto expected = ahead.next();
        const auto got = resumed.next();
        REQUIRE(expected.has_value() == got.has_value());
        if (got) CHECK(std::equal(expected->begin(), expected->end(), got->begin(), got->end()));
      }
      original.next();
    }
  }
}

TEST_CASE("A loader can be set back to an earlier position") {
  Loader loader(50, {.batch_size = 8}, Generator(2));
  loader.next();
  const auto state = loader.state();
  const auto rest = epoch_of(loader);
  epoch_of(loader);
  loader.next();  // another epoch has begun
  loader.restore(state);
  CHECK(epoch_of(loader) == rest);
}

TEST_CASE("Loaders that could never give a batch, and foreign positions, are refused") {
  CHECK(message_of([] { Loader(10, {.batch_size = 0}); }) == "[loader] batch_size 0: must be positive");
  CHECK(message_of([] { Loader(10, {.batch_size = -3}); }) == "[loader] batch_size -3: must be positive");
  CHECK(message_of([] { Loader(-1, {}); }) == "[loader] count -1: must not be negative");
  CHECK(message_of([] { Loader(0, {}); }) == "[loader] no examples: there would never be a batch");
  CHECK(message_of([] { Loader(3, {.batch_size = 4, .drop_last = true}); }) ==
        "[loader] batch_size 4 with drop_last: only 3 examples, there would never be a batch");

  Loader loader(10, {.batch_size = 4});
  for (const std::int64_t position : {-4, 3, 9, 12}) {
    INFO(position);
    CHECK(message_of([&] { loader.restore({.position = position}); }).find("belongs to another loader") !=
          std::string::npos);
  }
  for (const std::int64_t position : {0, 4, 8, 10}) CHECK_NOTHROW(loader.restore({.position = position}));
}
