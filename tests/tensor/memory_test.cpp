// The caching allocator: live counters, reuse, limits, and the promise that steady training asks the system
// for nothing.
#include <random>

#include <stet/nn/layers.h>
#include <stet/nn/losses.h>
#include <stet/optim/optimizers.h>
#include <stet/tensor/storage.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using Catch::Matchers::Contains;

TEST_CASE("live tensors and bytes are counted", "[memory]") {
  const auto before = memory_stats();
  {
    const Tensor x = zeros({1000}), y = zeros({10}, f64), view = slice(x, 0, 0, 5);
    const auto now = memory_stats();
    CHECK(now.live_tensors == before.live_tensors + 2);
    CHECK(now.live_bytes == before.live_bytes + 4080);
  }
  CHECK(memory_stats().live_tensors == before.live_tensors);
  CHECK(memory_stats().live_bytes == before.live_bytes);
}

TEST_CASE("memory is 64-byte aligned and reused", "[memory]") {
  const void* first = nullptr;
  {
    const Tensor x = zeros({5000});
    first = x.raw();
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  }
  const auto asked = memory_stats().system_allocations;
  const Tensor y = zeros({5000});
  CHECK(y.raw() == first);
  CHECK(memory_stats().system_allocations == asked);
}

TEST_CASE("a training step after the first asks the system for no memory", "[memory]") {
  nn::Mlp model({64, 128, 32, 10});
  optim::Adam optimizer(model.parameters(), optim::AdamOptions{});
  Generator generator(1);
  const Tensor x = randn({32, 64}, generator), y = randint({32}, 0, 10, generator);
  const auto step = [&] {
    optimizer.zero_grad();
    nn::cross_entropy(model(x), y).backward();
    optimizer.step();
  };
  for (int i = 0; i < 2; ++i) step();
  const auto before = memory_stats();
  for (int i = 0; i < 100; ++i) step();
  const auto after = memory_stats();
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.system_bytes == before.system_bytes);
  CHECK(after.live_tensors == before.live_tensors);
  CHECK(after.live_bytes == before.live_bytes);
}

TEST_CASE("out of memory is a typed error and leaves the program usable", "[memory]") {
  release_cached_memory();
  const auto before = memory_stats();
  set_memory_limit(before.system_bytes + (1 << 20));
  CHECK_THROWS_AS(zeros({1 << 20}), OutOfMemory);
  const std::string device = default_device() == Device::cpu() ? "cpu" : "cuda:0";
  CHECK_THROWS_WITH(zeros({1 << 20}), Contains("[alloc] " + device + " has no memory for 4194304 bytes"));
  const Tensor small = ones({100});
  CHECK(sum(small).item() == 100);
  set_memory_limit(0);
  CHECK(sum(ones({1 << 20})).item() == 1 << 20);
  CHECK_THROWS_AS(zeros({1LL << 45}), OutOfMemory);  // fits 64 bits, not this machine
  CHECK(sum(small).item() == 100);
}

TEST_CASE("a step that runs out of memory anywhere leaks nothing and can be repeated", "[memory]") {
  nn::Mlp model({256, 512, 10});
  Generator generator(2);
  const Tensor x = randn({512, 256}, generator), y = randint({512}, 0, 10, generator);
  const auto step = [&] {
    model.zero_grad();
    nn::cross_entropy(model(x), y).backward();
  };
  release_cached_memory();
  const auto clean = memory_stats();
  int failures = 0;
  for (std::int64_t allowance = 0; allowance < (1 << 25); allowance += 400'000) {
    model.zero_grad();
    release_cached_memory();
    set_memory_limit(memory_stats().system_bytes + allowance + 1);
    try {
      step();
      test::settle();
    } catch (const OutOfMemory&) {
      ++failures;
    }
    set_memory_limit(0);
    model.zero_grad();
    CHECK(memory_stats().live_tensors == clean.live_tensors);
  }
  CHECK(failures > 3);
  CHECK_NOTHROW(step());
}

TEST_CASE("random huge shapes are errors, never undefined behaviour", "[memory]") {
  std::mt19937_64 random(3);
  for (int i = 0; i < 100'000; ++i) {
    Shape shape(static_cast<int>(random() % 9));
    for (auto& size : shape) size = static_cast<std::int64_t>(random() >> (random() % 64)) * (random() % 50 ? 1 : -1);
    try {
      const std::int64_t bytes = count_bytes("test", shape, 8);
      REQUIRE(bytes >= 0);
    } catch (const Error&) {
    }
  }
}
