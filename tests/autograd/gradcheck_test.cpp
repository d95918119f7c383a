// Every differentiable operation against finite differences: f64, full Jacobian, <= 1e-8, first and second
// order, over shapes (scalar, zero-size, size-1 axes, odd lengths, longer than a block) and layouts.
#include <functional>
#include <iostream>
#include <map>
#include <set>

#include <stet/autograd/gradcheck.h>

#include "support/catch.h"
#include "support/samples.h"

using namespace stet;
using test::Layout;
using test::spread;
using test::spread_off;

namespace {

int executed = 0;
std::map<std::string, int> per_operation;

void verify(const std::string& op, const std::string& detail, const TensorFunction& f,
            const std::vector<Tensor>& inputs, bool second_order = true, double tolerance = 1e-8) {
  const auto result = gradcheck(f, inputs, {.tolerance = tolerance, .second_order = second_order, .name = op});
  INFO(op << ' ' << detail << '\n' << result.message);
  CHECK(result.ok);
  executed += second_order ? 2 : 1;
  per_operation[op] += 1;
}

const std::vector<Shape> kShapes{{}, {0, 3}, {1}, {3}, {2, 3}, {1, 4}, {5, 1}, {17}, {2, 3, 2}};

struct Domain {
  double low, high, kink_step = 0, gap = 0;
  Tensor draw(const Shape& shape, int seed) const {
    return kink_step > 0 ? spread_off(shape, low, high, seed, kink_step, gap) : spread(shape, low, high, seed);
  }
};

Domain domain_of(std::string_view op) {
  if (op == "log" || op == "sqrt" || op == "rsqrt" || op == "reciprocal") return {0.5, 2.5};
  if (op == "log1p") return {-0.4, 2};
  if (op == "abs" || op == "sign" || op == "relu") return {-2, 2, 2, 0.1};
  if (op == "floor") return {-3, 3, 1, 0.1};
  return {-1.5, 1.5};
}

using UnaryFunction = Tensor (*)(const Tensor&);
const std::map<std::string_view, UnaryFunction> kUnary{{"neg", neg},
                                                       {"abs", abs},
                                                       {"sign", sign},
                                                       {"exp", exp},
                                                       {"expm1", expm1},
                                                       {"log", log},
                                                       {"log1p", log1p},
                                                       {"sqrt", sqrt},
                                                       {"rsqrt", rsqrt},
                                                       {"square", square},
                                                       {"sin", sin},
                                                       {"cos", cos},
                                                       {"reciprocal", reciprocal},
                                                       {"tanh", tanh},
                                                       {"sigmoid", sigmoid},
                                                       {"relu", relu},
                                                       {"gelu", gelu},
                                                       {"gelu_tanh", gelu_tanh},
                                                       {"silu", silu},
                                                       {"softplus", softplus},
                                                       {"erf", erf},
                                                       {"floor", floor}};

using BinaryFunction = Tensor (*)(const Tensor&, const Tensor&);
const std::map<std::string_view, BinaryFunction> kBinary{{"add", add},
                                                         {"sub", sub},
                                                         {"mul", mul},
                                                         {"div", div},
                                                         {"pow", static_cast<BinaryFunction>(pow)},
                                                         {"maximum", maximum},
                                                         {"minimum", minimum},
                                                         {"relu_grad", relu_grad},
                                                         {"gelu_grad", gelu_grad},
                                                         {"gelu_tanh_grad", gelu_tanh_grad},
                                                         {"silu_grad", silu_grad}};

}  // namespace

TEST_CASE("gradcheck: unary operations", "[gradcheck]") {
  UnaryOps::for_each([]<class Op>() {
    REQUIRE(kUnary.contains(Op::name));  // a listed operation without a function here is a gap in the test
    const UnaryFunction f = kUnary.at(Op::name);
    int seed = 0;
    for (const Shape& shape : kShapes)
      for (Layout layout : test::kLayouts) {
        if (shape.size() == 0 && layout != Layout::contiguous) continue;
        verify(std::string(Op::name), test::name_of(layout), [f](const auto& x) { return f(x[0]); },
               {test::in_layout(domain_of(Op::name).draw(shape, ++seed), layout)});
      }
  });
}

