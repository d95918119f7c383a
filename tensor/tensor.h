// Tensor: a cheap handle to {storage, shape, strides, offset, dtype, device, history}.
// Copying copies the handle, clone() the data, detach() drops history. Row-major, NumPy order.
// Thread safety: const use from many threads is safe; writing needs its owner's care.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include <stet/tensor/device.h>
#include <stet/tensor/dims.h>
#include <stet/tensor/dtype.h>
#include <stet/tensor/history.h>
#include <stet/tensor/storage.h>

namespace stet {

/// What a handle points to. Only tensor/ and autograd/ look inside.
struct TensorImpl final : RefCounted {
  Ref<Storage> storage;
  Shape shape;
  Strides strides;
  std::int64_t offset = 0;
  std::int64_t count = 0;
  DType dtype = DType::f32;
  bool contiguous = true;  ///< elements stand in row-major order without gaps
  Ref<History> history;    ///< null: a constant
};
inline void dispose(TensorImpl* impl) { delete impl; }

/// dtype and device of a tensor to be made: `zeros({2, 3})`, `zeros({2, 3}, f64)`.
struct Options {
  DType dtype = DType::f32;
  Device device = default_device();
  Options() = default;
  Options(DType t, Device d = default_device()) : dtype(t), device(d) {}
  Options(Device d) : device(d) {}
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}
  Tensor(const Tensor&) = default;
  Tensor(Tensor&&) = default;
  Tensor& operator=(const Tensor&) & = default;
  Tensor& operator=(Tensor&&) & = default;
  Tensor& operator=(const Tensor&) && = delete;  // x[0] = y must not compile into nothing
  Tensor& operator=(Tensor&&) && = delete;

  bool defined() const { return static_cast<bool>(impl_); }
  const Shape& shape() const { return impl().shape; }
  const Strides& strides() const { return impl().strides; }
  int rank() const { return impl().shape.size(); }
  /// Size of one dimension; negative counts from the end.
  std::int64_t size(std::int64_t axis) const;
  std::int64_t numel() const { return impl().count; }
  std::int64_t bytes() const { return numel() * size_of(dtype()); }
  DType dtype() const { return impl().dtype; }
  Device device() const { return impl().storage->device(); }
  Options options() const { return {dtype(), device()}; }
  bool is_contiguous() const { return impl().contiguous; }

  /// First element, for reading. Needs a contiguous CPU tensor of that dtype.
  template <class T> const T* data() const { return static_cast<const T*>(checked_data(dtype_of<T>, false)); }
  /// The same for writing: counts as an in-place write.
  template <class T> T* mutable_data() const {
    return static_cast<T*>(const_cast<void*>(checked_data(dtype_of<T>, true)));
  }
  template <class T> std::span<const T> values() const { return {data<T>(), static_cast<std::size_t>(numel())}; }
  /// The one element of a one-element tensor, whatever its dtype and device.
  double item() const;
  /// All elements in row-major order, converted to T.
  template <class T> std::vector<T> to_vector() const;

  /// A contiguous copy with its own memory and no history.
  Tensor clone() const;
  /// The same memory without history.
  Tensor detach() const;

  // In-place writes. They bump the version; on a tensor that records history they are an error unless inside
  // NoGrad. Shapes broadcast from right to left, dtypes are converted.
  const Tensor& copy_(const Tensor& source) const;
  const Tensor& fill_(double value) const;

  // History; defined in autograd/.

  /// True for a leaf that asked for gradients and for whatever was computed from one.
  bool requires_grad() const { return static_cast<bool>(impl().history); }
  /// Makes a floating leaf ask for gradients, or stop. Stopping drops its gradient and takes it out of the graphs that
  /// were recorded before: their backward gives it nothing, even if it asks again by then. Returns *this.
  const Tensor& set_requires_grad(bool on = true) const;
  bool is_leaf() const;
  /// Accumulated by backward(); undefined until then. Leaves only.
  Tensor grad() const;
  void set_grad(const Tensor& grad) const;
  /// Accumulates d(this)/d(leaf) into the grad of every leaf. `seed`: this tensor's shape; may be left out
  /// for a one-element tensor. Frees the graph unless told to retain it. An Error where another pass, on whatever
  /// thread, is at work on an operation that this one needs; passes may share leaves alone.
  void backward(const Tensor& seed = {}, bool retain_graph = false) const;

