// Shapes and strides: a small vector of 64-bit integers (inline up to rank 4), and the rules on shapes that
// every operation shares: element counts with overflow checks, row-major strides, broadcasting.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string_view>
#include <vector>

namespace stet {

inline constexpr int kMaxRank = 8;

class Dims {
 public:
  Dims() {}
  Dims(std::initializer_list<std::int64_t> values) : Dims(values.begin(), values.size()) {}
  Dims(const std::vector<std::int64_t>& values) : Dims(values.data(), values.size()) {}
  explicit Dims(int rank, std::int64_t fill = 0);
  Dims(const Dims& o) : Dims(o.data(), static_cast<std::size_t>(o.size_)) {}
  Dims(Dims&& o) noexcept { steal(o); }
  Dims& operator=(const Dims& o) { return *this = Dims(o); }
  Dims& operator=(Dims&& o) noexcept {
    if (this != &o) {
      release();
      steal(o);
    }
    return *this;
  }
  ~Dims() { release(); }

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::int64_t* data() { return size_ > kInline ? heap_ : local_; }
  const std::int64_t* data() const { return size_ > kInline ? heap_ : local_; }
  std::int64_t& operator[](int i) { return data()[i]; }
  std::int64_t operator[](int i) const { return data()[i]; }
  std::int64_t* begin() { return data(); }
  std::int64_t* end() { return data() + size_; }
  const std::int64_t* begin() const { return data(); }
  const std::int64_t* end() const { return data() + size_; }
  std::int64_t back() const { return data()[size_ - 1]; }
  void push_back(std::int64_t value);
  friend bool operator==(const Dims& a, const Dims& b);

 private:
  static constexpr int kInline = 4;
  Dims(const std::int64_t* values, std::size_t n);
  void release() {
    if (size_ > kInline) delete[] heap_;
  }
  void steal(Dims& o) noexcept;

  int size_ = 0;
  union {
    std::int64_t local_[kInline];
    std::int64_t* heap_;
  };
};

using Shape = Dims;
using Strides = Dims;

/// Prints "(2, 3)"; a one-dimensional shape prints "(3,)" as in Python.
std::ostream& operator<<(std::ostream& out, const Dims& dims);

/// Product of the sizes; an Error of `op` for a negative size or a product over 2^63 - 1.
std::int64_t count_elements(std::string_view op, const Shape& shape);
/// Multiplies an element count by one more size. Beyond 2^63 - 1 it wraps around, which happens to shapes without
/// elements alone: a size of 0 is to follow, or has been refused.
inline void grow_count(std::int64_t& count, std::int64_t size) {
  count = static_cast<std::int64_t>(static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(size));
}
/// Bytes of a row-major block; an Error of `op` where the product does not fit.
std::int64_t count_bytes(std::string_view op, const Shape& shape, std::int64_t element_size);
Strides row_major(const Shape& shape);
/// NumPy's rule: align at the right, sizes equal or one of them 1.
Shape broadcast(std::string_view op, const Shape& a, const Shape& b);
/// Accepts -rank..rank-1 and returns 0..rank-1.
int normalize_axis(std::string_view op, std::int64_t axis, int rank);
/// Normalised, sorted and checked for repeats; no axes means all of them.
std::vector<int> normalize_axes(std::string_view op, std::span<const std::int64_t> axes, int rank);

}  // namespace stet
