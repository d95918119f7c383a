// Views and data movement by index. The derivative of a view is the view back; that of a selection is a sum
// into zeros at the same place.
#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include <stet/autograd/node.h>
#include <stet/autograd/ops.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

struct ReshapeDerivative {
  static constexpr std::string_view name = "reshape";
  void operator()(Backward& pass) const { pass.give(0, reshape(pass.grad(), pass.shape(0))); }
};

struct PermuteDerivative {
  static constexpr std::string_view name = "permute";
  Axes inverse;
  void operator()(Backward& pass) const { pass.give(0, permute(pass.grad(), inverse)); }
};

struct ExpandDerivative {
  static constexpr std::string_view name = "expand";
  void operator()(Backward& pass) const { pass.give(0, sum_to(pass.grad(), pass.shape(0))); }
};

struct Range {
  int axis;
  std::int64_t begin, count, step;
};

Tensor slice_view(const Tensor& x, const Range& r) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  shape[r.axis] = r.count;
  const std::int64_t offset = x.impl().offset + r.begin * strides[r.axis];
  strides[r.axis] *= r.step;
  return make_view(x, shape, strides, offset);
}

Tensor place(const Tensor& x, const Shape& shape, const Range& r);
Tensor slice_range(const Tensor& x, const Range& r);

struct SliceDerivative {
  static constexpr std::string_view name = "slice";
  Range range;
  void operator()(Backward& pass) const {
    const Tensor* sum = pass.sum_so_far(0);
    if (!sum) return pass.give(0, place(pass.grad(), pass.shape(0), range));
    const Tensor part = slice_view(*sum, range);  // no tensor of zeros for each slice of one tensor
    compute::copy_into(part, compute::binary<Add>(part, pass.grad()));
  }
};

struct PlaceDerivative {
  static constexpr std::string_view name = "place";
  Range range;
  void operator()(Backward& pass) const { pass.give(0, slice_range(pass.grad(), range)); }
};

Tensor slice_range(const Tensor& x, const Range& r) {
  return record(slice_view(x, r), {&x}, [&] { return SliceDerivative{r}; });
}

/// zeros(shape) with x at the range.
Tensor place(const Tensor& x, const Shape& shape, const Range& r) {
  Tensor out = zeros(shape, x.options());
  compute::copy_into(slice_view(out, r), x);
  return record(std::move(out), {&x}, [&] { return PlaceDerivative{r}; });
}

/// The pieces of a split and, during a pass, their gradients, which the split takes when it has its turn.
struct Pieces {
  std::vector<Range> ranges;
  std::vector<Tensor> gradients;
  Tensor room;  ///< for those that are not in place
  std::uint32_t pass = 0;
};

bool same_memory(const Tensor& a, const Tensor& b) { return a.impl().storage.get() == b.impl().storage.get(); }

/// Whether g lies where a piece of the whole would, in a memory of just that size.
bool in_place(const Tensor& g, const Range& range, const Shape& whole) {
  const Strides strides = row_major(whole);
  for (int d = 0; d < whole.size(); ++d)
    if (g.shape()[d] > 1 && g.strides()[d] != strides[d]) return false;
  return g.impl().offset == range.begin * strides[range.axis] &&
         g.impl().storage->bytes() == count_bytes("split", whole, size_of(g.dtype()));
}