  TensorImpl& impl() const;
  const Ref<TensorImpl>& ref() const { return impl_; }
  /// Start of this view, unchecked; kernels use it.
  const void* raw() const {
    return static_cast<const char*>(impl_->storage->data()) + impl_->offset * size_of(impl_->dtype);
  }
  void* raw_mutable() const { return const_cast<void*>(raw()); }

 private:
  const void* checked_data(DType wanted, bool write) const;
  Ref<TensorImpl> impl_;
};

/// A contiguous tensor with uninitialised elements.
Tensor empty(const Shape& shape, Options options = {});
Tensor zeros(const Shape& shape, Options options = {});
Tensor ones(const Shape& shape, Options options = {});
Tensor full(const Shape& shape, double value, Options options = {});
/// A 0-d tensor.
Tensor scalar(double value, Options options = {});
/// A 0-d i64 tensor on the CPU, from where it stands beside tensors of any device; exact beyond 2^53, too.
Tensor whole_number(std::int64_t value);
/// Values in row-major order, kept in their own type.
template <class T> Tensor tensor(std::span<const T> values, const Shape& shape);
template <class T> Tensor tensor(const std::vector<T>& values, const Shape& shape) {
  return tensor(std::span<const T>(values), shape);
}
template <class T> Tensor tensor(const std::vector<T>& values) {
  return tensor(values, {static_cast<std::int64_t>(values.size())});
}
/// In the literals' own type: tensor({{1.f, 2.f}, {3.f, 4.f}}) is f32, of 1.0 and 2.0 f64, of 1 and 2 i32, and an index
/// is tensor<std::int64_t>({1, 2}).
template <class T> Tensor tensor(std::initializer_list<T> values) {
  return tensor(std::span<const T>(values.begin(), values.size()), {static_cast<std::int64_t>(values.size())});
}
template <class T> Tensor tensor(std::initializer_list<std::initializer_list<T>> rows);
/// start, start + step, ... below stop. A fraction in start or step is an Error where the dtype holds integers.
Tensor arange(double start, double stop, double step = 1, Options options = {DType::i64});
Tensor arange(std::int64_t count, Options options = {DType::i64});
/// `count` points from start to stop, both included.
Tensor linspace(double start, double stop, std::int64_t count, Options options = {});
Tensor eye(std::int64_t n, Options options = {});

/// Prints "tensor([1., 2.], f32 (2,))", the rows of a matrix below each other; long tensors are abbreviated.
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);
std::string to_string(const Tensor& tensor);

/// A view: same storage, other shape, strides and offset; without history.
Tensor make_view(const Tensor& base, const Shape& shape, const Strides& strides, std::int64_t offset);

template <class T> Tensor tensor(std::initializer_list<std::initializer_list<T>> rows) {
  std::vector<T> flat;
  const std::size_t width = rows.size() ? rows.begin()->size() : 0;
  for (const auto& row : rows) {
    check(row.size() == width, "tensor", "rows of ", width, " and ", row.size(), " values");
    flat.insert(flat.end(), row.begin(), row.end());
  }
  if constexpr (std::is_same_v<T, bool>) {
    const std::vector<char> bytes(flat.begin(), flat.end());  // vector<bool> has no elements to point at
    return tensor(std::span<const bool>(reinterpret_cast<const bool*>(bytes.data()), bytes.size()),
                  {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(width)});
  } else {
    return tensor(std::span<const T>(flat), {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(width)});
  }
}

}  // namespace stet
