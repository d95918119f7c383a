// Every operation on Device::cuda() against the CPU: element by element, over dtypes, layouts and sizes around warps,
// blocks and grids. A row is one operation on one dtype, layout and size; their number is checked at the end. Products
// have a file of their own.
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>

#include <stet/autograd/attention.h>
#include <stet/cuda/cuda.h>
#include <stet/optim/mask.h>
#include <stet/tensor/compute.h>

#include "cuda/parity.h"
#include "support/denormals.h"
#include "support/device.h"

using namespace stet;
using namespace stet::parity;

namespace {

enum class Layout { contiguous, transposed, sliced, expanded };
constexpr Layout kLayouts[] = {Layout::contiguous, Layout::transposed, Layout::sliced, Layout::expanded};
constexpr const char* kLayoutNames[] = {"contiguous", "transposed", "sliced", "expanded"};
constexpr std::int64_t kSizes[] = {0, 1, 31, 32, 33, 255, 256, 257, 1027};

/// The same values in memory of that layout on a device; about n elements.
Tensor laid_out(Layout layout, std::int64_t n, DType dtype, double low, double high, std::uint64_t seed,
                Device device) {
  const std::int64_t rows_of = n < 3 ? n : 3, cols = n < 3 ? 1 : n / 3;
  switch (layout) {
    case Layout::contiguous: return to(values({n}, dtype, low, high, seed), device);
    case Layout::transposed: return transpose(to(values({cols, rows_of}, dtype, low, high, seed), device));
    case Layout::sliced:
      return slice(
          slice(to(values({rows_of + 1, 2 * cols + 3}, dtype, low, high, seed), device), 1, 3, 2 * cols + 3, 2), 0, 1);
    case Layout::expanded: return expand(to(values({cols}, dtype, low, high, seed), device), {rows_of, cols});
  }
  return {};
}

template <class T> std::int64_t ordered(T x) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const auto bits = std::bit_cast<Bits>(x);
  return bits < 0 ? static_cast<std::int64_t>(std::numeric_limits<Bits>::min()) - bits : bits;
}

/// Equal, both NaN, both too small for a normal number (the CPU flushes those), or at most `ulps` apart.
template <class T> bool close(T a, T b, std::int64_t ulps) {
  if (a == b || (a != a && b != b)) return true;
  if (std::fabs(a) < std::numeric_limits<T>::min() && std::fabs(b) < std::numeric_limits<T>::min()) return true;
  if (!std::isfinite(a) || !std::isfinite(b)) return false;
  return std::llabs(ordered(a) - ordered(b)) <= ulps;
}

template <class T> void check_elements(const Tensor& a, const Tensor& b, std::int64_t ulps) {
  const auto x = a.to_vector<T>(), y = b.to_vector<T>();
  for (std::size_t i = 0; i < x.size(); ++i)
    if constexpr (std::is_floating_point_v<T>) {
      if (!close(x[i], y[i], ulps)) return report(i, static_cast<double>(x[i]), static_cast<double>(y[i]));
    } else if (x[i] != y[i]) {
      return report(i, static_cast<double>(x[i]), static_cast<double>(y[i]));
    }
}

/// One row: same shape, same dtype, every element within `ulps`.
void check_row(const Tensor& cpu, const Tensor& cuda, std::int64_t ulps) {
  ++rows;
  REQUIRE(cuda.device() == Device::cuda());
  REQUIRE(cpu.shape() == cuda.shape());
  REQUIRE(cpu.dtype() == cuda.dtype());
  if (cpu.dtype() == f64) check_elements<double>(cpu, cuda, ulps);
  else if (is_floating(cpu.dtype())) check_elements<float>(cpu, cuda, ulps);
  else check_elements<std::int64_t>(cpu, cuda, 0);
}

