// Every layer, loss and pointwise function against PyTorch: values and all gradients, in f32, to 1e-6 of the
// largest reference value in each tensor. The references are computed in f64 from the same f32 inputs.
#include <functional>
#include <iostream>

#include <stet/nn/layers.h>
#include <stet/nn/losses.h>

#include "support/catch.h"
#include "support/goldens.h"

using namespace stet;
using test::GoldenCase;

namespace {

constexpr double kBound = 1e-6;

/// What a case computed: its output, and the leaves whose gradients it compares.
struct Computed {
  Tensor out;
  std::map<std::string, Tensor> leaves;
};

Tensor leaf(const GoldenCase& c, const std::string& name) {
  const Tensor value = c.find("in." + name);
  if (value.defined() && c.has("grad." + name)) value.set_requires_grad();
  return value;
}

Computed of_function(const GoldenCase& c, const std::function<Tensor(const Tensor&)>& function) {
  const Tensor x = leaf(c, "x");
  return {function(x), {{"x", x}}};
}

template <class Model>
Computed of_module(const GoldenCase& c, Model& model, const std::function<Tensor(const Tensor&)>& call) {
  Computed result;
  for (nn::Parameter* p : model.parameters()) {
    p->set(c.at("in." + p->path()));
    result.leaves[p->path()] = p->value();
  }
  const Tensor x = leaf(c, "x");
  if (x.defined()) result.leaves["x"] = x;
  result.out = call(x);
  return result;
}

Computed linear_case(const GoldenCase& c) {
  const Shape& shape = c.at("in.weight").shape();
  nn::Linear layer(shape[1], shape[0], {.bias = c.has("in.bias")});
  const auto activation = static_cast<Activation>(c.option(0));
  return of_module(c, layer, [&](const Tensor& x) { return layer(x, activation); });
}

Computed layer_norm_case(const GoldenCase& c) {
  nn::LayerNorm layer(c.at("in.x").shape().back(), {.eps = c.option(0), .affine = c.has("in.weight")});
  return of_module(c, layer, [&](const Tensor& x) { return layer(x); });
}

Computed embedding_case(const GoldenCase& c) {
  const Shape& shape = c.at("in.weight").shape();
  nn::Embedding layer(shape[0], shape[1]);
  return of_module(c, layer, [&](const Tensor&) { return layer(c.at("index.index")); });
}

Computed mlp_case(const GoldenCase& c) {
  std::vector<std::int64_t> sizes{c.at("in.x").size(-1)};
  for (int i = 1; c.has("in.fc" + std::to_string(i) + ".bias"); ++i)
    sizes.push_back(c.at("in.fc" + std::to_string(i) + ".bias").size(0));
  nn::Mlp model(sizes, {.activation = static_cast<Activation>(c.option(0))});
  return of_module(c, model, [&](const Tensor& x) { return model(x); });
}

nn::Reduction reduction(double number) { return static_cast<nn::Reduction>(number); }

Computed loss_case(const GoldenCase& c) {
  if (c.operation == "cross_entropy") {
    const Tensor logits = leaf(c, "logits");
    return {nn::cross_entropy(logits, c.at("index.target"),
                              {.weight = c.find("in.weight"),
                               .label_smoothing = c.option(0),
                               .ignore_index = static_cast<std::int64_t>(c.option(1)),
                               .reduction = reduction(c.option(2))}),
            {{"logits", logits}}};
  }
  const std::string first = c.operation == "bce_with_logits" ? "logits"
                            : c.operation == "kl_div"        ? "log_input"
                                                             : "input";
  const Tensor x = leaf(c, first), t = leaf(c, "target");
  const std::map<std::string, Tensor> leaves{{first, x}, {"target", t}};
  if (c.operation == "mse") return {nn::mse(x, t, reduction(c.option(0))), leaves};
  if (c.operation == "huber") return {nn::huber(x, t, {c.option(0), reduction(c.option(1))}), leaves};
  if (c.operation == "bce_with_logits")
    return {nn::bce_with_logits(x, t, {c.find("in.pos_weight"), reduction(c.option(0))}), leaves};
  return {nn::kl_div(x, t, {c.option(0) != 0, reduction(c.option(1))}), leaves};
}

using Function = Tensor (*)(const Tensor&);
const std::map<std::string, Function> kFunctions{{"relu", relu},
                                                 {"gelu", gelu},
                                                 {"gelu_tanh", gelu_tanh},
                                                 {"silu", silu},
                                                 {"softplus", softplus},
                                                 {"tanh", tanh},
                                                 {"sigmoid", sigmoid},
                                                 {"erf", erf},
                                                 {"exp", exp},
                                                 {"expm1", expm1},
                                                 {"sin", sin},
                                                 {"cos", cos},
                                                 {"square", square},
                                                 {"abs", abs},
                                                 {"log", log},
                                                 {"log1p", log1p},
                                                 {"sqrt", sqrt},
                                                 {"rsqrt", rsqrt},
                                                 {"reciprocal", reciprocal}};

Computed layer_case(const GoldenCase& c) {
  if (c.operation == "linear") return linear_case(c);
  if (c.operation == "layer_norm") return layer_norm_case(c);
  if (c.operation == "embedding") return embedding_case(c);
  if (c.operation == "mlp") return mlp_case(c);
  const auto axis = c.at("options").numel() ? static_cast<std::int64_t>(c.option(0)) : 0;
  if (c.operation == "softmax") return of_function(c, [&](const Tensor& x) { return softmax(x, axis); });
  if (c.operation == "log_softmax") return of_function(c, [&](const Tensor& x) { return log_softmax(x, axis); });
  if (c.operation == "logsumexp") return of_function(c, [&](const Tensor& x) { return logsumexp(x, axis); });
  return of_function(c, kFunctions.at(c.operation));
}

/// Compares every stored row of every case and returns how many there were.
int compare(const std::string& file, const std::function<Computed(const GoldenCase&)>& compute) {
  int rows = 0;
  double worst = 0;
  std::string worst_row;
  const auto row = [&](const std::string& name, const Tensor& value, const Tensor& reference) {
    const double error = test::golden_error(value, reference);
    INFO(name << " " << reference.shape() << ": " << error);
    CHECK(error <= kBound);
    if (!(error <= worst)) {
      worst = error;
      worst_row = name;
    }
    ++rows;
  };
  for (const GoldenCase& c : test::golden_cases(file)) {
    const Computed computed = compute(c);
    row(c.name + "/out", computed.out, c.at("out"));
    computed.out.backward(c.at("seed"));
    for (const auto& [key, reference] : c.tensors) {
      if (!key.starts_with("grad.")) continue;
      INFO(c.name << "/" << key);
      REQUIRE(computed.leaves.contains(key.substr(5)));
      row(c.name + "/" + key, computed.leaves.at(key.substr(5)).grad(), reference);
    }
  }
  std::cout << file << ": " << rows << " rows against PyTorch, worst " << worst << " (" << worst_row << ")\n";
  return rows;
}

}  // namespace

TEST_CASE("Layers and functions equal PyTorch's") { CHECK(compare("layers.safetensors", layer_case) == 323); }

TEST_CASE("Losses equal PyTorch's") { CHECK(compare("losses.safetensors", loss_case) == 316); }

TEST_CASE("A golden comparison notices what it is for") {
  const Tensor a = tensor({1.0f, 2.0f}), b = tensor({1.0f, 2.00001f});
  CHECK(test::golden_error(a, a) == 0);
  CHECK_FALSE(test::golden_error(a, b) <= kBound);
  CHECK_FALSE(test::golden_error(tensor({1.0f, NAN}), a) <= kBound);
  CHECK_FALSE(test::golden_error(a, tensor({1.0, 2.0})) <= kBound);
  CHECK_FALSE(test::golden_error(reshape(a, {1, 2}), a) <= kBound);
  CHECK_FALSE(test::golden_error(Tensor(), a) <= kBound);
}
