// The stet side of the benchmark cases. compare.py starts this program with a case, a weight file and a
// number of threads, then asks for losses or timings line by line, so that both sides alternate within one
// run.
#include <charconv>
#include <chrono>
#include <cmath>
#include <iostream>
#include <string_view>

#include "case.h"

using namespace stet;
using bench::Case;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Classifier : nn::Module {
  Classifier(std::int64_t in, std::int64_t h1, std::int64_t h2, std::int64_t out)
      : fc1(this, "fc1", in, h1), fc2(this, "fc2", h1, h2), fc3(this, "fc3", h2, out) {}
  Tensor operator()(const Tensor& x) { return fc3(fc2(fc1(x, Activation::relu), Activation::relu)); }
  nn::Linear fc1, fc2, fc3;
};

struct Data {
  Tensor x, y;
  std::int64_t batches;
  explicit Data(const nn::State& file) : x(file.at("x")), y(file.at("y")), batches(x.shape()[0]) {}
  Tensor inputs(std::int64_t i) const { return select(x, 0, i % batches); }
  Tensor labels(std::int64_t i) const { return select(y, 0, i % batches); }
};

std::unique_ptr<Classifier> classifier(const nn::State& file) {
  const auto size = [&](const char* name, int axis) { return file.at(name).shape()[axis]; };
  auto model = std::make_unique<Classifier>(size("fc1.weight", 1), size("fc1.weight", 0), size("fc2.weight", 0),
                                            size("fc3.weight", 0));
  nn::State weights;
  for (const auto& [name, value] : file)
    if (name.rfind("fc", 0) == 0) weights[name] = value;
  model->load(weights);
  return model;
}

/// Cases 1, 2, 3 and 6: training steps of a perceptron.
template <class Optimizer, class Options> Case training(const nn::State& file, Options options, double ewc_lambda = 0) {
  auto model = std::shared_ptr<Classifier>(classifier(file));
  auto optimizer = std::make_shared<Optimizer>(model->parameters(), options);
  auto data = std::make_shared<Data>(file);
  if (ewc_lambda > 0) {
    optim::QuadraticPenalty penalty{ewc_lambda, {}, {}};
    for (const nn::Parameter* p : model->parameters()) {
      penalty.importance[p->path()] = file.at("importance/" + p->path());
      penalty.anchor[p->path()] = file.at("anchor/" + p->path());
    }
    optimizer->set_penalty("ewc", penalty);
  }
  return {[=](std::int64_t i) {
    optimizer->zero_grad();
    const Tensor loss = mean(cross_entropy_rows((*model)(data->inputs(i)), data->labels(i)));
    loss.backward();
    optimizer->step();
    return loss.item();
  }};
}

/// Cases 4 and 5: the Fisher diagonal of one batch, empirical or exact over all labels.
Case fisher(const nn::State& file, bool exact) {
  auto model = std::shared_ptr<Classifier>(classifier(file));
  auto data = std::make_shared<Data>(file);
  return {[=](std::int64_t i) {
    std::vector<Tensor> parameters, sums;
    for (const nn::Parameter* p : model->parameters()) parameters.push_back(p->value());
    const Tensor logits = (*model)(data->inputs(i));
    if (exact) sums = squared_gradients(logits, continual::exact_fisher_seeds(logits), parameters);
    else sums = squared_gradients(cross_entropy_rows(logits, data->labels(i)), parameters);
    const NoGrad no_grad;
    double total = 0;
    for (const Tensor& s : sums) total += sum(s).item();
    return total;
  }};
}

/// Case 7: Adam over 32 M parameters, a tenth of the blocks of 4,096 may change.
Case masked_adam(const nn::State& file) {
  const std::int64_t n = file.at("count").numel() ? static_cast<std::int64_t>(file.at("count").item()) : 0;
  auto model = std::make_shared<nn::Module>();
  auto weight = std::make_shared<nn::Parameter>(model.get(), "w", zeros({n}));
  auto optimizer = std::make_shared<optim::Adam>(std::vector<nn::Parameter*>{weight.get()}, optim::AdamOptions{});
  std::vector<bool> chosen;
  for (double flag : file.at("blocks").to_vector<double>()) chosen.push_back(flag != 0);
  optimizer->set_mask("w", optim::Mask::blocks({n}, 4096, chosen));
  weight->value().set_grad(full({n}, 0.01));
  return {[=](std::int64_t) {
    (void)model;  // both are kept by capture
    (void)weight;
    optimizer->step();
    return 0.0;
  }};
}

/// Case 8: one multiplication of one-element tensors, forward and backward.
Case overhead() {
  const Tensor x = scalar(1.5).set_requires_grad();
  return {[=](std::int64_t) {
    x.set_grad(Tensor());
    (x * x).backward();
    return 0.0;
  }};
}

Case make_case(const std::string& name, const nn::State& file) {
  if (name == "1") return training<optim::Sgd>(file, optim::SgdOptions{.lr = 0.01});
  if (name == "2") return training<optim::Adam>(file, optim::AdamOptions{});
  if (name == "3") return training<optim::Adam>(file, optim::AdamOptions{.lr = 3e-4});
  if (name == "4") return fisher(file, false);
  if (name == "5") return fisher(file, true);
  if (name == "6") return training<optim::Adam>(file, optim::AdamOptions{}, 100);
  if (name == "7") return masked_adam(file);
  if (name == "8") return overhead();
  if (name.starts_with("10")) return bench::minilm_case(name, file);
  return bench::transformer_case(name, file);
}

void serve(const Case& work) {
  std::string command;
  std::int64_t count = 0, at = 0;
  while (std::cin >> command >> count) {
    check(count > 0, "cases", command, ' ', count, ": expected a count above 0");
    if (command == "losses") {
      std::cout.precision(9);
      for (std::int64_t i = 0; i < count; ++i) std::cout << (work.compare ? work.compare : work.step)(at++) << ' ';
      std::cout << std::endl;
    } else if (command == "time") {
      const double start = seconds();
      for (std::int64_t i = 0; i < count; ++i) work.step(at++);
      std::cout.precision(9);
      std::cout << (seconds() - start) / static_cast<double>(count) << std::endl;
    } else {
      fail("cases", "command '", command, "': expected losses or time");
    }
    command.clear();
  }
  check(command.empty(), "cases", "command '", command, "': expected a count behind it");
}

int thread_count(std::string_view text) {
  int count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  check(whole, "cases", "THREADS '", text, "': expected a whole number");
  return count;
}

}  // namespace

int main(int argc, char** argv) try {
  check(argc == 4, "cases", "usage: cases CASE|limits WEIGHTS.safetensors THREADS");
  set_threads(thread_count(argv[3]));
  if (std::string(argv[1]) == "limits") {
    bench::print_limits();
    return 0;
  }
  serve(make_case(argv[1], nn::load_safetensors(argv[2])));
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