/// run(inputs) on both devices for every layout and size; `ulps` apart at most.
template <class Run> void everywhere(const std::string& name, DType dtype, int operands, double low, double high,
                                     std::int64_t ulps, const Run& run) {
  for (Layout layout : kLayouts)
    for (std::int64_t n : kSizes) {
      INFO(name << ' ' << dtype << ' ' << kLayoutNames[static_cast<int>(layout)] << " of " << n);
      std::vector<Tensor> cpu, cuda;
      for (int k = 0; k < operands; ++k) {
        const auto seed = static_cast<std::uint64_t>(17 * k + n);
        cpu.push_back(laid_out(layout, n, dtype, low, high, seed, Device::cpu()));
        cuda.push_back(laid_out(layout, n, dtype, low, high, seed, Device::cuda()));
      }
      check_row(run(cpu), run(cuda), ulps);
    }
}

/// The project's own functions are the same code on both sides; in f64 each side has its C library's.
std::int64_t ulps_of(DType dtype, std::string_view op) {
  for (const char* exact : {"neg", "abs", "sign", "sqrt", "square", "reciprocal", "relu", "floor", "add", "sub", "mul",
                            "div", "maximum", "minimum", "relu_grad"})
    if (op == exact) return 0;
  if (dtype == f64 && op.ends_with("_grad")) return 1 << 14;  // a slope passes through zero, where digits cancel
  return dtype == f64 ? 8 : 2;
}

double low_of(std::string_view op) { return op == "log" || op == "sqrt" || op == "rsqrt" || op == "pow" ? 0.01 : -4; }

}  // namespace

TEST_CASE("elementwise operations are the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType dtype : {f32, f64, i64}) {
    UnaryOps::for_each([&]<class Op>() {
      if (dtype == i64 && !Op::integers) return;
      everywhere(std::string(Op::name), dtype, 1, low_of(Op::name), 4, ulps_of(dtype, Op::name),
                 [](const std::vector<Tensor>& x) { return compute::unary<Op>(x[0]); });
    });
    BinaryOps::for_each([&]<class Op>() {
      if (dtype == i64 && !Op::integers) return;
      everywhere(std::string(Op::name), dtype, 2, low_of(Op::name), 4, ulps_of(dtype, Op::name),
                 [](const std::vector<Tensor>& x) { return compute::binary<Op>(x[0], x[1]); });
    });
    CompareOps::for_each([&]<class Op>() {
      everywhere(std::string(Op::name), dtype, 2, -2, 2, 0,
                 [](const std::vector<Tensor>& x) { return compute::compare<Op>(x[0], x[1]); });
    });
  }
  for (DType dtype : {f32, f64, i64, i32, u8, bf16})
    everywhere("where", dtype, 2, 0, 9, 0,
               [](const std::vector<Tensor>& x) { return where(cast(x[0], f32) > cast(x[1], f32), x[0], x[1]); });
}

TEST_CASE("casts, copies and fills are the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType from : {f32, f64, i64, i32, u8, boolean, bf16})
    for (DType target : {f32, f64, i64, i32, u8, boolean, bf16})
      for (Layout layout : kLayouts) {
        INFO(from << " to " << target << ' ' << kLayoutNames[static_cast<int>(layout)]);
        check_row(compute::cast(laid_out(layout, 257, from, 0, 300, 3, Device::cpu()), target),
                  compute::cast(laid_out(layout, 257, from, 0, 300, 3, Device::cuda()), target), 0);
      }
  for (DType dtype : {f32, f64, i64, u8})
    for (std::int64_t n : {1, 40, 100}) {
      INFO("transpose " << dtype << ' ' << n);
      const Tensor x = values({3, n, 70}, dtype, 0, 200, 4);
      check_row(contiguous(transpose(x)), contiguous(transpose(to(x, Device::cuda()))), 0);
      check_row(full({n}, 2.5, {dtype, Device::cpu()}), full({n}, 2.5, {dtype, Device::cuda()}), 0);
    }
}

