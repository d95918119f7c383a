// Which elements of a parameter may change. Structured masks (rows, heads, blocks) skip memory altogether;
// element masks are bit-packed. An element that may not change keeps its bits, in the parameter and in the
// optimizer's state, after any number of steps.
#pragma once

#include <cstdint>
#include <vector>

#include <stet/tensor/tensor.h>
#include <stet/tensor/updates.h>

namespace stet::optim {

class Mask {
 public:
  /// Every element of a tensor of that shape may change.
  static Mask all(const Shape& shape);
  static Mask none(const Shape& shape);
  /// Only these rows (entries of axis 0) may change.
  static Mask rows(const Shape& shape, const std::vector<std::int64_t>& rows);
  /// Axis 0 is `heads` equal groups of rows; only the named groups may change.
  static Mask heads(const Shape& shape, std::int64_t heads, const std::vector<std::int64_t>& chosen);
  /// Blocks of `size` elements in row-major order (the last may be shorter); true: may change.
  static Mask blocks(const Shape& shape, std::int64_t size, const std::vector<bool>& chosen);
  /// A bool tensor; true: may change. Long runs are recognised and kept as ranges.
  static Mask elements(const Tensor& may_change);

  const Shape& shape() const { return shape_; }
  std::int64_t numel() const { return count_; }
  std::int64_t count() const { return allowed_; }  ///< elements that may change
  bool is_all() const { return allowed_ == count_; }
  bool is_none() const { return allowed_ == 0; }
  bool is_structured() const { return bits_.empty(); }
  /// As a bool tensor. It is kept: do not write into it.
  Tensor to_tensor(Device device = default_device()) const;
  /// Both must allow.
  Mask operator&(const Mask& other) const;
  /// What a device's update kernel takes; valid while the mask lives. Uploaded once for each device.
  UpdateMask view(Device device) const;

 private:
  explicit Mask(const Shape& shape);
  void add_range(std::int64_t begin, std::int64_t end);

  Shape shape_;
  std::int64_t count_ = 0, allowed_ = 0;
  std::vector<std::int64_t> ranges_;  // [begin, end) pairs, ascending, neighbours joined
  std::vector<std::uint32_t> bits_;   // used instead of ranges_ when not empty
  mutable Tensor uploaded_;           // ranges_ or bits_ on the device that asked last
  mutable Tensor as_tensor_;          // to_tensor() likewise
};

}  // namespace stet::optim
