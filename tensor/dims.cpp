// Shapes and strides: the small vector and the shared rules.
#include <stet/tensor/dims.h>

#include <algorithm>

#include <stet/tensor/error.h>

namespace stet {

Dims::Dims(const std::int64_t* values, std::size_t n) {
  check(n <= kMaxRank, "shape", "rank ", n, ": at most ", kMaxRank, " dimensions are supported");
  size_ = static_cast<int>(n);
  if (size_ > kInline) heap_ = new std::int64_t[kMaxRank];
  std::copy(values, values + n, data());
}

Dims::Dims(int rank, std::int64_t fill) {
  check(rank >= 0 && rank <= kMaxRank, "shape", "rank ", rank, ": at most ", kMaxRank, " dimensions are supported");
  size_ = rank;
  if (size_ > kInline) heap_ = new std::int64_t[kMaxRank];
  std::fill(begin(), end(), fill);
}

void Dims::steal(Dims& o) noexcept {
  size_ = o.size_;
  if (size_ > kInline) {
    heap_ = o.heap_;
    o.size_ = 0;
  } else {
    std::copy(o.local_, o.local_ + size_, local_);
  }
}

void Dims::push_back(std::int64_t value) {
  Dims longer(size_ + 1);
  std::copy(begin(), end(), longer.begin());
  longer[size_] = value;
  *this = std::move(longer);
}

bool operator==(const Dims& a, const Dims& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

std::ostream& operator<<(std::ostream& out, const Dims& dims) {
  out << '(';
  for (int i = 0; i < dims.size(); ++i) out << (i ? ", " : "") << dims[i];
  return out << (dims.size() == 1 ? ",)" : ")");
}

std::int64_t count_elements(std::string_view op, const Shape& shape) {
  // A zero anywhere makes the count zero, but the other sizes must still be valid ones.
  std::int64_t count = 1;
  bool overflow = false, zero = false;
  for (int i = 0; i < shape.size(); ++i) {
    check(shape[i] >= 0, op, "shape ", shape, ": dimension ", i, " is negative");
    zero = zero || shape[i] == 0;
    overflow = __builtin_mul_overflow(count, shape[i] == 0 ? 1 : shape[i], &count) || overflow;
  }
  if (zero) return 0;
  check(!overflow, op, "shape ", shape, " has more than 2^63 - 1 elements");
  return count;
}

std::int64_t count_bytes(std::string_view op, const Shape& shape, std::int64_t element_size) {
  std::int64_t bytes = 0;
  const bool overflow = __builtin_mul_overflow(count_elements(op, shape), element_size, &bytes);
  check(!overflow, op, "shape ", shape, " with ", element_size, "-byte elements is over 2^63 - 1 bytes");
  return bytes;
}

Strides row_major(const Shape& shape) {
  Strides strides(shape.size());
  std::int64_t step = 1;
  for (int i = shape.size() - 1; i >= 0; --i) {
    strides[i] = step;
    if (i > 0 && __builtin_mul_overflow(step, std::max<std::int64_t>(shape[i], 1), &step))
      return Strides(shape.size(), 0);  // a size is 0: there is nothing to step over
  }
  return strides;
}

Shape broadcast(std::string_view op, const Shape& a, const Shape& b) {
  if (a == b) return a;
  const int rank = std::max(a.size(), b.size());
  Shape out(rank);
  for (int i = 1; i <= rank; ++i) {
    const std::int64_t x = i <= a.size() ? a[a.size() - i] : 1;
    const std::int64_t y = i <= b.size() ? b[b.size() - i] : 1;
    check(x == y || x == 1 || y == 1, op, "shapes ", a, " and ", b, " do not broadcast: dimension -", i, " is ", x,
          " and ", y);
    out[rank - i] = x == 1 ? y : x;
  }
  return out;
}

int normalize_axis(std::string_view op, std::int64_t axis, int rank) {
  check(axis >= -rank && axis < rank, op, "axis ", axis, " is out of range for rank ", rank);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

std::vector<int> normalize_axes(std::string_view op, std::span<const std::int64_t> axes, int rank) {
  std::vector<int> out;
  if (axes.empty())
    for (int i = 0; i < rank; ++i) out.push_back(i);
  for (std::int64_t axis : axes) out.push_back(normalize_axis(op, axis, rank));
  std::sort(out.begin(), out.end());
  const auto twice = std::adjacent_find(out.begin(), out.end());
  check(twice == out.end(), op, "axis ", twice == out.end() ? 0 : *twice, " is named twice");
  return out;
}

}  // namespace stet