/// A gradient that came into being beside those of the other pieces, as attention's do, is left where it lies; any
/// other is written into a room that the pieces share. Without sums, and without zeros but for pieces that nobody used.
struct PieceDerivative {
  static constexpr std::string_view name = "piece";
  std::shared_ptr<Pieces> pieces;
  std::size_t mine;
  void operator()(Backward& pass) const {
    const Range& range = pieces->ranges[mine];
    if (grad_enabled()) return pass.give(0, place(pass.grad(), pass.shape(0), range));
    if (!pass.needs(0)) return;
    if (pieces->pass != pass.number()) {
      pieces->pass = pass.number();
      pieces->gradients.assign(pieces->ranges.size(), Tensor());
      pieces->room = Tensor();
      pass.give(0, expand(empty({}, pass.grad().options()), pass.shape(0)));  // stands for the sum
    }
    Tensor& kept = pieces->gradients[mine];
    kept = pass.grad();
    if (in_place(kept, range, pass.shape(0))) return;
    if (!pieces->room.defined()) pieces->room = empty(pass.shape(0), kept.options());
    kept = slice_view(pieces->room, range);
    compute::copy_into(kept, pass.grad());
  }
};

/// Lies between a tensor and its pieces. Where all their gradients share a memory, that is the whole's.
struct SplitDerivative {
  static constexpr std::string_view name = "split";
  std::shared_ptr<Pieces> pieces;
  void operator()(Backward& pass) const {
    if (grad_enabled()) return pass.give(0, pass.grad());
    const std::vector<Tensor> parts = std::move(pieces->gradients);
    Tensor room = std::exchange(pieces->room, Tensor());
    const auto beside_first = [&](const Tensor& g) { return g.defined() && same_memory(g, parts[0]); };
    if (!room.defined() && std::all_of(parts.begin(), parts.end(), beside_first))
      return pass.give(0, make_view(parts[0], pass.shape(0), row_major(pass.shape(0)), 0));
    if (!room.defined()) room = empty(pass.shape(0), pass.grad().options());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Tensor own = slice_view(room, pieces->ranges[i]);
      if (!parts[i].defined()) compute::copy_into(own, expand(zeros({}, own.options()), own.shape()));
      else if (!same_memory(parts[i], own)) compute::copy_into(own, parts[i]);
    }
    pass.give(0, room);
  }
};

struct CatDerivative {
  static constexpr std::string_view name = "cat";
  int axis;
  std::vector<std::int64_t> sizes;
  void operator()(Backward& pass) const {
    std::int64_t at = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (pass.needs(static_cast<int>(i))) pass.give(static_cast<int>(i), slice(pass.grad(), axis, at, at + sizes[i]));
      at += sizes[i];
    }
  }
};

struct GatherDerivative {
  static constexpr std::string_view name = "gather";
  int axis;
  Saved index;
  void operator()(Backward& pass) const {
    pass.give(0, scatter_add(zeros(pass.shape(0), pass.grad().options()), axis, pass.get(index), pass.grad()));
  }
};

struct ScatterAddDerivative {
  static constexpr std::string_view name = "scatter_add";
  int axis;
  Saved index;
  void operator()(Backward& pass) const {
    if (pass.needs(0)) pass.give(0, pass.grad());
    if (pass.needs(1)) pass.give(1, gather(pass.grad(), axis, pass.get(index)));
  }
};

struct IndexSelectDerivative {
  static constexpr std::string_view name = "index_select";
  int axis;
  Saved index;
  void operator()(Backward& pass) const {
    pass.give(0, index_add(pass.grad(), axis, pass.get(index), pass.shape(0)[axis]));
  }
};

struct IndexAddDerivative {
  static constexpr std::string_view name = "index_add";
  int axis;
  Saved index;
  void operator()(Backward& pass) const { pass.give(0, index_select(pass.grad(), axis, pass.get(index))); }
};

