// Attention on Device::cuda() against the CPU: values and gradients, around the tiles of the kernels, over every
// mask. Bounds are those of sums: a few eps of the largest value.
#include <cfloat>
#include <limits>

#include <stet/autograd/attention.h>
#include <stet/autograd/engine.h>
#include <stet/cuda/cuda.h>

#include "support/catch.h"
#include "support/samples.h"

using namespace stet;

namespace {

Tensor values(const Shape& shape, DType dtype, double low, double high, int seed) {
  const DefaultDevice host(Device::cpu());
  return test::spread(shape, low, high, seed, {dtype, Device::cpu()});
}

void check_close(const Tensor& cpu, const Tensor& cuda) {
  REQUIRE(cuda.device() == Device::cuda());
  REQUIRE(cuda.shape() == cpu.shape());
  const auto a = cpu.to_vector<double>(), b = cuda.to_vector<double>();
  double largest = 1, worst = 0;  // with one key the gradients of q and k are zero but for rounding
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(a[i]));
    worst = !(std::fabs(a[i] - b[i]) <= worst) ? std::fabs(a[i] - b[i]) : worst;
  }
  CHECK(worst <= (cpu.dtype() == DType::f32 ? FLT_EPSILON : DBL_EPSILON) * 32 * largest);
}

void check_case(const Shape& q, const Shape& k, const Shape& v, DType dtype, AttentionOptions options) {
  std::vector<Tensor> host{values(q, dtype, -2, 2, 1), values(k, dtype, -2, 2, 2), values(v, dtype, -1, 1, 3)}, there;
  for (const Tensor& x : host) there.push_back(to(x, Device::cuda()).set_requires_grad());
  for (const Tensor& x : host) x.set_requires_grad();
  const auto run = [&](const std::vector<Tensor>& in) {
    Generator generator(5);
    options.generator = &generator;
    return attention(in[0], in[1], in[2], options);
  };
  const Tensor y = run(host);
  for (Tensor* mask : {&options.mask, &options.padding})
    if (mask->defined()) *mask = to(*mask, Device::cuda());
  const Tensor z = run(there);
  check_close(y.detach(), z.detach());
  const Tensor seed = values(y.shape(), dtype, 0.5, 1.5, 4);
  const auto a = grad(y, host, {.seed = seed}), b = grad(z, there, {.seed = to(seed, Device::cuda())});
  for (std::size_t i = 0; i < 3; ++i) check_close(a[i], b[i]);
}

}  // namespace

TEST_CASE("attention agrees with the CPU's", "[parity]") {
  if (!cuda::available()) return;
  const DefaultDevice host(Device::cpu());
  for (const DType dtype : {DType::f32, DType::f64})
    for (const std::int64_t rows : {1, 15, 16, 17, 40})
      for (const std::int64_t keys : {1, 31, 32, 33, 70}) {
        const std::int64_t batch = 2, heads = 2, group = rows % 2 ? 2 : 1, width = 5, value_width = 7;
        const Shape q{batch, heads, rows, width}, k{batch, heads / group, keys, width},
            v{batch, heads / group, keys, value_width};
        INFO(dtype << ' ' << q << ' ' << k);
        const Tensor padding = values({batch, keys}, DType::f64, -1, 1, 6) < 0.4;
        const Tensor wide = values({heads, rows, keys}, dtype, -1, 1, 7);
        const Tensor hidden = full({}, -std::numeric_limits<double>::infinity(), {dtype, Device::cpu()});
        check_case(q, k, v, dtype, {});
        check_case(q, k, v, dtype, {.causal = true, .padding = padding});
        check_case(q, k, v, dtype, {.causal = true, .window = 3});
        check_case(q, k, v, dtype, {.window = 33, .padding = padding});
        check_case(q, k, v, dtype, {.mask = where(wide > 0.7, hidden, wide)});
        check_case(q, k, v, dtype, {.mask = wide < 0.5, .padding = padding, .dropout = 0.3});
      }
}