TEST_CASE("gradcheck: binary operations and broadcasting", "[gradcheck]") {
  const std::vector<std::pair<Shape, Shape>> pairs{
      {{}, {}},         {{3}, {}},     {{}, {2, 2}},  {{2, 3}, {2, 3}},       {{2, 3}, {3}},
      {{2, 1}, {1, 3}}, {{4}, {3, 1}}, {{0, 2}, {2}}, {{2, 3, 2}, {2, 1, 2}}, {{1}, {5}}};
  BinaryOps::for_each([&]<class Op>() {
    REQUIRE(kBinary.contains(Op::name));
    const BinaryFunction f = kBinary.at(Op::name);
    const bool kinky = Op::name == "maximum" || Op::name == "minimum" || Op::name == "relu_grad";
    int seed = 0;
    for (const auto& [a, b] : pairs)
      for (Layout layout : test::kLayouts) {
        // a near odd multiples of 0.1, b near even ones: never equal; relu_grad's y stays clear of 0
        const Tensor x = kinky ? spread_off(a, -1, 1, ++seed, 0.2, 0.07) : spread(a, 0.6, 2, ++seed);
        const Tensor y = Op::name == "relu_grad" ? spread_off(b, -1, 1, seed + 50, 1, 0.1)
                         : kinky                 ? spread_off(b, -1, 1, seed + 50, 0.2, 0.09) + 0.1
                                                 : spread(b, 0.7, 1.9, seed + 50);
        verify(
            std::string(Op::name), test::name_of(layout), [f](const auto& v) { return f(v[0], v[1]); },
            {test::in_layout(x, layout), test::in_layout(y, layout)}, Op::name != "relu_grad");
      }
  });
}

TEST_CASE("gradcheck: one operand used twice, and operands expanded inside", "[gradcheck]") {
  for (const auto& [name, f] : kBinary) {
    if (name == "maximum" || name == "minimum") continue;
    const BinaryFunction op = f;
    verify(
        "twice " + std::string(name), "", [op](const auto& v) { return op(v[0], v[0]); }, {spread({2, 3}, 0.6, 2, 3)},
        name != "relu_grad");
    verify(
        "expanded " + std::string(name), "",
        [op](const auto& v) {
          return op(expand(v[0], {3, 2, 2}), expand(v[1], {3, 2, 2}));
        },
        {spread({2, 1}, 0.6, 2, 4), spread({3, 1, 2}, 0.6, 2, 5)}, name != "relu_grad");
  }
}

TEST_CASE("gradcheck: selection and conversion", "[gradcheck]") {
  const Tensor c = tensor<bool>({{true, false, true}, {false, false, true}});
  for (Layout layout : test::kLayouts) {
    verify("where", "", [&](const auto& v) { return where(c, v[0], v[1]); },
           {test::in_layout(spread({2, 3}, -1, 1, 1), layout), test::in_layout(spread({3}, -1, 1, 2), layout)});
    verify("clamp", "", [](const auto& v) { return clamp(v[0], -0.5, 0.5); },
           {test::in_layout(spread_off({3, 5}, -1, 1, 3, 0.5, 0.05), layout)});
    verify("cast", "", [](const auto& v) { return cast(cast(v[0], DType::f64), DType::f64) * v[0]; },
           {test::in_layout(spread({2, 3}, -1, 1, 4), layout)});
    for (double p : {0.5, 1.0, 2.0, 3.0, -1.0})
      verify("pow number", std::to_string(p), [p](const auto& v) { return pow(v[0], p); },
             {test::in_layout(spread({2, 3}, 0.5, 2, 5), layout)});
  }
}

