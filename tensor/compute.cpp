// Layout and elementwise arithmetic on buffers.
#include <stet/tensor/compute.h>

#include <algorithm>
#include <cstring>

#include <stet/tensor/collapse.h>
#include <stet/tensor/error.h>

namespace stet::compute {
namespace {

/// The strides of `x` seen in `shape`: 0 where it broadcasts.
void broadcast_strides(const Tensor& x, const Shape& shape, std::int64_t* out) {
  const int pad = shape.size() - x.rank();
  for (int i = 0; i < shape.size(); ++i)
    out[i] = i < pad || (x.shape()[i - pad] == 1 && shape[i] != 1) ? 0 : x.strides()[i - pad];
}

/// A number: it may stand on the CPU beside tensors of any device.
bool is_number(const Tensor& x) { return x.rank() == 0 && x.device() == Device::cpu(); }

/// The device that all operands share; numbers do not count.
Device common_device(std::string_view op, std::initializer_list<const Tensor*> operands) {
  const Tensor* first = *operands.begin();
  for (const Tensor* x : operands) {
    if (is_number(*first)) first = x;
    if (!is_number(*x)) check_same_device(op, *first, *x);
  }
  return first->device();
}

/// Runs `kernel` over operands that broadcast to `shape`.
Tensor elementwise(Kernels::Fn<Elementwise> kernel, const Shape& shape, Options out_options,
                   std::initializer_list<const Tensor*> operands) {
  Tensor out = empty(shape, out_options);
  Elementwise job;
  job.count = out.numel();
  job.out = out.raw_mutable();
  if (job.count == 0) return out;
  std::int64_t out_strides[kMaxRank];
  std::int64_t* strides[4];
  bool flat = true;
  int k = 0;
  for (const Tensor* x : operands) {
    job.in[k] = x->raw();
    if (!(x->device() == out_options.device)) job.host |= 1u << k;
    flat = flat && x->is_contiguous() && x->shape() == shape;
    strides[k] = job.stride[k];
    ++k;
  }
  if (flat) {
    job.rank = job.count == 1 ? 0 : 1;
    job.size[0] = job.count;
    for (int i = 0; i < k; ++i) job.stride[i][0] = 1;
  } else {
    k = 0;
    for (const Tensor* x : operands) broadcast_strides(*x, shape, job.stride[k++]);
    std::copy(shape.begin(), shape.end(), job.size);
    std::copy(out.strides().begin(), out.strides().end(), out_strides);
    strides[k] = out_strides;
    job.rank = collapse(shape.size(), job.size, k + 1, strides);
  }
  kernel(job);
  return out;
}

[[noreturn]] void unsupported(std::string_view op, DType dtype) { fail(op, "is not defined on ", dtype); }

/// The dtype in which an operation computes: bf16 goes through f32, all integers and bool through i64 where
/// the operation takes integers, and through f32 where it does not.
DType working_dtype(bool integers, DType dtype) {
  if (is_floating(dtype)) return dtype == DType::bf16 ? DType::f32 : dtype;
  return integers ? DType::i64 : DType::f32;
}

/// The dtype of the result: a bool in arithmetic counts as the integer 0 or 1.
DType result_dtype(DType common, DType work) {
  if (common == DType::boolean) return work;
  return is_floating(common) == is_floating(work) ? common : work;
}

}  // namespace

void check_same_device(std::string_view op, const Tensor& a, const Tensor& b) {
  check(a.device() == b.device(), op, "devices ", a.device(), " and ", b.device());
}

Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  Tensor out = empty(x.shape(), x.options());
  copy_into(out, x);
  return out;
}

Tensor expand(std::string_view op, const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  count_elements(op, shape);  // complains about sizes
  check(shape.size() >= x.rank() && broadcast(op, x.shape(), shape) == shape, op, "shape ", x.shape(),
        " does not broadcast to ", shape);
  std::int64_t strides[kMaxRank];
  broadcast_strides(x, shape, strides);
  Strides out(shape.size());
  std::copy(strides, strides + shape.size(), out.begin());
  return make_view(x, shape, out, x.impl().offset);
}

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor out = empty(x.shape(), {dtype, x.device()});
  copy_into(out, x);
  return out;
}

Tensor to_device(const Tensor& x, Device device) {
  if (x.device() == device) return x;
  const Tensor in = contiguous(x);
  Tensor out = empty(x.shape(), {x.dtype(), device});
  if (!x.numel()) return out;
  if (device == Device::cpu()) kernels(x.device()).download(out.raw_mutable(), in.raw(), in.bytes());
  else if (x.device() == Device::cpu()) kernels(device).upload(out.raw_mutable(), in.raw(), in.bytes());
  else return to_device(to_device(in, Device::cpu()), device);
  return out;
}

