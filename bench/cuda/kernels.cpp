// What the CUDA backend reaches of the device it runs on: each case prints one JSON line with its median time, GB/s or
// TFLOP/s, and the share of the device's own peak, which the first two cases measure in the same run.
// Run: build/cuda/bench/cuda_kernels [--quick] [case ...]; bench/cuda/run_all.sh makes a report of it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include <stet/autograd/squared.h>
#include <stet/cuda/cuda.h>
#include <stet/stet.h>

using namespace stet;

namespace {

bool quick = false;  // small sizes: does it run? (the simulated device)
std::set<std::string> wanted;
double peak_bandwidth = 0, peak_flops = 0;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Median seconds of one call: rounds of as many calls as take a while, the host waiting only between rounds.
double median_seconds(const std::function<void()>& work) {
  const int rounds = quick ? 2 : 9;
  work();
  work();
  cuda::synchronize();
  double start = now();
  work();
  cuda::synchronize();
  const double once = std::max(now() - start, 1e-6);
  const int calls = quick ? 1 : std::clamp(static_cast<int>(0.05 / once), 1, 5000);
  std::vector<double> times;
  for (int r = 0; r < rounds; ++r) {
    start = now();
    for (int i = 0; i < calls; ++i) work();
    cuda::synchronize();
    times.push_back((now() - start) / calls);
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<std::size_t>(rounds / 2)];
}

bool selected(const std::string& name) { return wanted.empty() || wanted.contains(name.substr(0, name.find(' '))); }

void print(const std::string& name, double seconds, const char* unit, double amount, double peak) {
  std::printf("{\"case\": \"%s\", \"seconds\": %.4g, \"%s\": %.4g, \"share\": %.3f, \"simulated\": %s}\n", name.c_str(),
              seconds, unit, amount, peak > 0 ? amount / peak : 1.0, cuda::simulated() ? "true" : "false");
  std::fflush(stdout);
}

/// A case that memory bounds: `bytes` read and written by one call.
void bandwidth(const std::string& name, double bytes, const std::function<void()>& work) {
  if (!selected(name) && name != "copy") return;
  const double seconds = median_seconds(work), rate = bytes / seconds / 1e9;
  if (name == "copy") peak_bandwidth = rate;
  print(name, seconds, "gb_per_second", rate, peak_bandwidth);
}

void flops(const std::string& name, double operations, const std::function<void()>& work) {
  if (!selected(name) && peak_flops > 0) return;
  const double seconds = median_seconds(work), rate = operations / seconds / 1e12;
  peak_flops = std::max(peak_flops, rate);
  print(name, seconds, "tflop_per_second", rate, peak_flops);
}

/// A case with no bound of its own: launches, small models.
void steps(const std::string& name, const std::function<void()>& work) {
  if (!selected(name)) return;
  const auto before = cuda::counters();
  work();
  const auto after = cuda::counters();
  const double seconds = median_seconds(work);
  std::printf("{\"case\": \"%s\", \"seconds\": %.4g, \"launches\": %lld, \"simulated\": %s}\n", name.c_str(), seconds,
              static_cast<long long>(after.launches - before.launches), cuda::simulated() ? "true" : "false");
  std::fflush(stdout);
}

void memory_cases() {
  const std::int64_t n = quick ? 1 << 14 : 1 << 28;
  const double bytes = 4.0 * static_cast<double>(n);
  const Tensor a = rand({n}), b = rand({n}), out = empty({n});
  bandwidth("copy", 2 * bytes, [&] { out.copy_(a); });
  bandwidth("add", 3 * bytes, [&] { add(a, b); });
  bandwidth("exp", 2 * bytes, [&] { exp(a); });
  bandwidth("gelu", 2 * bytes, [&] { gelu(a); });
  bandwidth("scale", 2 * bytes, [&] { a * 2.0; });
  bandwidth("sum all", bytes, [&] { sum(a); });
  const std::int64_t side = quick ? 128 : 16384;
  const Tensor m = reshape(slice(a, 0, 0, side * side), {side, side});
  const double area = 4.0 * static_cast<double>(side * side);
  bandwidth("sum rows", area, [&] { sum(m, {1}); });
  bandwidth("sum columns", area, [&] { sum(m, {0}); });
  bandwidth("transpose", 2 * area, [&] { contiguous(transpose(m)); });
  bandwidth("random normal", bytes, [&] { randn({n}); });
}

void row_cases() {
  const std::int64_t rows = quick ? 32 : 32768, n = quick ? 64 : 1024;
  const Tensor x = randn({rows, n}), w = ones({n}), b = zeros({n});
  const double bytes = 4.0 * static_cast<double>(rows * n);
  bandwidth("softmax", 2 * bytes, [&] { softmax(x); });
  bandwidth("layer_norm", 2 * bytes, [&] { layer_norm(x, w, b); });
  Tensor leaf = x.clone();
  leaf.set_requires_grad();
  bandwidth("layer_norm backward", 5 * bytes, [&] { grad(sum(layer_norm(leaf)), {leaf}); });
  const std::int64_t tokens = quick ? 16 : 8192, classes = quick ? 100 : 50257;
  Tensor logits = randn({tokens, classes});
  logits.set_requires_grad();
  const Tensor target = randint({tokens}, 0, classes);
  const double size = 4.0 * static_cast<double>(tokens * classes);
  bandwidth("cross_entropy forward+backward", 3 * size,
            [&] { grad(sum(cross_entropy_rows(logits, target)), {logits}); });
  const Tensor table = randn({classes, quick ? 16 : 768});
  const Tensor ids = randint({tokens}, 0, classes);
  const double moved = 8.0 * static_cast<double>(tokens * table.size(1));
  bandwidth("embedding", moved, [&] { embedding(table, ids); });
}

void gemm_cases() {
  struct Shape3 {
    std::int64_t m, n, k;
  };
  const std::vector<Shape3> shapes =
      quick ? std::vector<Shape3>{{32, 32, 32}, {16, 64, 8}}
            : std::vector<Shape3>{{8192, 8192, 8192}, {4096, 4096, 4096}, {8192, 768, 3072},
                                  {8192, 3072, 768},  {64, 256, 784},     {10, 100, 784}};
  for (const bool tf32 : {false, true}) {
    cuda::allow_tf32(tf32);
    peak_flops = 0;
    for (const Shape3 s : shapes) {
      const Tensor a = randn({s.m, s.k}), w = randn({s.n, s.k}), bias = randn({s.n});
      const std::string size = std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k);
      const double operations = 2.0 * static_cast<double>(s.m * s.n) * static_cast<double>(s.k);
      flops("linear " + size + (tf32 ? " tf32" : " f32"), operations, [&] { linear(a, w, bias, Activation::relu); });
    }
  }
  cuda::allow_tf32(false);
}

