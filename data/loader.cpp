// Loader: an epoch's order is made when its first batch is asked for, as a pure function of seed and epoch,
// so that a saved position is a few numbers and never the order itself.
#include <algorithm>
#include <numeric>

#include <stet/data/loader.h>
#include <stet/tensor/error.h>

namespace stet::data {
namespace {

std::vector<std::int64_t> zero_to(std::int64_t count) {
  check(count >= 0, "loader", "count ", count, ": must not be negative");
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

}  // namespace

Loader::Loader(std::int64_t count, LoaderOptions options, const Generator& generator)
    : Loader(zero_to(count), options, generator) {}

Loader::Loader(std::vector<std::int64_t> indices, LoaderOptions options, const Generator& generator)
    : indices_(std::move(indices)), options_(options), generator_(generator) {
  check(options.batch_size > 0, "loader", "batch_size ", options.batch_size, ": must be positive");
  check(!indices_.empty(), "loader", "no examples: there would never be a batch");
  check(batches() > 0, "loader", "batch_size ", options.batch_size, " with drop_last: only ", count(),
        " examples, there would never be a batch");
}

std::int64_t Loader::last_position() const {
  return options_.drop_last ? count() - count() % options_.batch_size : count();
}

std::int64_t Loader::batches() const {
  return last_position() / options_.batch_size + (last_position() % options_.batch_size != 0);
}

void Loader::begin_epoch() {
  order_ = indices_;
  if (!options_.shuffle) return;
  Generator generator = generator_.fork(epoch_);
  const auto order = permutation(generator, count());
  std::transform(order.begin(), order.end(), order_.begin(),
                 [&](std::int64_t i) { return indices_[static_cast<std::size_t>(i)]; });
}

std::optional<std::span<const std::int64_t>> Loader::next() {
  if (position_ == last_position()) {
    ++epoch_;
    position_ = 0;
    order_.clear();
    return std::nullopt;
  }
  if (order_.empty()) begin_epoch();
  const std::int64_t size = std::min(options_.batch_size, last_position() - position_);
  const auto first = static_cast<std::size_t>(position_);
  position_ += size;
  return std::span<const std::int64_t>(order_).subspan(first, static_cast<std::size_t>(size));
}

void Loader::restore(const LoaderState& state) {
  const bool between_batches = state.position == last_position() || state.position % options_.batch_size == 0;
  check(state.position >= 0 && state.position <= last_position() && between_batches, "loader", "restore: position ",
        state.position, " is not between two batches of ", options_.batch_size, " of ", count(),
        " examples: the state belongs to another loader");
  epoch_ = state.epoch;
  position_ = state.position;
  generator_.set_state(state.generator);
  order_.clear();
}

}  // namespace stet::data
