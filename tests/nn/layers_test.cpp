// Layers and initialisers: shapes, defaults, seeds by path, dropout's stream. Their numbers:
// nn_golden_test.cpp.
#include <stet/nn/init.h>
#include <stet/nn/layers.h>

#include <numeric>

#include "support/catch.h"
#include "support/message.h"

using namespace stet;
using Catch::Matchers::Contains;
using test::message_of;

namespace {

double largest(const Tensor& x) { return max(abs(x)).item(); }
double deviation(const Tensor& x) { return sqrt(var(x)).item(); }

struct Pair : nn::Module {
  nn::Linear one{this, "one", 8, 8}, two{this, "two", 8, 8};
};
struct Triple : nn::Module {
  nn::Linear zero{this, "zero", 8, 8}, two{this, "two", 8, 8}, one{this, "one", 8, 8};
};

/// Restores the default generator, which other tests share.
struct SeedScope {
  ~SeedScope() { default_generator() = Generator(); }
};

Tensor make(const nn::init::Initializer& initializer, const Shape& shape, Options options = {}) {
  Generator generator(7);
  return initializer(shape, generator, options);
}

}  // namespace

TEST_CASE("Linear") {
  const nn::Linear layer(20, 7), bare(20, 7, {.bias = false});
  CHECK(layer.weight.shape() == Shape{7, 20});
  CHECK(layer.bias->shape() == Shape{7});
  CHECK_FALSE(bare.bias);
  CHECK(layer.in() == 20);
  CHECK(layer.out() == 7);
  const Tensor x = randn({2, 3, 20});
  CHECK(layer(x).shape() == Shape{2, 3, 7});
  CHECK(largest(layer(x) - (matmul(x, transpose(layer.weight)) + layer.bias->value())) < 1e-5);
  CHECK(same(layer(x, Activation::relu), relu(layer(x))));
  CHECK(largest(layer(x, Activation::gelu) - gelu(layer(x))) < 1e-6);
  CHECK(largest(layer.weight) <= 1 / std::sqrt(20.0));
  CHECK(largest(layer.bias->value()) <= 1 / std::sqrt(20.0));
  CHECK_THAT(message_of([&] {
               layer(ones({2, 21}));
             }),
             Contains("[linear]") && Contains("(2, 21)") && Contains("(7, 20)"));
  CHECK_THAT(message_of([&] { nn::Linear(-1, 3); }), Contains("[Linear]") && Contains("from -1 to 3"));
}

TEST_CASE("A layer without inputs starts and runs") {
  const nn::Linear layer(0, 3);
  CHECK(same(layer(zeros({2, 0})), zeros({2, 3})));
}

TEST_CASE("A parameter's numbers depend on its path alone") {
  const Pair pair, again;
  const Triple triple;
  CHECK(same(pair.one.weight, again.one.weight));
  CHECK(same(pair.one.weight, triple.one.weight));  // another layer before it, another order
  CHECK(same(*pair.two.bias, *triple.two.bias));
  CHECK_FALSE(same(pair.one.weight, pair.two.weight));
  const nn::Linear attached_elsewhere(8, 8);
  CHECK_FALSE(same(pair.one.weight, attached_elsewhere.weight));

  const SeedScope restore;
  randn({100});  // draws from the default generator change nothing
  CHECK(same(pair.one.weight, Pair().one.weight));
  manual_seed(1);
  const Pair reseeded;
  CHECK_FALSE(same(pair.one.weight, reseeded.one.weight));
  manual_seed(1);
  CHECK(same(reseeded.one.weight, Pair().one.weight));
}

TEST_CASE("A parameter can be initialised again") {
  Pair pair;
  const Tensor before = pair.one.weight.value().clone();
  nn::init::apply(pair.one.weight, nn::init::xavier_normal());
  CHECK_FALSE(same(before, pair.one.weight));
  nn::init::apply(pair.one.weight, nn::init::linear_default(8));
  CHECK(same(before, pair.one.weight));
}

TEST_CASE("Within a Skip nothing is drawn, after an inner one either") {
  Pair pair;
  pair.one.weight.set(ones({8, 8}));
  {
    const nn::init::Skip outer;
    { const nn::init::Skip inner; }
    nn::init::apply(pair.one.weight, nn::init::zeros());
    CHECK(same(pair.one.weight, ones({8, 8})));
  }
  nn::init::apply(pair.one.weight, nn::init::zeros());
  CHECK(same(pair.one.weight, zeros({8, 8})));
}