struct EmbeddingDerivative {
  static constexpr std::string_view name = "embedding";
  Saved ids;
  std::int64_t rows, width;
  void operator()(Backward& pass) const {
    const Tensor& index = pass.get(ids);
    const Tensor g = reshape(pass.grad(), {index.numel(), width}), flat = reshape(index, {index.numel()});
    // A table that is the output's weight as well has a gradient already: a few rows of it change.
    if (!pass.add_to_leaf(0, [&](const Tensor& sum) { compute::index_add_into(sum, g, 0, flat); }))
      pass.give(0, index_add(g, 0, flat, rows));
  }
  /// Gradients of equal ids within a sample add up before anything is squared.
  Tensor per_sample(int, const Shape&, const Tensor& g, std::int64_t begin, std::int64_t end) const {
    const Tensor& index = ids.get(name);
    const std::int64_t n = end - begin, tokens = index.numel() / index.shape()[0];
    const Tensor first = arange(n, {DType::i64, index.device()}) * static_cast<double>(rows);  // one table per sample
    const Tensor apart = reshape(contiguous(slice(index, 0, begin, end)), {n, tokens}) + unsqueeze(first, 1);
    const Tensor flat = reshape(slice(g, 0, begin, end), {n * tokens, width});
    return reshape(index_add(flat, 0, reshape(apart, {n * tokens}), n * rows), {n, rows, width});
  }
};

}  // namespace

Tensor reshape(const Tensor& x, Shape shape) {
  constexpr std::int64_t kTooMany = std::numeric_limits<std::int64_t>::max();  // a size of 0 may follow
  std::int64_t known = 1;
  int open = -1;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      check(open < 0, "reshape", "shape ", shape, " has more than one -1");
      open = i;
    } else {
      check(shape[i] >= 0, "reshape", "shape ", shape, ": dimension ", i, " is negative");
      if (__builtin_mul_overflow(known, shape[i], &known)) known = kTooMany;
    }
  }
  if (open >= 0) {
    check(known > 0 && x.numel() % known == 0, "reshape", x.numel(), " elements of shape ", x.shape(), " do not fit ",
          shape);
    shape[open] = x.numel() / known;
  }
  check(count_elements("reshape", shape) == x.numel(), "reshape", "shape ", x.shape(), " has ", x.numel(),
        " elements, ", shape, " needs ", count_elements("reshape", shape));
  if (shape == x.shape()) return x;
  const Tensor flat = compute::contiguous(x);
  return record(make_view(flat, shape, row_major(shape), flat.impl().offset), {&x},
                [&] { return ReshapeDerivative{}; });
}

Tensor flatten(const Tensor& x, std::int64_t from, std::int64_t to) {
  if (x.rank() == 0) return reshape(x, {1});
  const int a = normalize_axis("flatten", from, x.rank()), b = normalize_axis("flatten", to, x.rank());
  check(a <= b, "flatten", "axes ", from, " to ", to, " of shape ", x.shape());
  Shape shape, joined;
  for (int i = 0; i < x.rank(); ++i) {
    if (i <= a || i > b) shape.push_back(x.shape()[i]);
    if (i >= a && i <= b) joined.push_back(x.shape()[i]);
  }
  shape[a] = count_elements("flatten", joined);
  return reshape(x, shape);
}

Tensor permute(const Tensor& x, const Axes& axes) {
  check(static_cast<int>(axes.size()) == x.rank(), "permute", axes.size(), " axes for shape ", x.shape());
  normalize_axes("permute", axes, x.rank());  // complains about repeats
  Shape shape(x.rank());
  Strides strides(x.rank());
  Axes inverse(axes.size());
  for (int i = 0; i < x.rank(); ++i) {
    const int from = normalize_axis("permute", axes[static_cast<std::size_t>(i)], x.rank());
    shape[i] = x.shape()[from];
    strides[i] = x.strides()[from];
    inverse[static_cast<std::size_t>(from)] = i;
  }
  return record(make_view(x, shape, strides, x.impl().offset), {&x}, [&] { return PermuteDerivative{inverse}; });
}

Tensor transpose(const Tensor& x, std::int64_t a, std::int64_t b) {
  check(x.rank() >= 2, "transpose", "shape ", x.shape(), " has fewer than two axes");
  Axes axes(static_cast<std::size_t>(x.rank()));
  std::iota(axes.begin(), axes.end(), std::int64_t{0});
  std::swap(axes[static_cast<std::size_t>(normalize_axis("transpose", a, x.rank()))],
            axes[static_cast<std::size_t>(normalize_axis("transpose", b, x.rank()))]);
  return permute(x, axes);
}

