// The order in which examples are visited: batches of indices, shuffled anew in each epoch from a seed, with
// a position that can be saved and restored. It knows nothing of what the indices stand for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <stet/tensor/random.h>

namespace stet::data {

struct LoaderOptions {
  std::int64_t batch_size = 64;
  bool shuffle = true;
  bool drop_last = false;  // leave out the last batch of an epoch where it would be smaller than the others
};

/// Where a Loader stands. Together with the same indices and options it gives the same batches from here on.
struct LoaderState {
  std::uint64_t epoch = 0;
  std::int64_t position = 0;  // examples of this epoch that have been handed out
  GeneratorState generator{};
  bool operator==(const LoaderState&) const = default;
};

class Loader {
 public:
  /// Visits 0 to count - 1. The order of an epoch depends on the generator's seed and the epoch's number
  /// alone, and the caller's generator is not advanced.
  Loader(std::int64_t count, LoaderOptions options, const Generator& generator = Generator());
  /// Visits these indices, for instance the examples of one task.
  Loader(std::vector<std::int64_t> indices, LoaderOptions options, const Generator& generator = Generator());

  /// The next batch, valid until the next call; nothing at the end of an epoch, after which the next one
  /// begins:
  ///   for (int epoch = 0; epoch < 3; ++epoch)
  ///     while (auto batch = loader.next()) train(*batch);
  std::optional<std::span<const std::int64_t>> next();

  std::int64_t count() const { return static_cast<std::int64_t>(indices_.size()); }
  /// Batches in an epoch.
  std::int64_t batches() const;
  std::uint64_t epoch() const { return epoch_; }
  const LoaderOptions& options() const { return options_; }

  LoaderState state() const { return {epoch_, position_, generator_.state()}; }
  /// Throws for a position that this loader's batches do not have.
  void restore(const LoaderState& state);

 private:
  void begin_epoch();
  std::int64_t last_position() const;

  std::vector<std::int64_t> indices_;
  LoaderOptions options_;
  Generator generator_;
  std::uint64_t epoch_ = 0;
  std::int64_t position_ = 0;
  std::vector<std::int64_t> order_;  // this epoch's indices in the order of visit; empty until the first batch
};

}  // namespace stet::data
