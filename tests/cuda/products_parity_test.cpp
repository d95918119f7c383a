// Matrix products on Device::cuda() against the CPU, with all that may ride on them.
#include <stet/cuda/cuda.h>
#include <stet/tensor/compute.h>

#include "cuda/parity.h"
#include "support/device.h"
#if defined(STET_CUDA_SIMULATED)
#include <stet/cuda/simulated/device.h>
#endif

using namespace stet;
using namespace stet::parity;

TEST_CASE("products agree with the CPU's to four roundings of their terms", "[parity]") {
  if (!test::has_cuda()) return;
  struct Case {
    std::int64_t m, n, k;
  };
  for (DType dtype : {f32, f64})
    for (const Case c :
         {Case{1, 1, 1}, Case{1, 7, 33}, Case{31, 33, 5}, Case{64, 32, 100}, Case{3, 300, 1}, Case{5, 6, 0}})
      for (int form = 0; form < 4; ++form) {
        INFO(dtype << ' ' << c.m << 'x' << c.k << " by " << c.k << 'x' << c.n << " form " << form);
        Tensor a = values(form & 1 ? Shape{c.k, c.m} : Shape{c.m, c.k}, dtype, -1, 1, 1);
        Tensor b = values(form & 2 ? Shape{c.n, c.k} : Shape{c.k, c.n}, dtype, -1, 1, 2);
        Tensor da = to(a, Device::cuda()), db = to(b, Device::cuda());
        if (form & 1) a = transpose(a), da = transpose(da);
        if (form & 2) b = transpose(b), db = transpose(db);
        check_sums(matmul(a, b), matmul(da, db), matmul(abs(a), abs(b)));
        const Tensor w = contiguous(transpose(b)), bias = values({c.n}, dtype, -1, 1, 3);
        const Tensor dw = to(w, Device::cuda()), dbias = to(bias, Device::cuda());
        const Tensor terms = linear(abs(a), abs(w), abs(bias)) * 2.0;
        for (Activation act :
             {Activation::none, Activation::relu, Activation::gelu, Activation::tanh, Activation::sigmoid})
          check_sums(linear(a, w, bias, act), linear(da, dw, dbias, act), terms + 1.0);
        const Tensor stack_a = values({4, c.m, c.k}, dtype, -1, 1, 5), stack_b = values({4, c.k, c.n}, dtype, -1, 1, 6);
        check_sums(matmul(stack_a, stack_b), matmul(to(stack_a, Device::cuda()), to(stack_b, Device::cuda())),
                   matmul(abs(stack_a), abs(stack_b)));
        check_sums(matmul(stack_a, b), matmul(to(stack_a, Device::cuda()), db), matmul(abs(stack_a), abs(b)));
      }
}

TEST_CASE("gradients of weight and bias agree with the CPU's, whatever cuBLASLt can do by itself", "[parity]") {
  if (!test::has_cuda()) return;
  const auto check_all = [](std::int64_t more) {  // shapes of their own: a plan is made once
    for (DType dtype : {f32, f64})
      for (std::int64_t n : {0, 1, 33, 600})
        for (std::int64_t out : {1, 7, 40}) {
          INFO(dtype << ' ' << n << " rows, " << out << " outputs, " << 5 + more << " inputs");
          const Tensor g = values({n, out}, dtype, -1, 2, 1), x = values({n, 5 + more}, dtype, -1, 1, 2);
          const Tensor y = values({n, 40}, dtype, -1, 2, 3), part = slice(y, 1, 0, out);  // rows with a gap
          for (const Tensor& from : {g, part}) {
            const auto host = compute::linear_gradients(from, x);
            const auto device = compute::linear_gradients(to(from, Device::cuda()), to(x, Device::cuda()));
            check_sums(host.weight, device.weight, matmul(transpose(abs(from)), abs(x)));
            check_sums(host.bias, device.bias, sum(abs(from), {0}));
            check_sums(host.bias, sum(from, {0}), sum(abs(from), {0}));
          }
        }
  };
  check_all(0);
#if defined(STET_CUDA_SIMULATED)
  std::int64_t more = 0;
  for (const auto way : {simulated::Refusal::unsupported, simulated::Refusal::invalid, simulated::Refusal::late}) {
    simulated::refusal = way;
    check_all(++more);
    const Tensor x = values({4, 6}, f32, -1, 1, 1), w = values({2 + more, 6}, f32, -1, 1, 2),
                 b = values({2 + more}, f32, -1, 1, 3);
    const auto there = [](const Tensor& t) { return to(t, Device::cuda()); };
    for (int again = 0; again < 2; ++again)
      check_sums(linear(x, w, b, Activation::relu), linear(there(x), there(w), there(b), Activation::relu),
                 linear(abs(x), abs(w), abs(b)));
  }
  simulated::refusal = simulated::Refusal::none;
#endif
}

TEST_CASE("a bias may begin anywhere in memory", "[parity]") {
  if (!test::has_cuda()) return;
  const Tensor x = values({5, 11}, f32, -1, 1, 1), w = values({13, 11}, f32, -1, 1, 2), b = values({16}, f32, -1, 1, 3);
  const Tensor dx = to(x, Device::cuda()), dw = to(w, Device::cuda()), db = to(b, Device::cuda());
  for (std::int64_t start : {1, 0, 3, 2})
    for (Activation act : {Activation::none, Activation::relu}) {
      INFO("from element " << start);
      const Tensor part = slice(b, 0, start, start + 13);
      check_sums(linear(x, w, part, act), linear(dx, dw, slice(db, 0, start, start + 13), act),
                 linear(abs(x), abs(w), abs(part)));
    }
}

TEST_CASE("NaN passes through a layer with ReLU", "[parity]") {
  if (!test::has_cuda()) return;
  for (DType dtype : {f32, f64})
    for (const bool biased : {true, false}) {
      const Tensor x = full({2, 9}, NAN, {dtype, Device::cuda()}), w = ones({6, 9}, {dtype, Device::cuda()});
      const Tensor y = linear(x, w, biased ? ones({6}, {dtype, Device::cuda()}) : Tensor(), Activation::relu);
      for (const double v : y.to_vector<double>()) CHECK(std::isnan(v));
      ++rows;
    }
}