Tensor expand(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return record(compute::expand("expand", x, shape), {&x}, [&] { return ExpandDerivative{}; });
}

Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t begin, std::int64_t end, std::int64_t step) {
  const int at = normalize_axis("slice", axis, x.rank());
  const std::int64_t n = x.shape()[at];
  check(step > 0, "slice", "step ", step, ": expected at least 1");
  const auto clip = [n](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n); };
  const std::int64_t from = clip(begin), to = std::max(clip(end), from);
  if (from == 0 && to == n && step == 1) return x;
  const std::int64_t count = to > from ? (to - from - 1) / step + 1 : 0;
  return slice_range(x, {at, from, count, count > 1 ? step : 1});
}

Tensor select(const Tensor& x, std::int64_t axis, std::int64_t index) {
  const int at = normalize_axis("select", axis, x.rank());
  const std::int64_t n = x.shape()[at];
  check(index >= -n && index < n, "select", "index ", index, " is out of range for size ", n, " of axis ", axis);
  const std::int64_t from = index < 0 ? index + n : index;
  return squeeze(slice_range(x, {at, from, 1, 1}), at);
}

Tensor squeeze(const Tensor& x, std::int64_t axis) {
  const int at = normalize_axis("squeeze", axis, x.rank());
  check(x.shape()[at] == 1, "squeeze", "axis ", axis, " of shape ", x.shape(), " is not of size 1");
  Shape shape;
  Strides strides;
  for (int i = 0; i < x.rank(); ++i)
    if (i != at) {
      shape.push_back(x.shape()[i]);
      strides.push_back(x.strides()[i]);
    }
  return record(make_view(x, shape, strides, x.impl().offset), {&x}, [&] { return ReshapeDerivative{}; });
}

Tensor unsqueeze(const Tensor& x, std::int64_t axis) {
  const int at = normalize_axis("unsqueeze", axis, x.rank() + 1);
  Shape shape;
  Strides strides;
  for (int i = 0; i <= x.rank(); ++i) {
    if (i == at) {
      shape.push_back(1);
      strides.push_back(1);
    }
    if (i < x.rank()) {
      shape.push_back(x.shape()[i]);
      strides.push_back(x.strides()[i]);
    }
  }
  return record(make_view(x, shape, strides, x.impl().offset), {&x}, [&] { return ReshapeDerivative{}; });
}

Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  return record(compute::contiguous(x), {&x}, [&] { return ReshapeDerivative{}; });
}

Tensor cat(const std::vector<Tensor>& parts, std::int64_t axis) {
  check(!parts.empty(), "cat", "of no tensors");
  const int at = normalize_axis("cat", axis, parts.front().rank());
  DType dtype = parts.front().dtype();
  for (const Tensor& part : parts) dtype = promote(dtype, part.dtype());
  std::vector<Tensor> same_type;
  CatDerivative derivative{at, {}};
  std::vector<const Tensor*> operands;
  bool tracks = false;
  for (const Tensor& part : parts) same_type.push_back(cast(part, dtype));
  Tensor y = compute::cat(same_type, at);
  for (const Tensor& part : same_type) {
    derivative.sizes.push_back(part.shape()[at]);
    operands.push_back(&part);
    tracks = tracks || part.requires_grad();
  }
  if (!tracks || !grad_enabled()) return y;
  Ref<Node> node(new OperationNode<CatDerivative>(y, static_cast<int>(parts.size()), std::move(derivative)));
  attach(*node, y, operands.data(), static_cast<int>(parts.size()), Keep::nothing);
  y.impl().history = Ref<History>(std::move(node));
  return y;
}

