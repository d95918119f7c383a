// The machine's own limits, measured by stet's threads: operations at the speed of its best matrix product, bytes at
// the speed of updates in place, of arrays far beyond the caches and of arrays that stay there in part.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <vector>

#include <cblas.h>

#include <stet/tensor/cpu/cpu.h>

#include "case.h"

using namespace stet;

namespace bench {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Best rate of several, after one untimed call: it touches the memory and wakes the threads.
template <class Work> double best_rate(double amount, int times, const Work& work) {
  double best = 0;
  for (int i = -1; i < times; ++i) {
    const double start = seconds();
    work();
    if (i >= 0) best = std::max(best, amount / (seconds() - start));
  }
  return best;
}

double product_rate() {
  const std::int64_t n = 1024;
  const Tensor a = rand({n, n}), b = rand({n, n});
  return best_rate(2.0 * n * n * n, 12, [&] { (void)matmul(a, b); });
}

/// x += y: no memory is new to the process or read only because it is written.
double addition_rate() {
  constexpr std::int64_t count = std::int64_t{1} << 25, chunk = std::int64_t{1} << 18;
  std::vector<float> x(count, 1.0F), y(count, 1e-3F);
  return best_rate(12.0 * count, 12, [&] {
    parallel_for(count / chunk, [&](std::int64_t at) {
      float* to = x.data() + at * chunk;
      const float* from = y.data() + at * chunk;
      for (std::int64_t i = 0; i < chunk; ++i) to[i] += from[i];
    });
  });
}

/// Adam reads four arrays and writes three, a mix that some machines move faster than an addition's.
double adam_rate(std::int64_t count) {
  nn::Module model;
  nn::Parameter weight(&model, "w", zeros({count}));
  optim::Adam optimizer({&weight}, optim::AdamOptions{});
  weight.value().set_grad(full({count}, 0.01));
  return best_rate(28.0 * static_cast<double>(count), 12, [&] { optimizer.step(); });
}

}  // namespace

void print_limits() {
  double operations = 0, addition = 0, adam = 0, adam_small = 0;
  for (int round = 0; round < 2; ++round) {  // what disturbs one may have passed at the other
    operations = std::max(operations, product_rate());
    addition = std::max(addition, addition_rate());
    adam = std::max(adam, adam_rate(std::int64_t{1} << 24));
    adam_small = std::max(adam_small, adam_rate((std::int64_t{1} << 25) / 10));  // as many as case 7 changes
  }
  std::cout << "{\"gflops\": " << operations * 1e-9 << ", \"gbytes\": " << std::max(addition, adam) * 1e-9
            << ", \"gbytes_addition\": " << addition * 1e-9 << ", \"gbytes_adam\": " << adam * 1e-9
            << ", \"gbytes_adam_small\": " << adam_small * 1e-9 << ", \"isa\": \"" << cpu::isa()
            << "\", \"threads\": " << threads() << ", \"blas\": \"" << openblas_get_corename()
            << "\", \"blas_config\": \"" << openblas_get_config() << "\"}" << std::endl;
}

}  // namespace bench
