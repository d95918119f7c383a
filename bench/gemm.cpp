// Matrix products beside OpenBLAS on one thread (OpenBLAS's own threads keep their cores busy between calls). The
// shapes are those of the training benchmarks: (tokens, in, out) of a layer forward (T: the weight's rows are outputs),
// its input's gradient, and its weight's (transposed left side). Prints Gflop/s of both, the best of interleaved
// rounds, and their ratio.
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include <stet/stet.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/threads.h>

using namespace stet;

namespace {

struct Product {
  const char* what;
  bool transpose_a, transpose_b;
  int m, n, k;
};

constexpr Product kProducts[] = {
    {"small GPT, forward", false, true, 1152, 512, 128},
    {"small GPT, forward", false, true, 1152, 128, 512},
    {"small GPT, input", false, false, 1152, 128, 384},
    {"small GPT, weight", true, false, 512, 128, 1152},
    {"character GPT, forward", false, true, 1152, 288, 96},
    {"character GPT, forward", false, true, 1152, 96, 96},
    {"character GPT, forward", false, true, 1152, 384, 96},
    {"character GPT, forward", false, true, 1152, 96, 384},
    {"character GPT, input", false, false, 1152, 96, 288},
    {"character GPT, input", false, false, 1152, 96, 96},
    {"character GPT, input", false, false, 1152, 96, 384},
    {"character GPT, input", false, false, 1152, 384, 96},
    {"character GPT, weight", true, false, 288, 96, 1152},
    {"character GPT, weight", true, false, 96, 96, 1152},
    {"character GPT, weight", true, false, 384, 96, 1152},
    {"character GPT, weight", true, false, 96, 384, 1152},
    {"MiniLM, forward", false, true, 2048, 384, 384},
    {"MiniLM, forward", false, true, 2048, 1536, 384},
    {"MiniLM, forward", false, true, 2048, 384, 1536},
    {"MiniLM, input", false, false, 2048, 384, 1536},
    {"MiniLM, weight", true, false, 1536, 384, 2048},
    {"GPT-2, forward", false, true, 256, 768, 768},
    {"GPT-2, forward", false, true, 256, 3072, 768},
    {"GPT-2, head", false, true, 256, 50257, 768},
    {"GPT-2, weight", true, false, 3072, 768, 256},
    {"GPT-2, head input", false, false, 256, 768, 50257},
    {"perceptron, forward", false, true, 128, 256, 784},
    {"perceptron, weight", true, false, 256, 784, 128},
    {"square", false, false, 200, 200, 200},
    {"square", false, false, 1024, 1024, 1024},
};

template <class Run> double seconds(int repeats, const Run& run) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / repeats;
}

/// Prints a line; returns how many times faster stet is.
double compare(const Product& p) {
  const Tensor a = p.transpose_a ? rand({p.k, p.m}) : rand({p.m, p.k});
  const Tensor b = p.transpose_b ? rand({p.n, p.k}) : rand({p.k, p.n});
  const Tensor target = zeros({p.m, p.n});
  std::vector<float> theirs(static_cast<std::size_t>(target.numel()));
  const double flops = 2.0 * p.m * p.n * p.k;
  const int repeats = std::max(1, static_cast<int>(2e8 / flops));
  double best = 1e9, peer = 1e9;
  for (int round = 0; round < 9; ++round) {
    best = std::min(best,
                    seconds(repeats, [&] { compute::gemm_into(target, a, p.transpose_a, b, p.transpose_b, false); }));
    peer = std::min(peer, seconds(repeats, [&] {
                      cblas_sgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans,
                                  p.transpose_b ? CblasTrans : CblasNoTrans, p.m, p.n, p.k, 1, a.data<float>(),
                                  p.transpose_a ? p.m : p.k, b.data<float>(), p.transpose_b ? p.k : p.n, 0,
                                  theirs.data(), p.n);
                    }));
  }
  std::printf("%-20s %5d x %5d x %5d %8.1f %8.1f %6.2f\n", p.what, p.m, p.n, p.k, flops / best / 1e9,
              flops / peer / 1e9, peer / best);
  return peer / best;
}

}  // namespace

int main() {
  set_threads(1);
  openblas_set_num_threads(1);
  std::printf("%-20s %5s   %5s   %5s %8s %8s %6s  (Gflop/s)\n", "product", "m", "n", "k", "stet", "OpenBLAS", "ratio");
  double logs = 0;
  for (const Product& p : kProducts) logs += std::log(compare(p));
  std::printf("geometric mean of the ratios %.3f\n", std::exp(logs / static_cast<double>(std::size(kProducts))));
}