TEST_CASE("Initialisers have their bounds and deviations") {
  using namespace nn::init;
  const Shape shape{200, 300};  // fan-in 300, fan-out 200
  const auto check_uniform = [&](const Initializer& initializer, double bound) {
    const Tensor x = make(initializer, shape);
    CHECK(largest(x) <= bound * (1 + 1e-6));
    CHECK(largest(x) > 0.999 * bound);
    CHECK(std::abs(mean(x).item()) < 0.01 * bound);
    CHECK(deviation(x) == Approx(bound / std::sqrt(3.0)).epsilon(0.01));
  };
  check_uniform(uniform(-0.3, 0.3), 0.3);
  check_uniform(linear_default(300), 1 / std::sqrt(300.0));
  check_uniform(kaiming_uniform({.nonlinearity = Nonlinearity::leaky_relu, .slope = std::sqrt(5.0)}),
                1 / std::sqrt(300.0));
  check_uniform(xavier_uniform(2), 2 * std::sqrt(6.0 / 500));
  check_uniform(kaiming_uniform(), std::sqrt(6.0 / 300));
  check_uniform(kaiming_uniform({.fan = Fan::out, .nonlinearity = Nonlinearity::linear}), std::sqrt(3.0 / 200));
  const auto check_normal = [&](const Initializer& initializer, double wanted) {
    const Tensor x = make(initializer, shape);
    CHECK(deviation(x) == Approx(wanted).epsilon(0.01));
    CHECK(std::abs(mean(x).item()) < 0.02 * wanted);
  };
  check_normal(normal(0, 0.02), 0.02);
  check_normal(xavier_normal(), std::sqrt(2.0 / 500));
  check_normal(kaiming_normal({.nonlinearity = Nonlinearity::tanh}), 5.0 / 3 / std::sqrt(300.0));
  CHECK(same(make(constant(3), {2}), full({2}, 3)));
  CHECK(make(ones(), {2}, f64).dtype() == f64);
  CHECK(gain(Nonlinearity::selu) == 0.75);
  CHECK(fans({4, 3, 5, 5}).in == 75);
  CHECK(fans({4, 3, 5, 5}).out == 100);
  CHECK_THAT(message_of([] { make(xavier_uniform(), {5}); }), Contains("got shape (5,)"));
}