void copy_into(const Tensor& target, const Tensor& source) {
  check(target.shape() == source.shape(), "copy", "shapes ", target.shape(), " and ", source.shape());
  if (!(target.device() == source.device())) return copy_into(target, to_device(source, target.device()));
  Copy job;
  job.from = source.dtype();
  job.to = target.dtype();
  job.count = target.numel();
  if (job.count == 0) return;
  job.in = source.raw();
  job.out = target.raw_mutable();
  const Shape& shape = target.shape();
  std::copy(shape.begin(), shape.end(), job.size);
  std::copy(source.strides().begin(), source.strides().end(), job.in_stride);
  std::copy(target.strides().begin(), target.strides().end(), job.out_stride);
  std::int64_t* strides[] = {job.in_stride, job.out_stride};
  job.rank = collapse(shape.size(), job.size, 2, strides);
  kernels(target.device()).copy(job);
}

void copy_from(const Tensor& target, const void* values, DType dtype) {
  Tensor host = empty(target.shape(), {dtype, Device::cpu()});
  if (host.numel()) std::memcpy(host.raw_mutable(), values, static_cast<std::size_t>(host.bytes()));
  copy_into(target, cast(host, target.dtype()));
}

void copy_to(void* values, DType dtype, const Tensor& source) {
  const Tensor host = contiguous(cast(to_device(source, Device::cpu()), dtype));
  if (host.numel()) std::memcpy(values, host.raw(), static_cast<std::size_t>(host.bytes()));
}

Tensor unary(std::size_t index, std::string_view op, bool integers, const Tensor& x) {
  const DType work = working_dtype(integers, x.dtype());
  if (work != x.dtype()) {
    return cast(unary(index, op, integers, cast(x, work)), result_dtype(x.dtype(), work));
  }
  const auto kernel = kernels(x.device()).unary[index][static_cast<std::size_t>(work)];
  if (!kernel) unsupported(op, work);
  return elementwise(kernel, x.shape(), x.options(), {&x});
}

Tensor binary(std::size_t index, std::string_view op, bool integers, const Tensor& a, const Tensor& b) {
  const Device device = common_device(op, {&a, &b});
  const DType common = promote(a.dtype(), b.dtype());
  const DType work = working_dtype(integers, common);
  if (a.dtype() != work || b.dtype() != work) {
    return cast(binary(index, op, integers, cast(a, work), cast(b, work)), result_dtype(common, work));
  }
  const auto kernel = kernels(device).binary[index][static_cast<std::size_t>(work)];
  if (!kernel) unsupported(op, work);
  return elementwise(kernel, broadcast(op, a.shape(), b.shape()), {work, device}, {&a, &b});
}

Tensor compare(std::size_t index, std::string_view op, const Tensor& a, const Tensor& b) {
  const Device device = common_device(op, {&a, &b});
  const DType work = working_dtype(true, promote(a.dtype(), b.dtype()));
  if (a.dtype() != work || b.dtype() != work) return compare(index, op, cast(a, work), cast(b, work));
  const auto kernel = kernels(device).compare[index][static_cast<std::size_t>(work)];
  if (!kernel) unsupported(op, work);
  return elementwise(kernel, broadcast(op, a.shape(), b.shape()), {DType::boolean, device}, {&a, &b});
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  check(condition.dtype() == DType::boolean, "where", "condition holds ", condition.dtype(), ", expected bool");
  const Device device = common_device("where", {&condition, &a, &b});
  const DType work = promote(a.dtype(), b.dtype());
  if (a.dtype() != work || b.dtype() != work) return where(condition, cast(a, work), cast(b, work));
  const Shape shape = broadcast("where", condition.shape(), broadcast("where", a.shape(), b.shape()));
  const auto kernel = kernels(device).select[static_cast<std::size_t>(work)];
  return elementwise(kernel, shape, {work, device}, {&condition, &a, &b});
}

Tensor random(Draw draw, const Shape& shape, Generator& generator, Options options, double a, double b,
              std::int64_t low, std::int64_t high, double below) {
  Tensor out = empty(shape, options);
  Random job;
  job.dtype = options.dtype;
  job.draw = draw;
  job.a = a;
  job.b = b;
  job.below = below;
  job.low = low;
  job.high = high;
  job.count = out.numel();
  job.out = out.raw_mutable();
  each_replay(options.device, [job, device = options.device, &generator] {
    Random now = job;
    now.key = generator.next();
    if (now.count) kernels(device).random(now);
  });
  return out;
}

}  // namespace stet::compute
