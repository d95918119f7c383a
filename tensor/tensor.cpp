// The Tensor handle: creation, access, in-place writes.
#include <stet/tensor/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>
#include <stet/tensor/kernels.h>

namespace stet {
namespace {

bool row_major_layout(const Shape& shape, const Strides& strides) {
  std::int64_t expected = 1;
  for (int i = shape.size() - 1; i >= 0; --i) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != expected) return false;
    if (__builtin_mul_overflow(expected, shape[i], &expected)) return true;  // another size is 0
  }
  return true;
}

void check_writable(const Tensor& target, std::string_view op) {
  check(!grad_enabled() || !target.requires_grad(), op, "in-place write to a tensor ", target.shape(),
        " that records history: use NoGrad, or detach() it");
}

}  // namespace

TensorImpl& Tensor::impl() const {
  check(defined(), "tensor", "an undefined tensor was used");
  return *impl_;
}

std::int64_t Tensor::size(std::int64_t axis) const { return shape()[normalize_axis("size", axis, rank())]; }

const void* Tensor::checked_data(DType wanted, bool write) const {
  check(dtype() == wanted, "data", "tensor ", shape(), " holds ", dtype(), ", not ", wanted);
  check(device() == Device::cpu(), "data", "tensor ", shape(), " is on ", device(), ": copy it to the CPU first");
  check(is_contiguous(), "data", "tensor ", shape(), " with strides ", strides(),
        " is not contiguous: use contiguous()");
  if (write) {
    check_writable(*this, "mutable_data");
    impl_->storage->bump_version();
  }
  return raw();
}

double Tensor::item() const {
  check(numel() == 1, "item", "needs one element, got shape ", shape());
  if (dtype() == DType::f32 && device() == Device::cpu()) return *static_cast<const float*>(raw());
  double value = 0;
  compute::copy_to(&value, DType::f64, *this);
  return value;
}

template <class T> std::vector<T> Tensor::to_vector() const {
  std::vector<T> out(static_cast<std::size_t>(numel()));
  compute::copy_to(out.data(), dtype_of<T>, *this);
  return out;
}
template std::vector<float> Tensor::to_vector() const;
template std::vector<double> Tensor::to_vector() const;
template std::vector<std::int64_t> Tensor::to_vector() const;
template std::vector<std::int32_t> Tensor::to_vector() const;
template std::vector<std::uint8_t> Tensor::to_vector() const;

Tensor Tensor::clone() const {
  Tensor out = empty(shape(), options());
  compute::copy_into(out, *this);
  return out;
}

Tensor Tensor::detach() const {
  Tensor out = make_view(*this, shape(), strides(), impl().offset);
  return out;
}

const Tensor& Tensor::copy_(const Tensor& source) const {
  check_writable(*this, "copy_");
  check(!grad_enabled() || !source.requires_grad(), "copy_", "a source ", source.shape(),
        " that records history, which the copy would lose: use NoGrad, or detach() it");
  for (int i = 0; i < rank(); ++i)
    check(shape()[i] <= 1 || strides()[i] != 0, "copy_", "in-place write to an expanded tensor ", shape(),
          ", whose elements share memory along axis ", i, ": use clone()");
  const Tensor from = compute::expand("copy_", source, shape());
  const bool overlaps = from.impl().storage.get() == impl_->storage.get() &&
                        (from.impl().offset != impl_->offset || !(from.strides() == strides()));
  compute::copy_into(*this, overlaps ? from.clone() : from);
  impl_->storage->bump_version();
  return *this;
}

const Tensor& Tensor::fill_(double value) const {
  check_writable(*this, "fill_");
  if (numel() && is_contiguous()) kernels(device()).fill({dtype(), numel(), value, raw_mutable()});
  else compute::copy_into(*this, compute::expand("fill_", full({}, value, options()), shape()));
  impl_->storage->bump_version();
  return *this;
}

void set_default_device(Device device) {
  static_cast<void>(kernels(device));  // an Error when there is none
  detail::default_device = device;
}

Tensor empty(const Shape& shape, Options options) {
  const std::int64_t bytes = count_bytes("empty", shape, size_of(options.dtype));
  Ref<TensorImpl> impl(new TensorImpl);
  impl->storage = Ref<Storage>(new Storage(options.device, bytes));
  impl->shape = shape;
  impl->strides = row_major(shape);
  impl->count = bytes / size_of(options.dtype);
  impl->dtype = options.dtype;
  return Tensor(std::move(impl));
}