/// Case 1 of docs/performance.md: MLP 784-100-100-10, batch 10, SGD; eager and recorded.
void small_step() {
  nn::Mlp model({784, 100, 100, 10});
  optim::Sgd optimizer(model.parameters(), {.lr = 0.01});
  const Tensor x = rand({10, 784}), y = randint({10}, 0, 10);
  const auto step = [&] {
    optimizer.zero_grad();
    nn::cross_entropy(model(x), y).backward();
    optimizer.step();
  };
  step();
  steps("mlp step eager", step);
  cuda::Graph graph = cuda::capture(step);
  steps("mlp step recorded", [&] { graph.replay(); });
}

void optimizer_cases() {
  const std::int64_t count = quick ? 1 << 12 : 124'439'808, block = quick ? 64 : 4096;
  struct Weights : nn::Module {
    explicit Weights(std::int64_t n) : w(this, "w", zeros({n})) {}
    nn::Parameter w;
  };
  Weights model(count);
  optim::AdamW optimizer(model.parameters(), {.lr = 1e-4});
  model.w.value().set_grad(randn({count}));
  const double bytes = 7.0 * 4.0 * static_cast<double>(count);
  bandwidth("adamw", bytes, [&] { optimizer.step(); });
  std::vector<bool> chosen;
  for (std::int64_t i = 0; i * block < count; ++i) chosen.push_back(i % 10 == 0);
  optimizer.set_mask("w", optim::Mask::blocks({count}, block, chosen));
  bandwidth("adamw masked", bytes / 10, [&] { optimizer.step(); });
}

/// Squared gradients of 784-400-400-10 on a batch of 256: exact over ten labels, and empirical.
void fisher_cases() {
  nn::Mlp model({784, 400, 400, 10});
  const std::int64_t batch = quick ? 8 : 256;
  const Tensor x = rand({batch, 784}), y = randint({batch}, 0, 10);
  std::vector<Tensor> parameters;
  for (nn::Parameter* p : model.parameters()) parameters.push_back(p->value());
  steps("fisher empirical", [&] { squared_gradients(cross_entropy_rows(model(x), y), parameters); });
  steps("fisher exact", [&] {
    const Tensor logits = model(x);
    squared_gradients(logits, continual::exact_fisher_seeds(logits), parameters);
  });
}

}  // namespace

int main(int count, char** words) {
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(words[i], "--quick") == 0) quick = true;
    else wanted.insert(words[i]);
  }
  try {
    set_default_device(Device::cuda());
    std::cerr << cuda::device_name() << (cuda::simulated() ? " (simulated: these are no measurements)" : "") << '\n';
    memory_cases();
    row_cases();
    gemm_cases();
    small_step();
    optimizer_cases();
    fisher_cases();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
