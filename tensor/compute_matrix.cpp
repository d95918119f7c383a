// Matrix products and data movement by index.
#include <algorithm>

#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::compute {
namespace {

/// A matrix as GEMM takes it: plain or transposed, without a copy where the strides allow it.
struct Matrix {
  Tensor x;
  bool transposed = false;
  std::int64_t ld = 0;
};

Matrix as_matrix(const Tensor& x) {
  const int r = x.rank();
  const std::int64_t rows = x.shape()[r - 2], cols = x.shape()[r - 1];
  const std::int64_t row_step = x.strides()[r - 2], col_step = x.strides()[r - 1];
  if ((col_step == 1 || cols == 1) && (row_step >= std::max<std::int64_t>(cols, 1) || rows == 1))
    return {x, false, std::max<std::int64_t>(rows == 1 ? cols : row_step, 1)};
  if ((row_step == 1 || rows == 1) && (col_step >= std::max<std::int64_t>(rows, 1) || cols == 1))
    return {x, true, std::max<std::int64_t>(cols == 1 ? rows : col_step, 1)};
  return {contiguous(x), false, std::max<std::int64_t>(cols, 1)};
}

/// target = op(a) op(b); the operands must outlive the job.
Gemm product(const Tensor& target, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b) {
  Gemm job{};
  job.dtype = target.dtype();
  job.transpose_a = transpose_a != a.transposed;
  job.transpose_b = transpose_b != b.transposed;
  job.m = a.x.shape()[transpose_a ? 1 : 0];
  job.k = a.x.shape()[transpose_a ? 0 : 1];
  job.n = b.x.shape()[transpose_b ? 0 : 1];
  check(b.x.shape()[transpose_b ? 1 : 0] == job.k && target.shape() == Shape({job.m, job.n}) && target.is_contiguous(),
        "gemm", "shapes ", a.x.shape(), ", ", b.x.shape(), " and ", target.shape());
  job.lda = a.ld;
  job.ldb = b.ld;
  job.ldc = job.n;
  job.a = a.x.raw();
  job.b = b.x.raw();
  job.c = target.raw_mutable();
  return job;
}

void check_float(std::string_view op, const Tensor& x) {
  check(x.dtype() == DType::f32 || x.dtype() == DType::f64, op, "needs f32 or f64, got ", x.dtype());
}

/// Batch dimensions as one stride, or -1 where they are not evenly spaced.
std::int64_t batch_stride(const Tensor& x, const Shape& batch) {
  const int lead = x.rank() - 2;
  std::int64_t count = 1;
  for (std::int64_t s : batch) count *= s;
  if (count == 1) return 0;
  if (lead == 0) return 0;
  std::int64_t stride = -1, expected = -1;
  for (int i = lead - 1; i >= 0; --i) {
    if (x.shape()[i] == 1) continue;
    if (stride < 0) stride = x.strides()[i];
    else if (x.strides()[i] != expected) return -1;
    expected = x.strides()[i] * x.shape()[i];
  }
  return stride < 0 ? 0 : stride;
}

Tensor expand_batch(const Tensor& x, const Shape& batch) {
  Shape shape = batch;
  shape.push_back(x.shape()[x.rank() - 2]);
  shape.push_back(x.shape()[x.rank() - 1]);
  return expand("matmul", x, shape);
}

Tensor batched(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.shape()[a.rank() - 2], k = a.shape().back(), n = b.shape().back();
  check(b.shape()[b.rank() - 2] == k, "matmul", "shapes ", a.shape(), " and ", b.shape(), ": last dimension ", k,
        " must equal ", b.shape()[b.rank() - 2]);
  Shape batch_a(a.rank() - 2), batch_b(b.rank() - 2);
  std::copy(a.shape().begin(), a.shape().end() - 2, batch_a.begin());
  std::copy(b.shape().begin(), b.shape().end() - 2, batch_b.begin());
  const Shape batch = broadcast("matmul", batch_a, batch_b);
  Shape shape = batch;
  shape.push_back(m);
  shape.push_back(n);
  Tensor out = empty(shape, a.options());
  if (out.numel() == 0) return out;
  Matrix ma = as_matrix(a.rank() > 2 ? expand_batch(a, batch) : a);
  Matrix mb = as_matrix(b.rank() > 2 ? expand_batch(b, batch) : b);
  std::int64_t sa = batch_stride(ma.x, batch), sb = batch_stride(mb.x, batch);
  if (sa < 0) {
    ma = {contiguous(ma.x), false, std::max<std::int64_t>(k, 1)};
    sa = m * k;
  }
  if (sb < 0) {
    mb = {contiguous(mb.x), false, n};
    sb = k * n;
  }
  Gemm job{};
  job.dtype = a.dtype();
  job.transpose_a = ma.transposed;
  job.transpose_b = mb.transposed;
  job.m = m;
  job.n = n;
  job.k = k;
  job.lda = ma.ld;
  job.ldb = mb.ld;
  job.ldc = n;
  job.batch = out.numel() / (m * n);
  job.stride_a = sa;
  job.stride_b = sb;
  job.stride_c = m * n;
  if (job.batch > 1 && sb == 0 && !ma.transposed && sa == m * ma.ld) {  // one tall product instead of many
    job.m *= job.batch;
    job.batch = 1;
  }
  job.a = ma.x.raw();
  job.b = mb.x.raw();
  job.c = out.raw_mutable();
  kernels(a.device()).gemm(job);
  return out;
}

struct Line {
  std::int64_t outer = 1, n = 1, inner = 1;
};
Line line(const Shape& shape, int axis) {
  Line l;
  for (int i = 0; i < shape.size(); ++i) grow_count(i < axis ? l.outer : i == axis ? l.n : l.inner, shape[i]);
  return l;
}

void check_index(std::string_view op, const Tensor& index, std::int64_t n, const Tensor& table) {
  check(index.dtype() == DType::i64, op, "index holds ", index.dtype(), ", expected i64");
  check_same_device(op, table, index);
  if (index.device() != Device::cpu()) return;  // a device checks on its own side
  const std::int64_t* at = static_cast<const std::int64_t*>(index.raw());
  for (std::int64_t i = 0; i < index.numel(); ++i)
    check(at[i] >= 0 && at[i] < n, op, "index ", at[i], " at position ", i, " is out of range for size ", n);
}

void check_gather_shapes(std::string_view op, const Shape& table, const Shape& index, int axis) {
  bool fits = table.size() == index.size();
  for (int i = 0; fits && i < table.size(); ++i) fits = i == axis || table[i] == index[i];
  check(fits, op, "shapes ", table, " and ", index, ": all dimensions but axis ", axis, " must be equal");
}

Indexing indexing(Checked op, const Tensor& table, const Line& l, std::int64_t count, const Tensor& index,
                  const Tensor& out) {
  return {op,
          table.dtype(),
          l.outer,
          l.n,
          l.inner,
          count,
          table.raw(),
          static_cast<const std::int64_t*>(index.raw()),
          out.raw_mutable()};
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check(a.rank() >= 2 && b.rank() >= 2, "matmul", "shapes ", a.shape(), " and ", b.shape(),
        ": both need at least two dimensions");
  check_same_device("matmul", a, b);
  const DType work = promote(a.dtype(), b.dtype());
  if (work == DType::bf16) return cast(matmul(cast(a, DType::f32), cast(b, DType::f32)), work);
  if (a.dtype() != work || b.dtype() != work) return matmul(cast(a, work), cast(b, work));
  check_float("matmul", a);
  return batched(a, b);
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, Activation activation) {
  check(w.rank() == 2 && x.rank() >= 1 && x.shape().back() == w.shape()[1], "linear", "shapes ", x.shape(), " and ",
        w.shape(), ": x is (..., in), w is (out, in)");
  check(!bias.defined() || (bias.rank() == 1 && bias.shape()[0] == w.shape()[0]), "linear", "bias ",
        bias.defined() ? bias.shape() : Shape{}, " for weight ", w.shape(), ": expected (", w.shape()[0], ",)");
  check(x.dtype() == w.dtype() && (!bias.defined() || bias.dtype() == w.dtype()), "linear", "dtypes ", x.dtype(),
        " and ", w.dtype(), bias.defined() ? " and bias " : "", bias.defined() ? name_of(bias.dtype()) : "");
  check_float("linear", x);
  check_same_device("linear", x, w);
  if (bias.defined()) check_same_device("linear", x, bias);
  const Tensor in = contiguous(x), b = bias.defined() ? contiguous(bias) : bias;
  const Matrix weight = as_matrix(w);
  Shape shape = x.shape();
  shape[shape.size() - 1] = w.shape()[0];
  Tensor out = empty(shape, x.options());
  Gemm job{};
  job.dtype = x.dtype();
  job.transpose_b = !weight.transposed;
  job.m = w.shape()[0] ? out.numel() / w.shape()[0] : 0;
  job.n = w.shape()[0];
  job.k = w.shape()[1];
  job.lda = std::max<std::int64_t>(job.k, 1);
  job.ldb = weight.ld;
  job.ldc = job.n;
  job.a = in.raw();
  job.b = weight.x.raw();
  job.c = out.raw_mutable();
  job.bias = b.defined() ? b.raw() : nullptr;
  job.activation = activation;
  if (out.numel()) kernels(x.device()).gemm(job);
  return out;
}

LinearGradients linear_gradients(const Tensor& g, const Tensor& x) {
  check_same_device("linear", g, x);
  const Tensor dense = contiguous(g);
  LinearGradients out{empty({g.shape()[1], x.shape()[1]}, x.options()), empty({g.shape()[1]}, g.options())};
  if (out.weight.numel() == 0 || g.numel() == 0) {  // nothing to ride on
    gemm_into(out.weight, dense, true, x, false, false);
    out.bias = reduce<Sum>(dense, {0}, false);
    return out;
  }
  const Matrix ma = as_matrix(dense), mb = as_matrix(x);
  Gemm job = product(out.weight, ma, true, mb, false);
  job.row_sums = out.bias.raw_mutable();
  kernels(g.device()).gemm(job);
  return out;
}

void gemm_into(const Tensor& target, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
               bool accumulate) {
  check_same_device("gemm", a, b);
  const Matrix ma = as_matrix(a), mb = as_matrix(b);
  Gemm job = product(target, ma, transpose_a, mb, transpose_b);
  job.accumulate = accumulate;
  if (target.numel()) kernels(a.device()).gemm(job);
}

Tensor index_select(const Tensor& x, int axis, const Tensor& index, Checked op) {
  const std::string_view name = name_of(op);
  check(index.rank() <= 1, name, "index of shape ", index.shape(), ": expected one dimension");
  const Tensor table = contiguous(x), at = contiguous(index);
  const Line l = line(x.shape(), axis);
  check_index(name, at, l.n, table);
  Shape shape = x.shape();
  shape[axis] = at.numel();
  Tensor out = empty(shape, x.options());
  if (out.numel()) kernels(x.device()).index_select(indexing(op, table, l, at.numel(), at, out));
  return out;
}

void index_add_into(const Tensor& out, const Tensor& source, int axis, const Tensor& index) {
  const Tensor table = contiguous(source), at = contiguous(index);
  check(at.numel() == source.shape()[axis], "index_add", at.numel(), " indices for ", source.shape(), " along axis ",
        axis);
  const Line l = line(out.shape(), axis);
  check_index("index_add", at, l.n, table);
  if (table.numel()) kernels(source.device()).index_add(indexing(Checked::index_add, table, l, at.numel(), at, out));
}

Tensor index_add(const Tensor& source, int axis, const Tensor& index, std::int64_t n) {
  Shape shape = source.shape();
  shape[axis] = n;
  Tensor out = zeros(shape, source.options());
  index_add_into(out, source, axis, index);
  return out;
}

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  check_gather_shapes("gather", x.shape(), index.shape(), axis);
  const Tensor table = contiguous(x), at = contiguous(index);
  const Line l = line(x.shape(), axis);
  check_index("gather", at, l.n, table);
  Tensor out = empty(index.shape(), x.options());
  if (out.numel()) kernels(x.device()).gather(indexing(Checked::gather, table, l, index.shape()[axis], at, out));
  return out;
}

Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& source, Checked op) {
  const std::string_view name = name_of(op);
  check_gather_shapes(name, x.shape(), index.shape(), axis);
  check(index.shape() == source.shape(), name, "index ", index.shape(), " and source ", source.shape());
  check(x.dtype() == source.dtype(), name, "dtypes ", x.dtype(), " and ", source.dtype());
  const Tensor table = contiguous(source), at = contiguous(index);
  const Line l = line(x.shape(), axis);
  check_index(name, at, l.n, table);
  check_same_device(name, x, table);
  Tensor out = x.clone();
  if (table.numel()) kernels(x.device()).scatter_add(indexing(op, table, l, index.shape()[axis], at, out));
  return out;
}

Tensor cat(const std::vector<Tensor>& parts, int axis) {
  Shape shape = parts.front().shape();
  std::int64_t total = 0;
  DType dtype = parts.front().dtype();
  for (const Tensor& part : parts) {
    check_gather_shapes("cat", part.shape(), shape, axis);
    check_same_device("cat", part, parts.front());
    total += part.shape()[axis];
    dtype = promote(dtype, part.dtype());
  }
  shape[axis] = total;
  Tensor out = empty(shape, {dtype, parts.front().device()});
  std::int64_t at = 0;
  for (const Tensor& part : parts) {
    copy_into(make_view(out, part.shape(), out.strides(), at * out.strides()[axis]), part);
    at += part.shape()[axis];
  }
  return out;
}

}  // namespace stet::compute