Tensor make_view(const Tensor& base, const Shape& shape, const Strides& strides, std::int64_t offset) {
  Ref<TensorImpl> impl(new TensorImpl);
  impl->storage = base.impl().storage;
  impl->shape = shape;
  impl->strides = strides;
  impl->offset = offset;
  impl->count = count_elements("view", shape);
  impl->dtype = base.dtype();
  impl->contiguous = row_major_layout(shape, strides);
  return Tensor(std::move(impl));
}

Tensor zeros(const Shape& shape, Options options) { return full(shape, 0, options); }
Tensor ones(const Shape& shape, Options options) { return full(shape, 1, options); }

Tensor full(const Shape& shape, double value, Options options) {
  Tensor out = empty(shape, options);
  if (out.numel()) kernels(options.device).fill({options.dtype, out.numel(), value, out.raw_mutable()});
  return out;
}

Tensor scalar(double value, Options options) {
  Tensor out = empty({}, options);
  if (options.dtype == DType::f32 && options.device == Device::cpu())
    *static_cast<float*>(out.raw_mutable()) = static_cast<float>(value);
  else if (options.dtype == DType::f64 && options.device == Device::cpu())
    *static_cast<double*>(out.raw_mutable()) = value;
  else kernels(options.device).fill({options.dtype, 1, value, out.raw_mutable()});
  return out;
}

Tensor whole_number(std::int64_t value) {
  Tensor out = empty({}, {DType::i64, Device::cpu()});
  *static_cast<std::int64_t*>(out.raw_mutable()) = value;
  return out;
}

template <class T> Tensor tensor(std::span<const T> values, const Shape& shape) {
  const std::int64_t count = count_elements("tensor", shape);
  check(static_cast<std::int64_t>(values.size()) == count, "tensor", values.size(), " values for shape ", shape);
  Tensor out = empty(shape, dtype_of<T>);
  if (count) kernels(out.device()).upload(out.raw_mutable(), values.data(), out.bytes());
  return out;
}
template Tensor tensor(std::span<const float>, const Shape&);
template Tensor tensor(std::span<const double>, const Shape&);
template Tensor tensor(std::span<const std::int64_t>, const Shape&);
template Tensor tensor(std::span<const std::int32_t>, const Shape&);
template Tensor tensor(std::span<const std::uint8_t>, const Shape&);
template Tensor tensor(std::span<const bool>, const Shape&);

namespace {

Tensor from_function(std::int64_t count, Options options, double start, double step) {
  constexpr std::int64_t kPart = 65536;
  Tensor out = empty({count}, options);
  std::vector<double> values;
  for (std::int64_t from = 0; from < count; from += kPart) {
    values.clear();
    for (std::int64_t i = from; i < std::min(count, from + kPart); ++i)
      values.push_back(start + static_cast<double>(i) * step);
    compute::copy_from(make_view(out, {std::ssize(values)}, {1}, from), values.data(), DType::f64);
  }
  return out;
}

}  // namespace

Tensor arange(double start, double stop, double step, Options options) {
  check(step != 0 && std::isfinite(start) && std::isfinite(stop) && std::isfinite(step), "arange", "from ", start,
        " to ", stop, " by ", step);
  check(is_floating(options.dtype) || (std::trunc(start) == start && std::trunc(step) == step), "arange", "from start ",
        start, " to stop ", stop, " by step ", step, " in ", options.dtype,
        ": expected whole numbers or a floating dtype");
  const double count = std::max(0.0, std::ceil((stop - start) / step));
  check(count < 9e15, "arange", count, " elements");
  return from_function(static_cast<std::int64_t>(count), options, start, step);
}
Tensor arange(std::int64_t count, Options options) {
  check(count >= 0, "arange", count, " elements");
  return from_function(count, options, 0, 1);
}
Tensor linspace(double start, double stop, std::int64_t count, Options options) {
  check(count >= 1, "linspace", count, " points: expected at least 1");
  Tensor out = from_function(count, options, start, count > 1 ? (stop - start) / static_cast<double>(count - 1) : 0);
  if (count > 1) make_view(out, {1}, {1}, count - 1).fill_(stop);  // rounding may miss it
  return out;
}

Tensor eye(std::int64_t n, Options options) {
  Tensor out = zeros({n, n}, options);
  make_view(out, {n}, {n + 1}, 0).fill_(1);
  return out;
}

}  // namespace stet
