// Assembling batches.
#include <stet/continual/examples.h>

#include <algorithm>
#include <numeric>

#include <stet/tensor/error.h>
#include <stet/tensor/threads.h>

namespace stet::continual {
namespace {

template <class T> void read_row(const T* from, float* to, std::int64_t width, const std::vector<std::int64_t>& map) {
  constexpr float scale = std::is_same_v<T, std::uint8_t> ? 255.0f : 1.0f;  // divided by: the bits of x / 255
  if (map.empty()) {
    for (std::int64_t i = 0; i < width; ++i) to[i] = static_cast<float>(from[i]) / scale;
    return;
  }
  for (std::int64_t i = 0; i < width; ++i) {
    const std::int64_t at = map[static_cast<std::size_t>(i)];
    to[i] = at < 0 ? 0.0f : static_cast<float>(from[at]) / scale;
  }
}

}  // namespace

Pool pool_of(const data::ImageSet& images) {
  Pool out{empty({images.count, images.height * images.width}, {DType::u8, Device::cpu()}), data::labels(images)};
  std::copy(images.images.begin(), images.images.end(), out.x.mutable_data<std::uint8_t>());
  return out;
}

Pool on_cpu(const Pool& pool) { return {contiguous(to(pool.x, Device::cpu())), contiguous(to(pool.y, Device::cpu()))}; }

Batch Batch::to(Device device) const {
  if (size() == 0) return *this;
  return {stet::to(x, device), stet::to(y, device), stet::to(task, device)};
}

Batch join(const Batch& a, const Batch& b) {
  if (a.size() == 0) return b;
  if (b.size() == 0) return a;
  return {cat({a.x, b.x}), cat({a.y, b.y}), cat({a.task, b.task})};
}

Examples::Examples(std::shared_ptr<const Pool> pool, std::vector<std::int64_t> indices, std::int64_t task,
                   std::vector<std::int64_t> label_map, std::vector<std::int64_t> pixel_map)
    : pool_(std::move(pool)),
      indices_(std::move(indices)),
      label_map_(std::move(label_map)),
      pixel_map_(std::move(pixel_map)),
      task_(task) {
  check(pool_ && pool_->x.rank() == 2 && pool_->y.rank() == 1 && pool_->x.shape()[0] == pool_->y.shape()[0], "examples",
        "a pool is x (n, d) and y (n,)");
  const auto lies_well = [](const Tensor& t) { return t.device() == Device::cpu() && t.is_contiguous(); };
  if (!lies_well(pool_->x) || !lies_well(pool_->y)) pool_ = std::make_shared<const Pool>(on_cpu(*pool_));
  check(pool_->x.dtype() == DType::u8 || pool_->x.dtype() == DType::f32, "examples", "x holds ", pool_->x.dtype(),
        ", expected u8 or f32");
  const auto labels = pool_->y.values<std::int64_t>();
  for (std::int64_t i : indices_) {
    check(i >= 0 && i < pool_->y.numel(), "examples", "index ", i, " of ", pool_->y.numel());
    const std::int64_t label = labels[static_cast<std::size_t>(i)];
    check(label_map_.empty() || (label >= 0 && label < static_cast<std::int64_t>(label_map_.size()) &&
                                 label_map_[static_cast<std::size_t>(label)] >= 0),
          "examples", "label ", label, " at index ", i, " has no output in task ", task_);
  }
  check(pixel_map_.empty() || static_cast<std::int64_t>(pixel_map_.size()) == width(), "examples", "a map of ",
        pixel_map_.size(), " pixels for ", width());
  for (std::int64_t at : pixel_map_) check(at < width(), "examples", "pixel ", at, " of ", width());
}

Batch Examples::batch(std::span<const std::int64_t> positions) const {
  if (positions.empty()) return {};
  const auto n = static_cast<std::int64_t>(positions.size());
  const Options whole{DType::i64, Device::cpu()};
  Batch out{empty({n, width()}, Device::cpu()), empty({n}, whole), empty({n}, whole)};
  auto* x = out.x.mutable_data<float>();
  auto* y = out.y.mutable_data<std::int64_t>();
  out.task.fill_(static_cast<double>(task_));
  const auto* labels = pool_->y.data<std::int64_t>();
  const bool bytes = pool_->x.dtype() == DType::u8;
  for (std::int64_t position : positions)
    check(position >= 0 && position < size(), "batch", "position ", position, " of ", size(), " examples");
  constexpr std::int64_t kRows = 32;
  parallel_for((n + kRows - 1) / kRows, [&](std::int64_t chunk) {
    for (std::int64_t i = chunk * kRows; i < std::min(n, (chunk + 1) * kRows); ++i) {
      const std::int64_t at = indices_[static_cast<std::size_t>(positions[static_cast<std::size_t>(i)])];
      if (bytes) read_row(pool_->x.data<std::uint8_t>() + at * width(), x + i * width(), width(), pixel_map_);
      else read_row(pool_->x.data<float>() + at * width(), x + i * width(), width(), pixel_map_);
      y[i] = label_map_.empty() ? labels[at] : label_map_[static_cast<std::size_t>(labels[at])];
    }
  });
  return out.to(default_device());
}

std::uint64_t fold(std::uint64_t hash, std::span<const std::int64_t> numbers) {
  constexpr std::uint64_t prime = 0x100000001b3;
  hash = (hash ^ numbers.size()) * prime;
  for (const std::int64_t number : numbers) {
    hash = (hash ^ static_cast<std::uint64_t>(number)) * prime;
    hash ^= hash >> 32;  // a product carries upwards alone
  }
  return hash;
}

std::uint64_t Examples::fingerprint() const {
  std::uint64_t hash = fold(0, std::span(&task_, 1));
  for (const auto& numbers : {&indices_, &label_map_, &pixel_map_}) hash = fold(hash, *numbers);
  return hash;
}

Batch Examples::range(std::int64_t begin, std::int64_t end) const {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(std::max<std::int64_t>(end - begin, 0)));
  std::iota(positions.begin(), positions.end(), begin);
  return batch(positions);
}

Examples Examples::subset(std::int64_t begin, std::int64_t end) const {
  check(begin >= 0 && begin <= end && end <= size(), "subset", "positions ", begin, " to ", end, " of ", size(),
        " examples");
  Examples out = *this;
  out.indices_.assign(indices_.begin() + begin, indices_.begin() + end);
  return out;
}

}  // namespace stet::continual
