// Examples: labelled data seen through index lists and pixel maps, so that ten permuted tasks cost one copy
// of the data. A batch is assembled when it is asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <stet/autograd/ops.h>
#include <stet/data/images.h>

namespace stet::continual {

/// What one training step sees. `task` tells which task each example belongs to; only task-incremental
/// learning may look at it.
struct Batch {
  Tensor x;     ///< (n, ...) f32
  Tensor y;     ///< (n,) i64, labels as outputs of the model
  Tensor task;  ///< (n,) i64
  std::int64_t size() const { return y.defined() ? y.numel() : 0; }
  /// The same examples on another device.
  Batch to(Device device) const;
};

/// Joins two batches.
Batch join(const Batch& a, const Batch& b);

/// Data that several tasks look at; it stays on the CPU, where batches are assembled. x is (n, d) u8 (pixels, read as
/// value / 255) or f32; y is (n,) i64.
struct Pool {
  Tensor x, y;
};
/// The same pool on the CPU, contiguous; shares the memory of what is so already.
Pool on_cpu(const Pool& pool);

/// Images as a pool: x (count, height * width) u8, y (count,) i64. Copies the pixels.
Pool pool_of(const data::ImageSet& images);

/// Numbers and their count folded into a 64-bit hash, in order (FNV-1a, a number at a time).
std::uint64_t fold(std::uint64_t hash, std::span<const std::int64_t> numbers);

class Examples {
 public:
  Examples() = default;
  /// `indices` choose from the pool. `label_map`: output of each label, empty for the label itself.
  /// `pixel_map`: position each feature is read from, -1 for 0, empty for the feature itself.
  Examples(std::shared_ptr<const Pool> pool, std::vector<std::int64_t> indices, std::int64_t task,
           std::vector<std::int64_t> label_map = {}, std::vector<std::int64_t> pixel_map = {});

  std::int64_t size() const { return static_cast<std::int64_t>(indices_.size()); }
  /// Features of one example.
  std::int64_t width() const { return pool_ ? pool_->x.shape()[1] : 0; }
  std::int64_t task() const { return task_; }
  /// Examples at these positions (0 .. size - 1), on the default device.
  Batch batch(std::span<const std::int64_t> positions) const;
  /// Positions begin .. end - 1.
  Batch range(std::int64_t begin, std::int64_t end) const;
  /// Positions begin .. end - 1 as examples of their own; the pool is shared.
  Examples subset(std::int64_t begin, std::int64_t end) const;
  /// A hash of which examples these are and how they are read: task, indices, label map, pixel map. What the pool holds
  /// is not looked at.
  std::uint64_t fingerprint() const;

 private:
  std::shared_ptr<const Pool> pool_;
  std::vector<std::int64_t> indices_, label_map_, pixel_map_;
  std::int64_t task_ = 0;
};

}  // namespace stet::continual
