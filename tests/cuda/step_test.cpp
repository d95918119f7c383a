// Training steps on Device::cuda(): what they may ask of the host, recorded steps, errors, repetition to the bit.
#include <cmath>
#include <optional>
#include <thread>

#include <stet/cuda/cuda.h>
#include <stet/nn/layers.h>
#include <stet/nn/losses.h>
#include <stet/optim/optimizers.h>
#include <stet/tensor/storage.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

/// The default device is cuda:0 while this lives; false where there is none.
struct OnCuda {
  std::optional<DefaultDevice> device;
  OnCuda() {
    if (test::has_cuda()) device.emplace(Device::cuda());
  }
  explicit operator bool() const { return device.has_value(); }
};

struct Net : nn::Module {
  nn::Linear fc1{this, "fc1", 20, 33};
  nn::LayerNorm norm{this, "norm", 33};
  nn::Dropout dropout{this, "dropout", 0.25};
  nn::Linear fc2{this, "fc2", 33, 7};
  Tensor operator()(const Tensor& x) { return fc2(dropout(norm(fc1(x, Activation::relu)))); }
};

/// A model in training with everything that a step may have: dropout, clipping, a schedule, a mask, a penalty.
struct Training {
  Net model;
  optim::Adam optimizer;
  Tensor x, y, loss;

  explicit Training(std::uint64_t seed = 1)
      : optimizer((manual_seed(seed), model.parameters()), optim::AdamOptions{.lr = 0.01}) {
    Generator generator(seed);
    x = randn({16, 20}, generator);
    y = randint({16}, 0, 7, generator);
    optimizer.clip_norm(0.5);
    optimizer.set_schedule(optim::cosine_schedule(40));
    optimizer.set_mask("fc1.weight", optim::Mask::rows({33, 20}, {1, 2, 30}));
    optimizer.set_penalty("pull", {0.1, {}, {{"fc2.weight", zeros({7, 33})}}});
  }
  void step() {
    optimizer.zero_grad();
    loss = nn::cross_entropy(model(x), y);
    loss.backward();
    optimizer.step();
  }
};