Tensor stack(const std::vector<Tensor>& parts, std::int64_t axis) {
  std::vector<Tensor> raised;
  for (const Tensor& part : parts) {
    check(part.shape() == parts.front().shape(), "stack", "shapes ", parts.front().shape(), " and ", part.shape());
    raised.push_back(unsqueeze(part, axis));
  }
  return cat(raised, axis);
}

std::vector<Tensor> split(const Tensor& x, const std::vector<std::int64_t>& sizes, std::int64_t axis) {
  const int at = normalize_axis("split", axis, x.rank());
  auto pieces = std::make_shared<Pieces>();
  std::int64_t begin = 0;
  for (std::int64_t size : sizes) {
    check(size >= 0, "split", "a piece of ", size, " elements");
    pieces->ranges.push_back({at, begin, size, 1});
    begin += size;
  }
  check(begin == x.shape()[at], "split", "pieces of ", begin, " elements in all for axis ", axis, " of shape ",
        x.shape());
  const Tensor whole =
      record(make_view(x, x.shape(), x.strides(), x.impl().offset), {&x}, [&] { return SplitDerivative{pieces}; });
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    out.push_back(record(slice_view(whole, pieces->ranges[i]), {&whole}, [&] { return PieceDerivative{pieces, i}; }));
  return out;
}

std::vector<Tensor> split(const Tensor& x, std::int64_t size, std::int64_t axis) {
  check(size > 0, "split", "pieces of ", size, ": expected at least 1");
  std::vector<std::int64_t> sizes;
  for (std::int64_t left = x.size(axis); left > 0; left -= size) sizes.push_back(std::min(left, size));
  return split(x, sizes, axis);
}

Tensor gather(const Tensor& x, std::int64_t axis, const Tensor& index) {
  const int at = normalize_axis("gather", axis, x.rank());
  return record(compute::gather(x, at, index), {&x, &index}, [&] { return GatherDerivative{at, Saved(index, 1)}; });
}

Tensor scatter_add(const Tensor& x, std::int64_t axis, const Tensor& index, const Tensor& source) {
  const int at = normalize_axis("scatter_add", axis, x.rank());
  return record(compute::scatter_add(x, at, index, source), {&x, &source, &index}, [&] {
    return ScatterAddDerivative{at, Saved(index, 2)};
  });
}

Tensor index_select(const Tensor& x, std::int64_t axis, const Tensor& index) {
  const int at = normalize_axis("index_select", axis, x.rank());
  return record(compute::index_select(x, at, index), {&x, &index}, [&] {
    return IndexSelectDerivative{at, Saved(index, 1)};
  });
}

Tensor index_add(const Tensor& source, std::int64_t axis, const Tensor& index, std::int64_t n) {
  const int at = normalize_axis("index_add", axis, source.rank());
  return record(compute::index_add(source, at, index, n), {&source, &index}, [&] {
    return IndexAddDerivative{at, Saved(index, 1)};
  });
}

Tensor one_hot(const Tensor& index, std::int64_t classes, DType dtype) {
  check(index.dtype() == DType::i64, "one_hot", "index holds ", index.dtype(), ", expected i64");
  Shape shape = index.shape();
  shape.push_back(1);
  const Tensor at = reshape(index, shape);
  shape[shape.size() - 1] = classes;
  const Options options{dtype, index.device()};
  return compute::scatter_add(zeros(shape, options), shape.size() - 1, at, ones(at.shape(), options), Checked::one_hot);
}

Tensor embedding(const Tensor& w, const Tensor& index) {
  check(w.rank() == 2, "embedding", "weight ", w.shape(), ": expected (rows, width)");
  Shape shape = index.shape();
  shape.push_back(w.shape()[1]);
  Tensor y = compute::index_select(w, 0, reshape(index, {index.numel()}), Checked::embedding);
  return record(make_view(y, shape, row_major(shape), 0), {&w, &index}, [&] {
    return EmbeddingDerivative{Saved(index, 1), w.shape()[0], w.shape()[1]};
  });
}

}  // namespace stet