TEST_CASE("The truncated normal stays inside and has its moments") {
  using nn::init::truncated_normal;
  const Tensor x = make(truncated_normal(), {100'000}, f64);
  CHECK(largest(x) <= 2);
  CHECK(largest(x) > 1.999);
  CHECK(std::abs(mean(x).item()) < 0.01);
  CHECK(deviation(x) == Approx(0.8796).epsilon(0.01));  // sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
  const Tensor tail = make(truncated_normal(0, 1, 8, 9), {1000}, f64);
  CHECK(min(tail).item() >= 8);
  CHECK(max(tail).item() <= 9);
  CHECK(mean(tail).item() == Approx(8.12).epsilon(0.005));  // phi(8) / (1 - Phi(8))
  const Tensor wide = sort(make(truncated_normal(1, 0.5, -100, 100), {100'001}, f64)).values;
  CHECK(select(wide, 0, 50'000).item() == Approx(1).margin(0.01));
  CHECK(select(wide, 0, 84'134).item() == Approx(1.5).margin(0.01));
  CHECK(make(truncated_normal(), {3}, bf16).dtype() == bf16);
  CHECK_THAT(message_of([] { truncated_normal(0, 1, 2, 2); }), Contains("low < high"));
}

TEST_CASE("Embedding") {
  const nn::Embedding table(1000, 50);
  CHECK(deviation(table.weight) == Approx(1).epsilon(0.02));
  CHECK(table(tensor<std::int64_t>({3, 999})).shape() == Shape{2, 50});
  CHECK(same(table(tensor<std::int64_t>({3})), slice(table.weight, 0, 3, 4)));
  CHECK_THAT(message_of([&] { table(tensor<std::int64_t>({1000})); }), Contains("1000"));
}

TEST_CASE("LayerNorm") {
  const nn::LayerNorm norm(16), plain(16, {.affine = false});
  CHECK(same(*norm.weight, ones({16})));
  CHECK(same(*norm.bias, zeros({16})));
  CHECK(plain.parameters().empty());
  const Tensor y = plain(randn({4, 16}) * 5.0 + 2.0);
  CHECK(largest(mean(y, {-1})) < 1e-6);
  CHECK(largest(var(y, {-1}, false, 0) - 1.0) < 1e-4);
  CHECK_THAT(message_of([&] { norm(ones({4, 15})); }), Contains("got (4, 15): the last axis must be 16"));
}

TEST_CASE("Dropout keeps a share, scales it, and rests in evaluation mode") {
  nn::Dropout drop(0.25);
  const Tensor x = ones({100'000});
  const Tensor y = drop(x);
  CHECK(sum(cast(equal(y, scalar(0)), f32)).item() == Approx(25'000).epsilon(0.03));
  CHECK(max(y).item() == Approx(1 / 0.75));
  CHECK(mean(y).item() == Approx(1).epsilon(0.01));
  x.set_requires_grad();
  const Tensor z = drop(x);
  sum(z).backward();
  CHECK(same(x.grad(), z.detach()));  // the same elements pass backward
  drop.eval();
  CHECK(drop(x).ref().get() == x.ref().get());
  CHECK(same(nn::Dropout(1.0)(ones({5})), zeros({5})));
  nn::Dropout none(0.0);
  CHECK(same(none(ones({5})), ones({5})));
  CHECK_THAT(message_of([] { nn::Dropout(1.5); }), Contains("p 1.5: expected 0 to 1"));
}

TEST_CASE("Dropout's stream is its own, advances with every call, and is saved with the model") {
  struct Two : nn::Module {
    nn::Dropout a{this, "a", 0.5}, b{this, "b", 0.5};
  };
  Two model;
  const Tensor x = ones({64});
  const nn::State start = model.state();
  const Tensor first = model.a(x), second = model.a(x);
  CHECK_FALSE(same(first, second));
  CHECK_FALSE(same(first, model.b(x)));
  Two copy;
  copy.load(model.state());
  CHECK(same(model.a(x), copy.a(x)));
  model.load(start);
  CHECK(same(first, model.a(x)));
  CHECK(same(second, model.a(x)));
  model.eval();
  const nn::State before = model.state();
  model.a(x);
  CHECK(same(before.at("a.generator"), model.state().at("a.generator")));  // evaluation draws nothing
}

TEST_CASE("Mlp") {
  const nn::Mlp model({8, 16, 16, 3}, {.activation = Activation::tanh});
  std::vector<std::string> names;
  for (const nn::Parameter* p : model.parameters()) names.push_back(p->path());
  CHECK(names ==
        std::vector<std::string>{"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"});
  CHECK(model.size() == 3);
  const Tensor x = randn({5, 8});
  const Tensor by_hand = model.layer(2)(tanh(model.layer(1)(tanh(model.layer(0)(x)))));
  CHECK(largest(model(x) - by_hand) < 1e-6);
  CHECK(nn::Mlp({4, 2}, {.bias = false}).parameters().size() == 1);
  CHECK_THAT(message_of([] { nn::Mlp(std::vector<std::int64_t>{4}); }), Contains("1 sizes"));
  nn::Module root;
  const nn::Mlp child(&root, "mlp", {4, 4});
  CHECK(root.parameters()[0]->path() == "mlp.fc1.weight");
}

TEST_CASE("Sequential owns its layers and calls them in order") {
  nn::Sequential model;
  const nn::Linear& first = model.add<nn::Linear>("first", 4, 8);
  model.add(relu);
  model.add<nn::Dropout>("drop", 0.5);
  model.add<nn::Sequential>("inner").add<nn::Linear>("last", 8, 2, nn::LinearOptions{.bias = false});
  CHECK(model.size() == 4);
  CHECK(model.count() == 4 * 8 + 8 + 16);
  CHECK(model.parameter("inner.last.weight").shape() == Shape{2, 8});
  model.eval();
  const Tensor x = randn({3, 4});
  CHECK(same(model(x), linear(relu(first(x)), model.parameter("inner.last.weight"))));
}
