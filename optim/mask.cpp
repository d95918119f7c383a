// Masks: construction, canonical form, conversion.
#include <stet/optim/mask.h>

#include <algorithm>

#include <stet/autograd/ops.h>
#include <stet/tensor/error.h>

namespace stet::optim {
namespace {

constexpr std::int64_t kLongRun = 64;  // elements a run must have on average to be kept as a range

}  // namespace

Mask::Mask(const Shape& shape) : shape_(shape), count_(count_elements("mask", shape)) {}

void Mask::add_range(std::int64_t begin, std::int64_t end) {
  if (begin == end) return;
  allowed_ += end - begin;
  if (!ranges_.empty() && ranges_.back() == begin) {
    ranges_.back() = end;
    return;
  }
  ranges_.push_back(begin);
  ranges_.push_back(end);
}

Mask Mask::all(const Shape& shape) {
  Mask mask(shape);
  mask.add_range(0, mask.count_);
  return mask;
}

Mask Mask::none(const Shape& shape) { return Mask(shape); }

Mask Mask::rows(const Shape& shape, const std::vector<std::int64_t>& rows) {
  check(shape.size() >= 1, "mask", "a scalar has no rows");
  Mask mask(shape);
  const std::int64_t width = shape[0] ? mask.count_ / shape[0] : 0;
  std::vector<std::int64_t> sorted = rows;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (std::int64_t row : sorted) {
    check(row >= 0 && row < shape[0], "mask", "row ", row, " of shape ", shape);
    mask.add_range(row * width, (row + 1) * width);
  }
  return mask;
}

Mask Mask::heads(const Shape& shape, std::int64_t heads, const std::vector<std::int64_t>& chosen) {
  check(shape.size() >= 1 && heads > 0 && shape[0] % heads == 0, "mask", "axis 0 of shape ", shape,
        " is not a multiple of ", heads, " heads");
  std::vector<std::int64_t> rows;
  for (std::int64_t head : chosen) {
    check(head >= 0 && head < heads, "mask", "head ", head, " of ", heads);
    for (std::int64_t i = 0; i < shape[0] / heads; ++i) rows.push_back(head * (shape[0] / heads) + i);
  }
  return Mask::rows(shape, rows);
}

Mask Mask::blocks(const Shape& shape, std::int64_t size, const std::vector<bool>& chosen) {
  Mask mask(shape);
  check(size > 0, "mask", "blocks of ", size, " elements");
  const std::int64_t blocks = mask.count_ / size + (mask.count_ % size != 0);  // a sum could overflow
  check(static_cast<std::int64_t>(chosen.size()) == blocks, "mask", chosen.size(), " choices for ", blocks,
        " blocks of ", size, " in shape ", shape);
  for (std::int64_t i = 0, at = 0; i < blocks; ++i, at += std::min(size, mask.count_ - at))
    if (chosen[static_cast<std::size_t>(i)]) mask.add_range(at, at + std::min(size, mask.count_ - at));
  return mask;
}

Mask Mask::elements(const Tensor& may_change) {
  check(may_change.dtype() == DType::boolean, "mask", "elements hold ", may_change.dtype(), ", expected bool");
  Mask mask(may_change.shape());
  const Tensor flat = contiguous(to(may_change, Device::cpu()));
  const bool* on = flat.data<bool>();
  for (std::int64_t i = 0; i < mask.count_;) {
    std::int64_t end = i;
    while (end < mask.count_ && on[end] == on[i]) ++end;
    if (on[i]) mask.add_range(i, end);
    i = end;
  }
  const auto runs = static_cast<std::int64_t>(mask.ranges_.size() / 2);
  if (runs == 0 || mask.count_ / runs >= kLongRun) return mask;
  mask.ranges_.clear();
  mask.bits_.assign(static_cast<std::size_t>((mask.count_ + 31) / 32), 0);
  for (std::int64_t i = 0; i < mask.count_; ++i)
    if (on[i]) mask.bits_[static_cast<std::size_t>(i / 32)] |= 1u << (i % 32);
  return mask;
}

Tensor Mask::to_tensor(Device device) const {
  if (as_tensor_.defined() && as_tensor_.device() == device) return as_tensor_;
  Tensor out = zeros(shape_, {DType::boolean, Device::cpu()});
  bool* on = out.mutable_data<bool>();
  for (std::size_t r = 0; r + 1 < ranges_.size(); r += 2) std::fill(on + ranges_[r], on + ranges_[r + 1], true);
  for (std::int64_t i = 0; i < count_ && !bits_.empty(); ++i)
    on[i] = bits_[static_cast<std::size_t>(i / 32)] >> (i % 32) & 1u;
  as_tensor_ = to(out, device);
  return as_tensor_;
}

Mask Mask::operator&(const Mask& other) const {
  check(shape_ == other.shape_, "mask", "shapes ", shape_, " and ", other.shape_);
  return elements(cast(cast(to_tensor(), DType::u8) * cast(other.to_tensor(), DType::u8), DType::boolean));
}

UpdateMask Mask::view(Device device) const {
  if (is_all()) return {};
  static const std::vector<std::int64_t> kNothing{0, 0};
  const std::vector<std::int64_t>& ranges = ranges_.empty() ? kNothing : ranges_;
  const void *ranges_at = ranges.data(), *bits_at = bits_.data();
  if (!(device == Device::cpu())) {
    if (!uploaded_.defined() || !(uploaded_.device() == device)) {
      const DefaultDevice host(Device::cpu());
      const std::vector<std::int32_t> words(bits_.begin(), bits_.end());
      uploaded_ = to(bits_.empty() ? tensor(ranges) : tensor(words), device);
    }
    ranges_at = bits_at = uploaded_.raw();
  }
  if (!bits_.empty()) return {nullptr, 0, static_cast<const std::uint32_t*>(bits_at)};
  return {static_cast<const std::int64_t*>(ranges_at), static_cast<std::int64_t>(ranges.size() / 2), nullptr};
}

}  // namespace stet::optim
