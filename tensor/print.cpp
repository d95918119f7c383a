// Printing a tensor so that a person can read it: brackets as in Python, columns aligned, long axes
// abbreviated.
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include <stet/tensor/compute.h>
#include <stet/tensor/tensor.h>

namespace stet {
namespace {

constexpr std::int64_t kFull = 1000, kEdge = 3;  // print all of up to 1,000 elements, else 3 at each end

std::string format(double value, bool scientific) {
  if (std::isnan(value)) return "nan";  // whatever its sign
  std::ostringstream out;
  if (std::isfinite(value) && scientific) out << std::scientific << std::setprecision(3) << value;
  else if (std::isfinite(value) && value == std::trunc(value) && std::abs(value) < 1e6) out << value << ".";
  else out << std::setprecision(4) << std::fixed << value;
  std::string text = out.str();
  if (!scientific && text.find('.') != std::string::npos && std::isfinite(value)) {
    while (text.back() == '0') text.pop_back();
  }
  return text;
}

class Printer {
 public:
  explicit Printer(const Tensor& x)
      : dtype_(x.dtype()),
        shape_(x.shape()),
        strides_(row_major(x.shape())),
        abbreviate_(x.numel() > kFull),
        values_(is_floating(x.dtype()) ? x.to_vector<double>() : std::vector<double>()),
        whole_(is_floating(x.dtype()) ? std::vector<std::int64_t>() : x.to_vector<std::int64_t>()) {
    double low = HUGE_VAL, high = 0;
    for (double v : values_)
      if (std::isfinite(v) && v != 0) {
        low = std::min(low, std::abs(v));
        high = std::max(high, std::abs(v));
      }
    scientific_ = high > 0 && (high >= 1e6 || low < 1e-3);
    walk(0, 0, [&](std::int64_t at) { width_ = std::max(width_, text(at).size()); });
  }

  void print(std::ostream& out, int axis, std::int64_t at) const {
    if (axis == shape_.size()) {
      out << std::setw(static_cast<int>(width_)) << text(at);
      return;
    }
    out << '[';
    const std::int64_t n = shape_[axis];
    const bool cut = abbreviate_ && n > 2 * kEdge;
    for (std::int64_t i = 0; i < n; ++i) {
      if (i > 0) separate(out, axis);
      if (cut && i == kEdge) {
        out << "...";
        separate(out, axis);
        i = n - kEdge;
      }
      print(out, axis + 1, at + i * strides_[axis]);
    }
    out << ']';
  }

 private:
  std::string text(std::int64_t at) const {
    const auto i = static_cast<std::size_t>(at);
    if (dtype_ == DType::boolean) return whole_[i] ? "true" : "false";
    return is_floating(dtype_) ? format(values_[i], scientific_) : std::to_string(whole_[i]);
  }

  void separate(std::ostream& out, int axis) const {
    out << ',';
    if (axis == shape_.size() - 1) {
      out << ' ';
      return;
    }
    for (int i = axis; i < shape_.size() - 1; ++i) out << '\n';
    out << std::string(static_cast<std::size_t>(axis) + 8, ' ');  // under the first bracket of "tensor("
  }

  template <class Visit> void walk(int axis, std::int64_t at, const Visit& visit) const {
    if (axis == shape_.size()) return visit(at);
    for (std::int64_t i = 0; i < shape_[axis]; ++i) {
      if (abbreviate_ && i == kEdge && shape_[axis] > 2 * kEdge) i = shape_[axis] - kEdge;
      walk(axis + 1, at + i * strides_[axis], visit);
    }
  }

  DType dtype_;
  Shape shape_;
  Strides strides_;
  bool abbreviate_, scientific_ = false;
  std::vector<double> values_;
  std::vector<std::int64_t> whole_;  // of integers and bool
  std::size_t width_ = 0;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "tensor(undefined)";
  std::ostringstream body;
  if (tensor.numel() == 0 && tensor.rank() > 0) body << "[]";
  else Printer(tensor).print(body, 0, 0);
  out << "tensor(" << body.str() << ", " << tensor.dtype();
  if (tensor.rank() > 0) out << ' ' << tensor.shape();
  if (tensor.device() != Device::cpu()) out << ' ' << tensor.device();
  return out << ')';
}

std::string to_string(const Tensor& tensor) {
  std::ostringstream out;
  out << tensor;
  return out.str();
}

}  // namespace stet
