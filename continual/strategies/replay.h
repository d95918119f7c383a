// Experience replay from a reservoir: stored examples of earlier tasks join every batch.
#pragma once

#include <stet/continual/memory.h>
#include <stet/continual/strategy.h>
#include <stet/tensor/error.h>

namespace stet::continual {

struct ReplayOptions {
  std::int64_t capacity = 500;
  std::int64_t batch_size = 64;  ///< stored examples joined to each batch
  std::uint64_t seed = 0;
};

class Replay final : public Strategy {
 public:
  explicit Replay(ReplayOptions options = {})
      : options_(options), memory_(options.capacity, Generator(options.seed).fork("replay")) {
    check(options.batch_size >= 0, "Replay", "batch size ", options.batch_size, ": expected 0 or more");
  }
  std::string name() const override { return "replay"; }
  std::vector<std::string> claims() const override { return {"replay memory"}; }
  void examples(Context&, Batch& batch) override { batch = join(batch, memory_.draw(options_.batch_size)); }
  /// Every example of the finished task is offered once, in random order.
  void end_task(Context& context) override {
    Generator generator = Generator(options_.seed).fork("offer").fork(static_cast<std::uint64_t>(context.task));
    const auto order = permutation(generator, context.train().size());
    for (std::size_t at = 0; at < order.size(); at += 256)
      memory_.offer(context.train().batch(std::span(order).subspan(at, std::min<std::size_t>(256, order.size() - at))));
  }
  const Reservoir& memory() const { return memory_; }
  nn::State state() const override { return memory_.state(); }
  void load(const nn::State& state) override { memory_.load(state); }

 private:
  ReplayOptions options_;
  Reservoir memory_;
};

}  // namespace stet::continual
