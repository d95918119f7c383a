// A reservoir of stored examples: every example of the stream is in it with the same probability.
#pragma once

#include <stet/continual/examples.h>
#include <stet/nn/module.h>

namespace stet::continual {

class Reservoir {
 public:
  Reservoir(std::int64_t capacity, Generator generator);

  std::int64_t capacity() const { return capacity_; }
  std::int64_t size() const { return static_cast<std::int64_t>(seen_ < capacity_ ? seen_ : capacity_); }
  std::int64_t seen() const { return seen_; }

  /// Offers each example of the batch in order (Vitter 1985, algorithm R). What is stored is a copy.
  void offer(const Batch& batch);
  /// `count` different stored examples (all of them when there are fewer), drawn at random.
  Batch draw(std::int64_t count);

  /// "counters" (3,) i64: examples seen, the generator's seed and draw; from the first example on "x" (capacity, ...)
  /// f32 and "y", "task" (capacity,) i64, of which size() rows are in use.
  nn::State state() const;
  /// Goes on as the saved one would have. An Error when a state is damaged or of another capacity; then nothing
  /// changes.
  void load(const nn::State& state);

 private:
  std::int64_t capacity_, seen_ = 0;
  Generator generator_;
  Tensor x_, y_, task_;  // (capacity, ...)
};

}  // namespace stet::continual