TEST_CASE("gradcheck: reductions", "[gradcheck]") {
  const std::vector<std::pair<std::string, std::function<Tensor(const Tensor&, const Axes&, bool)>>> reductions{
      {"sum", [](const Tensor& x, const Axes& a, bool k) { return sum(x, a, k); }},
      {"mean", [](const Tensor& x, const Axes& a, bool k) { return mean(x, a, k); }},
      {"prod", [](const Tensor& x, const Axes& a, bool k) { return prod(x, a, k); }},
      {"max", [](const Tensor& x, const Axes& a, bool k) { return max(x, a, k); }},
      {"min", [](const Tensor& x, const Axes& a, bool k) { return min(x, a, k); }},
      {"var", [](const Tensor& x, const Axes& a, bool k) { return var(x, a, k, 0); }}};
  const std::vector<std::pair<Shape, std::vector<Axes>>> cases{{{5}, {{}, {0}}},
                                                               {{2, 3}, {{}, {0}, {1}, {0, 1}}},
                                                               {{2, 3, 2}, {{1}, {0, 2}, {-1}}},
                                                               {{3, 1}, {{1}, {0}}},
                                                               {{}, {{}}}};
  for (const auto& [name, f] : reductions)
    for (const auto& [shape, axes_list] : cases)
      for (const Axes& axes : axes_list)
        for (bool keepdim : {false, true})
          for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided})
            verify(name, test::name_of(layout), [&, f = f](const auto& v) { return f(v[0], axes, keepdim); },
                   {test::in_layout(spread(shape, 0.5, 2, 7), layout)});
  // Longer than a leaf of the summation tree, and more columns and rows than a block.
  verify(
      "sum", "long", [](const auto& v) { return sum(square(v[0])); }, {spread({1100}, -1, 1, 8)}, false);
  verify(
      "sum", "columns", [](const auto& v) { return sum(square(v[0]), {0}); }, {spread({3, 70}, -1, 1, 9)}, false);
  verify(
      "sum", "rows", [](const auto& v) { return sum(square(v[0]), {0}); }, {spread({150, 2}, -1, 1, 9)}, false);
  // One zero and two zeros in a product.
  const Tensor zeros_in =
      test::written<double>(spread({3, 3}, 0.5, 2, 10), [](double* at) { at[1] = at[6] = at[8] = 0; });
  verify("prod", "zeros", [](const auto& v) { return prod(v[0], {1}); }, {zeros_in});
  verify("prod", "zeros of columns", [](const auto& v) { return prod(v[0], {0}); }, {zeros_in});
  verify("prod", "zeros of all", [](const auto& v) { return prod(reshape(v[0], {1, 9})); }, {zeros_in});
}

TEST_CASE("gradcheck: softmax, running sums, sorting", "[gradcheck]") {
  for (const Shape& shape : {Shape{5}, Shape{2, 3}, Shape{3, 1}, Shape{2, 3, 4}, Shape{0, 3}, Shape{2, 70}})
    for (std::int64_t axis = 0; axis < shape.size(); ++axis)
      for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided}) {
        const bool large = count_elements("t", shape) > 100;
        const std::vector<Tensor> in{test::in_layout(spread(shape, -2, 2, 11), layout)};
        verify(
            "softmax", "", [&](const auto& v) { return softmax(v[0], axis); }, in, !large);
        verify(
            "log_softmax", "", [&](const auto& v) { return log_softmax(v[0], axis); }, in, !large);
        verify(
            "cumsum", "", [&](const auto& v) { return cumsum(v[0], axis); }, in, !large);
        verify(
            "sort", "", [&](const auto& v) { return sort(v[0], axis, axis % 2 == 0).values; }, in, false);
        if (shape[static_cast<int>(axis)] == 0 || large) continue;
        for (bool keepdim : {false, true})
          verify(
              "logsumexp", "", [&](const auto& v) { return logsumexp(v[0], axis, keepdim); }, in);
        verify(
            "topk", "", [&](const auto& v) { return topk(v[0], 1, axis, axis % 2 == 0).values; }, in);
      }
}