TEST_CASE("special values in every place of a block", "[parity]") {
  if (!test::has_cuda()) return;
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> special{NAN, inf, -inf, 0.f, -0.f, FLT_MAX, -FLT_MAX, FLT_MIN, 1.f};
  for (std::int64_t n = 1; n <= 67; ++n) {
    std::vector<float> filled(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < filled.size(); ++i)
      filled[i] = special[(i + static_cast<std::size_t>(n)) % special.size()];
    const DefaultDevice host(Device::cpu());
    const Tensor x = tensor(filled), d = to(x, Device::cuda()),
                 y = tensor(std::vector<float>(filled.rbegin(), filled.rend()));
    INFO("length " << n);
    UnaryOps::for_each([&]<class Op>() {
      INFO(Op::name);
      check_row(compute::unary<Op>(x), compute::unary<Op>(d), ulps_of(f32, Op::name));
    });
    BinaryOps::for_each([&]<class Op>() {
      INFO(Op::name);
      check_row(compute::binary<Op>(x, y), compute::binary<Op>(d, to(y, Device::cuda())), ulps_of(f32, Op::name));
    });
    check_row(max(x), max(d), 0);
    check_row(argmax(x), argmax(d), 0);
    check_row(sort(x).values, sort(d).values, 0);
    check_row(sort(x, -1, true).indices, sort(d, -1, true).indices, 0);
  }
}

TEST_CASE("denormal numbers are IEEE's, which the CPU flushes", "[parity]") {
  if (!test::has_cuda()) return;
  const std::vector<float> numbers{0x1p-149f, -0x1p-149f, 1e-40f, -1e-40f, 0x1.8p-127f,
                                   FLT_MIN,   -2e-39f,    3.f,    0x1p-60f};
  const std::vector<float> others(numbers.rbegin(), numbers.rend());
  const DefaultDevice device(Device::cuda());
  const Tensor x = tensor(numbers), y = tensor(others);
  const auto compare = [&](const Tensor& got, std::string_view op, const auto& expected) {
    INFO(op);
    ++rows;
    const std::vector<float> is = got.to_vector<float>();
    const test::Denormals kept;
    for (std::size_t i = 0; i < is.size(); ++i) {
      const float should = expected(i);
      if (is[i] != is[i] && should != should) continue;
      if (std::llabs(ordered(is[i]) - ordered(should)) > ulps_of(f32, op) ||
          std::signbit(is[i]) != std::signbit(should))
        report(i, should, is[i]);
    }
  };
  UnaryOps::for_each([&]<class Op>() {
    compare(compute::unary<Op>(x), Op::name, [&](std::size_t i) { return Op::eval(numbers[i]); });
  });
  BinaryOps::for_each([&]<class Op>() {
    compare(compute::binary<Op>(x, y), Op::name, [&](std::size_t i) { return Op::eval(numbers[i], others[i]); });
  });
  const auto bits = [](const Tensor& t) { return std::bit_cast<std::uint32_t>(t.to_vector<float>()[0]); };
  const Tensor few = tensor({1e-40f, 2e-40f, -1e-40f, 0.f});
  CHECK(bits(max(few)) == std::bit_cast<std::uint32_t>(2e-40f));
  CHECK(bits(sum(few)) == std::bit_cast<std::uint32_t>(2e-40f));
  CHECK(argmin(few).item() == 2);
  CHECK(sort(few, -1, true).indices.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0, 3, 2});
  CHECK(cast(few, f64).to_vector<double>()[2] == -0x116c2p-149);
  CHECK(sum(cast(few > 0, i64)).item() == 2);
}

