// Reservoir sampling.
#include <stet/continual/memory.h>

#include <cstring>

#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

constexpr std::int64_t kMostSeen = std::int64_t{1} << 62;  // a damaged count must not overflow when examples follow

}  // namespace

Reservoir::Reservoir(std::int64_t capacity, Generator generator) : capacity_(capacity), generator_(generator) {
  check(capacity > 0, "reservoir", "capacity ", capacity, ": expected at least 1");
}

void Reservoir::offer(const Batch& offered) {
  const NoGrad no_grad;
  const Batch batch = offered.to(Device::cpu());
  if (batch.size() == 0) return;
  check(batch.x.dtype() == DType::f32, "reservoir", "examples ", batch.x.shape(), " of ", batch.x.dtype(),
        ": expected f32");
  if (!x_.defined()) {
    Shape shape = batch.x.shape();
    shape[0] = capacity_;
    x_ = zeros(shape, batch.x.options());
    y_ = zeros({capacity_}, batch.y.options());
    task_ = zeros({capacity_}, batch.y.options());
  }
  check(batch.x.numel() * capacity_ == batch.size() * x_.numel(), "reservoir", "examples ", batch.x.shape(),
        " for a store ", x_.shape());
  const Tensor x = contiguous(batch.x);
  const std::int64_t width = x.numel() / batch.size();
  const auto* from = x.data<float>();
  const auto* labels = batch.y.data<std::int64_t>();
  const auto* tasks = batch.task.data<std::int64_t>();
  auto* to = x_.mutable_data<float>();
  for (std::int64_t i = 0; i < batch.size(); ++i, ++seen_) {
    // Example number j = seen + 1 replaces slot u, drawn from [0, j), where u is below the capacity.
    const std::int64_t slot = seen_ < capacity_ ? seen_ : randint(generator_.next(), 0, 0, seen_ + 1);
    if (slot >= capacity_) continue;
    std::memcpy(to + slot * width, from + i * width, static_cast<std::size_t>(width) * sizeof(float));
    y_.mutable_data<std::int64_t>()[slot] = labels[i];
    task_.mutable_data<std::int64_t>()[slot] = tasks[i];
  }
}

Batch Reservoir::draw(std::int64_t count) {
  const NoGrad no_grad;
  if (size() == 0 || count <= 0) return {};
  const std::vector<std::int64_t> chosen = permutation(generator_, size(), count);
  const Device wanted = default_device();
  const DefaultDevice host(Device::cpu());
  const Tensor index = tensor(chosen);
  const Batch drawn{index_select(x_, 0, index), index_select(y_, 0, index), index_select(task_, 0, index)};
  return drawn.to(wanted);
}

nn::State Reservoir::state() const {
  const DefaultDevice host(Device::cpu());
  const GeneratorState g = generator_.state();
  nn::State out;
  out["counters"] =
      tensor(std::vector<std::int64_t>{seen_, static_cast<std::int64_t>(g.seed), static_cast<std::int64_t>(g.draw)});
  if (x_.defined()) {
    out["x"] = x_.clone();
    out["y"] = y_.clone();
    out["task"] = task_.clone();
  }
  return out;
}

void Reservoir::load(const nn::State& state) {
  const auto found = [&](const std::string& key) {
    return state.contains(key) ? to(state.at(key), Device::cpu()).clone() : Tensor();
  };
  const Tensor counters = found("counters"), x = found("x"), y = found("y"), task = found("task");
  check(counters.defined() && counters.shape() == Shape{3} && counters.dtype() == DType::i64, "reservoir",
        "the state has no 'counters' (3,) i64");
  const auto* numbers = counters.data<std::int64_t>();
  check(numbers[0] >= 0 && numbers[0] <= kMostSeen, "reservoir", "the state has ", numbers[0],
        " examples seen, expected 0 to ", kMostSeen);
  check(x.defined() == (numbers[0] > 0), "reservoir", "the state has ", numbers[0], " examples seen and ",
        x.defined() ? "a" : "no", " store 'x'");
  const auto fits = [&](const Tensor& t) {
    return t.defined() && t.dtype() == DType::i64 && t.shape() == Shape{capacity_};
  };
  check(!x.defined() || (x.rank() > 0 && x.dtype() == DType::f32 && x.shape()[0] == capacity_ && fits(y) && fits(task)),
        "reservoir", "the state does not fit capacity ", capacity_,
        ": expected x (capacity, ...), y and task (capacity,)");
  seen_ = numbers[0];
  generator_.set_state({static_cast<std::uint64_t>(numbers[1]), static_cast<std::uint64_t>(numbers[2])});
  x_ = x;
  y_ = y;
  task_ = task;
}

}  // namespace stet::continual