TEST_CASE("gradcheck: products", "[gradcheck]") {
  const std::vector<std::pair<Shape, Shape>> pairs{
      {{2, 3}, {3, 4}}, {{3}, {3}},          {{3}, {3, 2}},          {{2, 3}, {3}},       {{1, 3}, {3, 1}},
      {{0, 3}, {3, 2}}, {{2, 2, 3}, {3, 2}}, {{2, 2, 3}, {2, 3, 2}}, {{2, 3}, {2, 3, 2}}, {{2, 1, 2, 2}, {3, 2, 2}}};
  for (const auto& [a, b] : pairs)
    for (Layout layout : test::kLayouts)
      verify("matmul", test::name_of(layout), [](const auto& v) { return matmul(v[0], v[1]); },
             {test::in_layout(spread(a, -1, 1, 12), layout), test::in_layout(spread(b, -1, 1, 13), layout)});
  for (Activation act : {Activation::none, Activation::relu, Activation::tanh, Activation::sigmoid, Activation::gelu})
    for (const Shape& x : {Shape{3}, Shape{2, 3}, Shape{2, 2, 3}, Shape{0, 3}})
      for (Layout layout : {Layout::contiguous, Layout::transposed})
        for (bool biased : {true, false}) {
          std::vector<Tensor> in{test::in_layout(spread(x, -1, 1, 14), layout),
                                 test::in_layout(spread({4, 3}, -1, 1, 15), layout)};
          if (biased) in.push_back(spread({4}, 0.3, 0.5, 16));
          verify(
              "linear", "", [&](const auto& v) { return linear(v[0], v[1], biased ? v[2] : Tensor(), act); }, in);
        }
}

TEST_CASE("gradcheck: fused rows", "[gradcheck]") {
  for (const Shape& shape : {Shape{6}, Shape{2, 5}, Shape{2, 2, 3}, Shape{1, 33}})
    for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided}) {
      const std::int64_t n = shape.back();
      const std::vector<Tensor> in{test::in_layout(spread(shape, -1, 1, 17), layout), spread({n}, 0.5, 1.5, 18),
                                   spread({n}, -0.5, 0.5, 19)};
      verify(
          "layer_norm", "affine", [](const auto& v) { return layer_norm(v[0], v[1], v[2], 0.1); }, in, n < 20);
      verify(
          "layer_norm", "plain", [](const auto& v) { return layer_norm(v[0], {}, {}, 0.1); }, {in[0]}, n < 20);
    }
  for (const Shape& shape : {Shape{2, 5}, Shape{3, 1, 4}})
    for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided}) {
      const std::vector<Tensor> in{test::in_layout(spread(shape, -1, 1, 17), layout),
                                   spread({shape.back()}, 0.5, 1.5, 18)};
      verify(
          "rms_norm", "weighted", [](const auto& v) { return rms_norm(v[0], v[1], 0.1); }, in);
      verify("rms_norm", "plain", [](const auto& v) { return rms_norm(v[0], {}, 0.1); }, {in[0]});
    }
  const Tensor target = tensor<std::int64_t>({2, 0, -100, 1});
  for (double smoothing : {0.0, 0.1, 1.0})
    for (bool weighted : {false, true})
      for (Layout layout : {Layout::contiguous, Layout::transposed, Layout::strided}) {
        CrossEntropyOptions options{.label_smoothing = smoothing};
        if (weighted) options.weight = tensor(std::vector<double>{0.5, 1.0, 2.0});
        verify("cross_entropy", "", [&](const auto& v) { return cross_entropy_rows(v[0], target, options); },
               {test::in_layout(spread({4, 3}, -2, 2, 20), layout)});
      }
}