TEST_CASE("reductions agree with the CPU's to four roundings of their terms", "[parity]") {
  if (!test::has_cuda()) return;
  const std::vector<Shape> shapes{{1},       {33},      {257},      {70'001},  {5, 31},     {3, 300},
                                  {600, 40}, {48, 100}, {2, 7, 33}, {1100, 3}, {4, 1030, 2}};
  for (DType dtype : {f32, f64, i64})
    for (const Shape& shape : shapes)
      for (int axis = -1; axis < shape.size(); ++axis) {
        INFO(dtype << ' ' << shape << " axis " << axis);
        const Axes axes = axis < 0 ? Axes{} : Axes{axis};
        const Tensor x = values(shape, dtype, -3, 5, 11), d = to(x, Device::cuda());
        check_sums(sum(x, axes), sum(d, axes), sum(abs(x), axes));
        check_row(max(x, axes), max(d, axes), 0);
        check_row(min(x, axes), min(d, axes), 0);
        if (axis < 0) continue;
        check_row(argmax(x, axis), argmax(d, axis), 0);
        check_row(argmin(x, axis), argmin(d, axis), 0);
        // The CPU's running sum is one chain of roundings: the reference for f32 is f64, for f64 more room.
        const Tensor reference = dtype == f32 ? cast(cumsum(cast(x, f64), axis), f32) : cumsum(x, axis);
        check_sums(reference, cumsum(d, axis), cumsum(abs(x), axis) * (dtype == f64 ? 16.0 : 1.0));
        const Tensor near_one = is_floating(dtype) ? x * 1e-3 + 1.0 : x;
        check_sums(prod(near_one, axes), prod(to(near_one, Device::cuda()), axes),
                   abs(prod(near_one, axes)) * static_cast<double>(shape[axis]));
      }
}

TEST_CASE("sums of squares agree with the CPU's, whatever the mask", "[parity]") {
  if (!test::has_cuda()) return;
  using optim::Mask;
  const auto mask_of = [](int kind, std::int64_t n) {
    const DefaultDevice host(Device::cpu());
    switch (kind) {
      case 0: return Mask::none({n});
      case 1: return Mask::blocks({n}, 100, std::vector<bool>(static_cast<std::size_t>((n + 99) / 100), true));
      case 2: return Mask::rows({n}, {0, n / 3, n / 2, n - 1});
      default: return Mask::elements(values({n}, f32, 0, 2, 5) > 1.0);
    }
  };
  for (DType dtype : {f32, f64})
    for (std::size_t count : {std::size_t{1}, std::size_t{17}, std::size_t{200}})
      for (int kind = -1; kind < 4; ++kind) {
        INFO(dtype << ", " << count << " tensors, mask " << kind);
        double expected = 0;
        std::vector<Tensor> alive;
        std::vector<Mask> masks;
        std::vector<Squares> jobs;
        for (std::size_t i = 0; i < count; ++i) {
          const std::int64_t n = i == 0 ? 33'000 : static_cast<std::int64_t>(1 + i * 37 % 500);
          const Tensor x = values({n}, i == 1 ? f64 : dtype, -2, 3, i);
          alive.push_back(to(x, Device::cuda()));
          jobs.push_back({x.dtype(), n, alive.back().raw(), {}});
          if (kind >= 0) masks.push_back(mask_of(kind, n));
          const Tensor counted = kind < 0 ? x : where(masks.back().to_tensor(Device::cpu()), x, x * 0.0);
          expected += sum(square(cast(counted, f64))).item();
        }
        for (std::size_t i = 0; i < masks.size(); ++i) jobs[i].mask = masks[i].view(Device::cuda());
        const Tensor total = empty({}, {f64, Device::cuda()});
        kernels(Device::cuda())
            .sum_of_squares(jobs.data(), static_cast<std::int64_t>(count), static_cast<double*>(total.raw_mutable()));
        ++rows;
        CHECK(total.item() == Approx(expected).epsilon(1e-14));
      }
}

TEST_CASE("row operations agree with the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType dtype : {f32, f64})
    for (std::int64_t n : {1, 2, 31, 32, 33, 100, 257, 1030})
      for (std::int64_t m : {1, 5, 12, 16}) {
        INFO(dtype << ' ' << m << " rows of " << n);
        const Tensor x = values({m, n}, dtype, -6, 6, 1), d = to(x, Device::cuda()), size = abs(x) + 8.0;
        check_sums(softmax(x), softmax(d), softmax(x) * 8.0);
        check_sums(log_softmax(x), log_softmax(d), size * 2.0);
        check_sums(logsumexp(x), logsumexp(d), abs(logsumexp(x)) + 8.0);
        const Tensor w = values({n}, dtype, 0.5, 2, 2), b = values({n}, dtype, -1, 1, 3);
        check_sums(layer_norm(x, w, b), layer_norm(d, to(w, Device::cuda()), to(b, Device::cuda())), size * 4.0);
        check_sums(rms_norm(x, w), rms_norm(d, to(w, Device::cuda())), size * 4.0);
        for (const bool weighted : {true, false}) {
          Tensor leaf = x.clone(), dleaf = d.clone();
          leaf.set_requires_grad();
          dleaf.set_requires_grad();
          sum(rms_norm(leaf, weighted ? w : Tensor(), 0.1) * b).backward();
          sum(rms_norm(dleaf, weighted ? to(w, Device::cuda()) : Tensor(), 0.1) * to(b, Device::cuda())).backward();
          check_sums(leaf.grad(), dleaf.grad(), abs(leaf.grad()) + 16.0);
        }
        Generator generator(4);
        const Tensor target = randint({m}, 0, n, generator, {i64, Device::cpu()});
        for (double smoothing : {0.0, 0.1}) {
          Tensor leaf = x.clone(), dleaf = d.clone();
          leaf.set_requires_grad();
          dleaf.set_requires_grad();
          const Tensor loss = cross_entropy_rows(leaf, target, {.weight = w, .label_smoothing = smoothing});
          const Tensor dloss = cross_entropy_rows(dleaf, to(target, Device::cuda()),
                                                  {.weight = to(w, Device::cuda()), .label_smoothing = smoothing});
          check_sums(loss.detach(), dloss.detach(), abs(loss.detach()) + 16.0);
          sum(loss).backward();
          sum(dloss).backward();
          check_sums(leaf.grad(), dleaf.grad(), abs(leaf.grad()) * 8.0 + 1.0);
        }
      }
}

TEST_CASE("gradients of the norms agree with the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType dtype : {f32, f64})
    for (std::int64_t n : {1, 31, 33, 257})
      for (std::int64_t m : {0, 1, 12, 300, 700})
        for (const bool centred : {true, false})
          for (const bool weighted : {true, false}) {
            INFO(dtype << ' ' << m << " rows of " << n << (centred ? ", layer" : ", RMS")
                       << (weighted ? " weighted" : ""));
            const Tensor g = values({m, n}, dtype, -1, 2, 1), x = values({m, n}, dtype, -3, 3, 2);
            const Tensor w = weighted ? values({n}, dtype, 0.5, 2, 3) : Tensor();
            const Tensor mean = centred ? values({m}, dtype, -1, 1, 4) : Tensor(), rstd = values({m}, dtype, 0.5, 2, 5);
            const auto there = [](const Tensor& t) { return t.defined() ? to(t, Device::cuda()) : t; };
            for (const compute::NormWants wants : {compute::NormWants{true, true, true},
                                                   {false, true, false},
                                                   {false, false, true},
                                                   {true, false, false}}) {
              const auto host = compute::norm_grad(g, x, w, mean, rstd, wants);
              const auto device = compute::norm_grad(there(g), there(x), there(w), there(mean), there(rstd), wants);
              const Tensor column = unsqueeze(rstd, 1);
              const Tensor size = (abs(x) + (centred ? abs(unsqueeze(mean, 1)) : column * 0.0)) * column;
              const Tensor gw = weighted ? abs(g) * w : abs(g), whole = size * stet::mean(gw * size, {-1}, true) + gw;
              if (wants.x) check_sums(host.x, device.x, column * (whole + stet::mean(gw, {-1}, true)) * 2.0);
              if (wants.weight) check_sums(host.weight, device.weight, sum(abs(g) * size, {0}));
              if (wants.bias) check_sums(host.bias, device.bias, sum(abs(g), {0}));
              if (wants.x) {
                const Tensor start = values({m, n}, dtype, -1, 1, 6), so_far = start.clone(), there_too = there(start);
                compute::norm_grad(g, x, w, mean, rstd, wants, &so_far);
                compute::norm_grad(there(g), there(x), there(w), there(mean), there(rstd), wants, &there_too);
                CHECK(sum(abs(so_far - (start + host.x))).item() == 0);
                CHECK(sum(abs(there_too - (there(start) + device.x))).item() == 0);
              }
              CHECK(device.x.defined() == wants.x);
              CHECK(device.weight.defined() == wants.weight);
              CHECK(device.bias.defined() == wants.bias);
            }
          }
}

TEST_CASE("rotations are the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  const auto there = [](const Tensor& t) { return to(t, Device::cuda()); };
  for (DType dtype : {f32, f64})
    for (std::int64_t width : {2, 7, 16, 40})
      for (std::int64_t half : {std::int64_t{1}, width / 2})
        for (const bool interleaved : {false, true}) {
          INFO(dtype << ' ' << half << " pairs of " << width << (interleaved ? ", neighbours" : ""));
          const Tensor x = values({2, 5, 3, width}, dtype, -2, 2, 1), turned = transpose(x, 1, 2);
          const Tensor cos = values({5, half}, dtype, -1, 1, 2), sin = values({5, half}, dtype, -1, 1, 3);
          check_row(rotary(turned, {cos, sin}, interleaved),
                    rotary(transpose(there(x), 1, 2), {there(cos), there(sin)}, interleaved), 0);
          Tensor leaf = x.clone(), dleaf = there(x).clone();
          leaf.set_requires_grad();
          dleaf.set_requires_grad();
          sum(square(rotary(transpose(leaf, 1, 2), {cos, sin}, interleaved))).backward();
          sum(square(rotary(transpose(dleaf, 1, 2), {there(cos), there(sin)}, interleaved))).backward();
          check_row(leaf.grad(), dleaf.grad(), 0);
        }
}

TEST_CASE("random draws have the CPU's bits", "[parity]") {
  if (!test::has_cuda()) return;
  for (std::int64_t n : kSizes)
    for (DType dtype : {f32, f64, i64, i32, u8, boolean}) {
      INFO(dtype << " of " << n);
      const auto draw = [&](Device device, int kind) {
        Generator g(static_cast<std::uint64_t>(n) + 1);
        if (kind == 0) return uniform({n}, -1, 3, g, {dtype, device});
        if (kind == 1) return normal({n}, 1, 2, g, {dtype, device});
        if (kind == 2) return bernoulli({n}, 0.3, g, {dtype, device});
        if (kind == 3) return randint({n}, 0, 2, g, {dtype, device});
        return compute::random(Draw::bits, {n}, g, {dtype, device}, 0, 0);
      };
      for (int kind = 0; kind < 5; ++kind) {
        if (is_floating(dtype) ? kind >= 3 : kind < 2) continue;
        const Tensor cpu = draw(Device::cpu(), kind), cuda = draw(Device::cuda(), kind);
        // In f64 each side has its C library's log and cos, and mean + deviation z may cancel: z is at most 9.
        if (dtype == f64 && kind == 1) check_sums(cpu, cuda, full({n}, 1.0 + 2 * 9, {f64, Device::cpu()}));
        else check_row(cpu, cuda, 0);
      }
    }
}

TEST_CASE("movement by index, sums by index and sorting are the CPU's", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType dtype : {f32, f64, i64, i32, u8})
    for (std::int64_t n : {1, 2, 33, 257, 1500})
      for (int axis : {0, 1}) {
        INFO(dtype << ' ' << n << " axis " << axis);
        const Shape shape = axis == 0 ? Shape{n, 5} : Shape{3, n};
        const Tensor x = values(shape, dtype, 0, 20, 1), d = to(x, Device::cuda());
        Generator generator(2);
        const Tensor index = randint({40}, 0, n, generator, {i64, Device::cpu()}), di = to(index, Device::cuda());
        check_row(index_select(x, axis, index), index_select(d, axis, di), 0);
        const Tensor into = randint({n}, 0, 7, generator, {i64, Device::cpu()}), dinto = to(into, Device::cuda());
        check_row(index_add(x, axis, into, 7), index_add(d, axis, dinto, 7), 0);
        const Tensor each = randint(shape, 0, n, generator, {i64, Device::cpu()}), deach = to(each, Device::cuda());
        check_row(gather(x, axis, each), gather(d, axis, deach), 0);
        check_row(scatter_add(x, axis, each, x), scatter_add(d, axis, deach, d), 0);
        check_row(sort(x, axis).values, sort(d, axis).values, 0);
        check_row(sort(x, axis).indices, sort(d, axis).indices, 0);
        check_row(topk(x, n / 2, axis).indices, topk(d, n / 2, axis).indices, 0);
        check_row(cat({x, x}, axis), cat({d, d}, axis), 0);
      }
}

TEST_CASE("there are at least 1,500 parity rows", "[parity]") {
  if (!test::has_cuda()) return;
  INFO(rows << " rows so far: this case counts what ran before it");
  if (rows > 0) CHECK(rows >= 1500);
  WARN(rows << " parity rows on " << cuda::device_name());
}