bool same_state(const nn::State& a, const nn::State& b) {
  for (const auto& [name, value] : a)
    if (!b.contains(name) || !test::same_bits(value, b.at(name))) return false;
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("A steady training step waits for nothing, copies nothing and allocates nothing") {
  if (const OnCuda cuda; cuda) {
    Training training;
    for (int i = 0; i < 3; ++i) training.step();
    const auto before = cuda::counters();
    for (int i = 0; i < 20; ++i) training.step();
    const auto after = cuda::counters();
    CHECK(after.synchronizations == before.synchronizations);
    CHECK(after.transfers == before.transfers);
    CHECK(after.allocations == before.allocations);
    CHECK(after.held_bytes == before.held_bytes);
    CHECK(after.launches > before.launches);
    CHECK(std::isfinite(training.loss.item()));
  }
}

TEST_CASE("The optimizer is one launch, however many parameters there are") {
  if (const OnCuda cuda; cuda) {
    nn::Mlp model({9, 8, 7, 6, 5, 4});
    optim::AdamW optimizer(model.parameters());
    sum(square(model(ones({3, 9})))).backward();
    optimizer.step();
    const auto before = cuda::counters().launches;
    optimizer.step();
    CHECK(cuda::counters().launches == before + 1);
    optimizer.clip_norm(1);
    optimizer.step();
    const auto clipped = cuda::counters().launches;
    optimizer.step();
    CHECK(cuda::counters().launches <= clipped + 8);  // squares, their sum, and a few on one number
  }
}

TEST_CASE("A recorded step gives the bits of the eager step, schedules and draws included") {
  if (const OnCuda cuda; cuda) {
    Training eager, recorded;
    REQUIRE(same_state(eager.model.state(), recorded.model.state()));
    for (int i = 0; i < 2; ++i) {
      eager.step();
      recorded.step();
    }
    cuda::Graph graph = cuda::capture([&] { recorded.step(); });
    eager.step();
    CHECK(same_state(eager.model.state(), recorded.model.state()));
    Generator generator(9);
    std::vector<Tensor> batches;
    for (int i = 0; i < 12; ++i) batches.push_back(randn({16, 20}, generator));
    const auto before = cuda::counters();
    for (int i = 0; i < 12; ++i) {
      const Tensor& batch = batches[static_cast<std::size_t>(i)];
      eager.x.copy_(batch);
      recorded.x.copy_(batch);
      eager.step();
      graph.replay();
      INFO("replay " << i);
      CHECK(eager.loss.item() == recorded.loss.item());
    }
    CHECK(graph.replays() == 12);
    CHECK(cuda::counters().allocations == before.allocations);
    CHECK(same_state(eager.model.state(), recorded.model.state()));
    CHECK(same_state(eager.optimizer.state(), recorded.optimizer.state()));
  }
}

TEST_CASE("What cannot be recorded says so, and the program goes on") {
  if (const OnCuda cuda; cuda) {
    Training training;
    CHECK_THAT(message_of([&] { cuda::capture([&] { training.step(); }); }), Contains("inside a recorded step"));
    training.step();
    training.step();
    CHECK_THAT(message_of([&] {
                 cuda::capture([&] {
                   training.step();
                   static_cast<void>(training.loss.item());
                 });
               }),
               Contains("would have to wait inside a recorded step"));
    CHECK_THAT(message_of([&] {
                 cuda::capture([&] { training.x.copy_(to(ones({16, 20}, Device::cpu()), Device::cuda())); });
               }),
               Contains("from the host inside a recorded step"));
    CHECK_THAT(message_of([&] { cuda::capture([&] { cuda::capture([] {}); }); }),
               Contains("is being recorded already"));
    training.step();
    CHECK(std::isfinite(training.loss.item()));
  }
}

TEST_CASE("A recording needs no more memory than the step itself, and running out is a typed error") {
  if (const OnCuda cuda; cuda) {
    const Tensor x = ones({1 << 20});
    Tensor y;
    const auto step = [&] { y = sum(square(x) + 1.0); };
    const std::int64_t room = 9 << 20;  // two tensors of 4 MiB, and small ones
    release_cached_memory();
    set_memory_limit(memory_stats().system_bytes + room);
    step();
    {
      cuda::Graph graph = cuda::capture(step);
      graph.replay();
      CHECK(y.item() == 2 << 20);
    }
    step();  // in memory that was the graph's
    release_cached_memory();
    set_memory_limit(memory_stats().system_bytes + room / 2);
    CHECK_THROWS_AS(cuda::capture(step), OutOfMemory);
    set_memory_limit(0);
    step();
    cuda::Graph graph = cuda::capture([&] {
      release_cached_memory();  // there is none that could go now
      step();
    });
    graph.replay();
    CHECK(y.item() == 2 << 20);
  }
}

TEST_CASE("A step is recorded on the default device, and on no other") {
  if (cuda::device_count() < 2) return;
  const DefaultDevice second(Device::cuda(1));
  Training eager, recorded;
  for (int i = 0; i < 2; ++i) {
    eager.step();
    recorded.step();
  }
  const Tensor elsewhere = ones({2}, Device::cuda(0));
  std::optional<cuda::Graph> graph = cuda::capture([&] { recorded.step(); });
  eager.step();
  for (int i = 0; i < 2; ++i) {
    CHECK(sum(elsewhere).item() == 2);
    eager.step();
    graph->replay();
  }
  CHECK(same_state(eager.model.state(), recorded.model.state()));
  CHECK(sum(elsewhere).item() == 2);
  graph.reset();
  for (const int index : {1, 0}) {
    const DefaultDevice device(Device::cuda(index));
    const Tensor other = ones({2}, Device::cuda(1 - index));
    CHECK_THAT(message_of([&] { cuda::capture([&] { add(other, other); }); }),
               Contains("[capture] work for cuda:" + std::to_string(1 - index) + " while a step on another device"));
    Tensor last = other.clone(), sums;
    graph = cuda::capture([&] {
      sums = ones({2});
      last = Tensor();  // its memory is the other device's
    });
    CHECK(sum(sums + to(other, Device::cuda(index))).item() == 4);
  }
}

TEST_CASE("Another thread's work is no part of a recording") {
  if (const OnCuda cuda; cuda) {
    Training eager, recorded;
    for (int i = 0; i < 2; ++i) {
      eager.step();
      recorded.step();
    }
    const Tensor x = ones({2});
    const char* const refused = "[capture] work for cuda:0 while another thread records a step there";
    cuda::Graph graph = cuda::capture([&] {
      std::thread([&] {
        const DefaultDevice device(Device::cuda());
        CHECK_THAT(message_of([&] { add(x, x); }), Contains(refused));
        CHECK_THAT(message_of([&] { static_cast<void>(x.to_vector<float>()); }), Contains(refused));
        CHECK_THAT(message_of([&] { cuda::synchronize(); }), Contains(refused));
        CHECK_THAT(message_of([&] { cuda::capture([] {}); }), Contains(refused));
        release_cached_memory();
      }).join();
      recorded.step();
    });
    eager.step();
    std::thread([&] { graph.replay(); }).join();
    eager.step();
    CHECK(same_state(eager.model.state(), recorded.model.state()));
  }
}

TEST_CASE("Devices do not mix, except for numbers") {
  if (!cuda::available()) return;
  const Tensor host = ones({2, 2}, Device::cpu()), device = ones({2, 2}, Device::cuda());
  CHECK(message_of([&] { add(host, device); }) == "[add] devices cpu and cuda:0");
  CHECK(message_of([&] { matmul(device, host); }) == "[matmul] devices cuda:0 and cpu");
  CHECK_THAT(message_of([&] {
               index_select(device, 0, arange(1, {i64, Device::cpu()}));
             }),
             Contains("[index_select] devices"));
  CHECK(sum(device + scalar(2, {f32, Device::cpu()})).item() == 12);
  CHECK(test::same_bits(host * 3.0, device * 3.0));
  Tensor leaf = host.clone();
  leaf.set_requires_grad();
  sum(square(to(leaf, Device::cuda()))).backward();  // a copy between devices is differentiable
  CHECK(leaf.grad().device() == Device::cpu());
  CHECK(sum(leaf.grad()).item() == 8);
}

TEST_CASE("An index out of range is reported when the host next waits, once") {
  if (const OnCuda cuda; cuda) {
    const Tensor x = ones({3, 2});
    const Tensor y = index_select(x, 0, tensor<std::int64_t>({0, 5, 7}));
    CHECK_THAT(message_of([&] { cuda::synchronize(); }),
               Contains("[index_select] index ") && Contains("is out of range for size 3"));
    CHECK(message_of([&] { cuda::synchronize(); }) == "no error");
    CHECK(sum(x).item() == 6);
  }
}

TEST_CASE("An index out of range in a replay is reported as in the step itself") {
  if (const OnCuda cuda; cuda) {
    const Tensor x = randn({4, 3}), y = zeros({4}, i64), wrong = full({4}, 7, i64), right = y.clone();
    Tensor loss;
    const auto step = [&] { loss = nn::cross_entropy(x, y); };
    step();
    cuda::Graph graph = cuda::capture(step);
    const double first = loss.item();
    for (int i = 0; i < 2; ++i) {
      y.copy_(wrong);
      graph.replay();
      CHECK_THAT(message_of([&] { cuda::synchronize(); }), Contains("[cross_entropy] target 7 at position "));
      y.copy_(right);
      graph.replay();
      CHECK(loss.item() == first);
    }
  }
}

TEST_CASE("A model moves between devices and keeps its values") {
  if (!cuda::available()) return;
  const DefaultDevice host(Device::cpu());
  Net model;
  model.eval();
  model.freeze("fc1.*");
  const nn::State before = model.state();
  model.to(Device::cuda());
  CHECK(model.device() == Device::cuda());
  CHECK(model.count_trainable() == 33 * 2 + 33 * 7 + 7);
  const Tensor x = ones({2, 20});
  const Tensor on_device = model(to(x, Device::cuda()));
  CHECK(on_device.device() == Device::cuda());
  CHECK(same_state(before, model.state()));
  optim::Sgd optimizer(model.parameters(), optim::SgdOptions{.lr = 0.1, .momentum = 0.9});
  sum(on_device).backward();
  optimizer.step();
  model.to(Device::cpu());
  sum(model(x)).backward();
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("its state on cuda:0: make the optimizer after moving"));
  model.load(before);
  CHECK(same_state(before, model.state()));
}

TEST_CASE("A run repeats to the bit: no sum depends on which thread came first") {
  if (const OnCuda cuda; cuda) {
    const int repeats = cuda::simulated() ? 4 : 20,
              steps = cuda::simulated() ? 25 : 1000;  // it is slower, not different
    nn::State first;
    for (int i = 0; i < repeats; ++i) {
      Training training;
      for (int t = 0; t < steps; ++t) training.step();
      if (i == 0) first = training.model.state();
      else CHECK(same_state(first, training.model.state()));
    }
  }
}

TEST_CASE("Out of memory on the device is a typed error and leaves it usable") {
  if (const OnCuda cuda; cuda) {
    release_cached_memory();
    set_memory_limit(memory_stats().system_bytes + (1 << 20));
    CHECK_THROWS_AS(zeros({1 << 20}), OutOfMemory);
    CHECK_THAT(message_of([] { zeros({1 << 20}); }), Contains("[alloc] cuda:0 has no memory for 4194304 bytes"));
    CHECK(sum(ones({100})).item() == 100);
    set_memory_limit(0);
    CHECK_THROWS_AS(zeros({1LL << 45}), OutOfMemory);
    CHECK(sum(ones({1 << 20})).item() == 1 << 20);
  }
}