TEST_CASE("gradcheck: views", "[gradcheck]") {
  for (Layout layout : test::kLayouts) {
    const Tensor x = test::in_layout(spread({2, 3, 4}, -1, 1, 21), layout);
    const std::vector<std::pair<std::string, std::function<Tensor(const Tensor&)>>> views{
        {"reshape",
         [](const Tensor& t) {
           return reshape(t, {4, -1});
         }},
        {"flatten", [](const Tensor& t) { return flatten(t, 1); }},
        {"transpose", [](const Tensor& t) { return transpose(t, 0, 2); }},
        {"permute",
         [](const Tensor& t) {
           return permute(t, {2, 0, 1});
         }},
        {"slice", [](const Tensor& t) { return slice(t, 1, 1, 3); }},
        {"slice step", [](const Tensor& t) { return slice(t, 2, 1, 4, 2); }},
        {"slice empty", [](const Tensor& t) { return slice(t, 2, 2, 2); }},
        {"select", [](const Tensor& t) { return select(t, 1, -1); }},
        {"unsqueeze", [](const Tensor& t) { return unsqueeze(t, 1); }},
        {"squeeze", [](const Tensor& t) { return squeeze(slice(t, 0, 1, 2), 0); }},
        {"expand",
         [](const Tensor& t) {
           return expand(slice(t, 1, 0, 1), {2, 3, 4});
         }},
        {"contiguous", [](const Tensor& t) { return contiguous(transpose(t)); }},
        {"sum_to", [](const Tensor& t) {
           return sum_to(t, {3, 1});
         }}};
    for (const auto& [name, f] : views) {
      verify(
          name, test::name_of(layout), [f = f](const auto& v) { return f(v[0]); }, {x}, false);
      verify(name, "squared", [f = f](const auto& v) { return square(f(v[0])) * 0.5; }, {x});
    }
    for (std::int64_t axis : {0, 1, -1}) {
      verify("cat", "",
             [=](const auto& v) {
               return square(cat({v[0], v[1], v[0], v[1], v[0]}, axis));
             },
             {slice(x, 1, 0, 2), slice(x, 1, 0, 2) * 0.5});
      verify("stack", "",
             [=](const auto& v) {
               return square(stack({v[0], v[1]}, axis));
             },
             {select(x, 0, 0), select(x, 0, 1)});
      verify("split", "", [=](const auto& v) { return square(split(v[0], 2, axis).back()); }, {x});
    }
  }
}

TEST_CASE("gradcheck: by index", "[gradcheck]") {
  const Tensor index = tensor<std::int64_t>({2, 0, 2, 1});
  for (Layout layout : test::kLayouts) {
    const Tensor x = test::in_layout(spread({3, 4}, -1, 1, 22), layout);
    verify("index_select", "", [&](const auto& v) { return square(index_select(v[0], 0, index)); }, {x});
    verify("index_select", "", [&](const auto& v) { return square(index_select(v[0], 1, index)); }, {x});
    verify("index_add", "", [&](const auto& v) { return square(index_add(v[0], 1, index, 5)); }, {x});
    const Tensor at = tensor<std::int64_t>({{0, 2, 1, 1}, {2, 2, 0, 1}});
    verify("gather", "", [&](const auto& v) { return square(gather(v[0], 0, at)); }, {x});
    verify("scatter_add", "", [&](const auto& v) { return square(scatter_add(v[0], 0, at, v[1])); },
           {x, test::in_layout(spread({2, 4}, -1, 1, 23), layout)});
    verify("embedding", "", [&](const auto& v) { return square(embedding(v[0], at)); }, {x});
  }
}

TEST_CASE("gradcheck: at least 1,500 samples ran", "[gradcheck][count]") {
  INFO("samples of first and second order: " << executed << ", operations: " << per_operation.size());
  // Catch runs the cases of this file in order; when only some of them ran, there is nothing to count.
  if (per_operation.contains("embedding") && per_operation.contains("neg")) CHECK(executed >= 1500);
  std::cout << "gradcheck samples: " << executed << " over " << per_operation.size() << " operations\n";
}

TEST_CASE("gradcheck finds a wrong derivative, a missing one and a NaN", "[gradcheck]") {
  const auto detach_part = [](const auto& v) { return v[0] * v[0].detach(); };  // half the derivative
  const auto wrong = gradcheck(detach_part, {spread({3}, 1, 2, 1)}, {.name = "half"});
  CHECK_FALSE(wrong.ok);
  CHECK(wrong.message.find("half: input 0 (3,) at") != std::string::npos);
  CHECK(wrong.message.find("got") != std::string::npos);
  const auto missing = gradcheck([](const auto& v) { return v[0].detach() * 2.0; }, {spread({3}, 1, 2, 1)});
  CHECK_FALSE(missing.ok);
  const auto nan = gradcheck([](const auto& v) { return sqrt(v[0]); }, {full({1}, -1, DType::f64)});
  CHECK_FALSE(nan.ok);
}
