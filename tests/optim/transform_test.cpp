// Gradients on their way to the update: transforms, what of theirs is refused, and additions that are put back.
#include <stet/autograd/node.h>
#include <stet/cuda/cuda.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using Model = test::TwoParameters;

namespace {

double distance(const Tensor& a, const Tensor& b) { return max(abs(a.detach() - b.detach())).item(); }

}  // namespace

TEST_CASE("Transforms see all gradients, in order, before clipping") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1});
  std::vector<std::string> seen;
  optimizer.set_transform("double", [&](std::vector<NamedGradient>& gradients) {
    for (NamedGradient& g : gradients) {
      seen.push_back("double " + g.name);
      g.gradient = g.gradient * 2.0;
    }
  });
  optimizer.set_transform("look", [&](std::vector<NamedGradient>& gradients) {
    for (const NamedGradient& g : gradients) seen.push_back("look " + g.name);
  });
  optimizer.clip_norm(10);
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  model.a.value().set_grad(zeros({4, 6}, f64));
  const Tensor gradient = tensor({3.0, 4.0, 0.0, 0.0, 0.0});
  model.b.value().set_grad(gradient);
  optimizer.step();
  CHECK(seen == std::vector<std::string>{"double a", "double b", "look a", "look b"});
  CHECK(optimizer.last_grad_norm() == Approx(10));
  CHECK(distance(b - model.b.value(), gradient * 2.0) < 1e-5);
  CHECK(same(model.b.grad(), gradient));  // the leaf's own gradient is untouched
  CHECK(same(a, model.a));
  optimizer.remove_transform("double");
  optimizer.step();
  CHECK(optimizer.last_grad_norm() == Approx(5));
  CHECK(message_of([&] { optimizer.set_transform("look", {}); }) == "[set_transform] 'look' is an empty function");
  CHECK_THAT(message_of([&] { optimizer.remove_transform("double"); }), Contains("no transform 'double'"));
  optimizer.set_transform("wrong", [](std::vector<NamedGradient>& g) { g[0].gradient = zeros({2}, f64); });
  CHECK_THAT(message_of([&] { optimizer.step(); }),
             Contains("a gradient transform gave 'a' a gradient (2,) f64, expected (4, 6) f64"));
  optimizer.set_transform("wrong", [](std::vector<NamedGradient>& g) { g[0].gradient = zeros({4, 6}, f32); });
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("a gradient (4, 6) f32, expected (4, 6) f64"));
  optimizer.set_transform("wrong", [](std::vector<NamedGradient>& g) { g[1].gradient = {}; });
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("left 'b' without a gradient"));
  Model other;
  optimizer.set_transform("wrong", [&](std::vector<NamedGradient>& g) { g.push_back({"c", &other.a, g[0].gradient}); });
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("brought 'c', which is no parameter"));
  model.freeze("b");
  const Tensor before = model.b.value().clone();
  optimizer.set_transform("wrong", [&](std::vector<NamedGradient>& g) {
    g.push_back({"b", &model.b, ones({5}, f64)});
  });
  CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("brought 'b', which is frozen"));
  CHECK(same(model.b.value(), before));
}

TEST_CASE("A transform that is set again is replaced in its place") {
  Model model;
  Sgd optimizer(model.parameters(), {});
  std::string seen;
  const auto saying = [&](const char* what) { return [&seen, what](std::vector<NamedGradient>&) { seen += what; }; };
  optimizer.set_transform("first", saying("1"));
  optimizer.set_transform("second", saying("2"));
  optimizer.set_transform("first", saying("one "));
  optimizer.step();
  CHECK(seen == "one 2");
}

TEST_CASE("Penalties and transforms are put back as they were, for parameters added since, too") {
  Model model;
  Sgd optimizer({&model.a}, {.lr = 1});
  optimizer.set_penalty("mine", {0.25, {}, {{"a", zeros({4, 6}, f64)}, {"b", zeros({5}, f64)}}});
  const Optimizer::Additions before = optimizer.additions();
  optimizer.set_penalty("mine", {1, {}, {{"a", ones({4, 6}, f64)}}});
  optimizer.set_penalty("other", {1, {}, {{"a", ones({4, 6}, f64)}}});
  optimizer.set_transform("other", [](std::vector<NamedGradient>& gradients) { gradients.clear(); });
  optimizer.add_parameters({&model.b});
  optimizer.set_additions(before);
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  for (const nn::Parameter* p : model.parameters()) p->value().set_grad(zeros(p->shape(), f64));
  optimizer.step();
  CHECK(distance(model.a.value(), a * 0.75) < 1e-15);
  CHECK(distance(model.b.value(), b * 0.75) < 1e-15);
  Optimizer::Additions wrong;
  wrong.penalties["p"] = {1, {}, {{"b", ones({2})}}};
  CHECK(message_of([&] { optimizer.set_additions(wrong); }) ==
        "[set_additions] anchor of 'b' has shape (2,), the parameter (5,)");
  CHECK(optimizer.additions().penalties.contains("mine"));
}

TEST_CASE("A gradient of another kind than its parameter is refused, with and without transforms") {
  Model model;
  Sgd optimizer(model.parameters(), {.lr = 1});
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  model.a.value().set_grad(ones({4, 6}, f64));
  const auto put = [&](const Tensor& gradient) { static_cast<Leaf*>(node_of(model.b.value()))->grad = gradient; };
  const auto refused = [&](const std::string& message) {
    CHECK(message_of([&] { optimizer.step(); }) == "[step] backward or set_grad gave 'b' a gradient " + message);
    CHECK(same(model.a.value(), a));
    CHECK(same(model.b.value(), b));
  };
  for (const bool transformed : {false, true}) {
    put(ones({5}, f32));
    refused("(5,) f32, expected (5,) f64");
    put(ones({4}, f64));
    refused("(4,) f64, expected (5,) f64");
    if (cuda::available()) {
      put(ones({5}, {f64, model.device() == Device::cpu() ? Device::cuda() : Device::cpu()}));
      CHECK_THAT(message_of([&] { optimizer.step(); }), Contains("gave 'b' a gradient on "));
    }
    if (!transformed) optimizer.set_transform("none", [](std::vector<NamedGradient>&) {});
  }
}
