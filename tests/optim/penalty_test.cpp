// What quadratic penalties are made of: importance and anchors of any dtype, and memory of their own.
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using namespace stet::optim;
using test::same_bits;

namespace {

struct One : nn::Module {
  nn::Parameter a;
  explicit One(DType dtype) : a(this, "a", cast(tensor({1.f, 2.f, 3.f, 4.f}), dtype)) {}
};

/// The parameter after one step of rate 1 whose gradient is the penalties' alone.
Tensor pulled(One& model, Optimizer& optimizer) {
  model.a.value().set_grad(zeros({4}, model.a.value().dtype()));
  optimizer.step();
  return cast(model.a.value().detach(), f64);
}

}  // namespace

TEST_CASE("Importance and anchors of a penalty may have any floating dtype, beside others as alone") {
  const std::vector<double> anchor{0, 1, 8, -4}, importance{1, 0.5, 2, 0.25};
  for (const DType parameter : {f32, f64})
    for (const DType at : {f64, f32, bf16})
      for (const DType weights : {f64, f32, bf16})
        for (const int parts : {1, 2, 3}) {
          INFO("a parameter " << parameter << ", anchors " << at << ", importance " << weights << ", penalties "
                              << parts);
          One model(parameter);
          Sgd optimizer(model.parameters(), {.lr = 1});
          for (int k = 0; k < parts; ++k)
            optimizer.set_penalty(
                "p" + std::to_string(k),
                {0.25, {{"a", cast(tensor(importance), weights)}}, {{"a", cast(tensor(anchor), at)}}});
          const auto found = pulled(model, optimizer).to_vector<double>();
          for (std::size_t i = 0; i < 4; ++i) {
            const double p = static_cast<double>(i) + 1;
            CHECK(std::abs(found[i] - (p - 0.25 * parts * importance[i] * (p - anchor[i]))) < 1e-5);
          }
        }
}

TEST_CASE("Anchors of two dtypes without importance") {
  One model(f32);
  Sgd optimizer(model.parameters(), {.lr = 1});
  optimizer.set_penalty("one", {0.25, {}, {{"a", zeros({4}, f64)}}});
  optimizer.set_penalty("two", {0.25, {}, {{"a", zeros({4}, bf16)}}});
  CHECK(same_bits(pulled(model, optimizer), tensor({0.5, 1.0, 1.5, 2.0})));
}

TEST_CASE("An anchor that is the parameter itself stays where it was") {
  One model(f32);
  Sgd optimizer(model.parameters(), {.lr = 1});
  optimizer.set_penalty("stay", {0.5, {}, {{"a", model.shared_state().at("a")}}});
  model.a.set(ones({4}));
  CHECK(same_bits(pulled(model, optimizer), tensor({1.0, 1.5, 2.0, 2.5})));
  CHECK(optimizer.penalty_value() == Approx(0.25 * (0 + 0.25 + 1 + 2.25)));
  // Nor does it follow when penalties are put together again, or come with a state of all of them.
  optimizer.set_penalty("more", {0, {}, {{"a", zeros({4})}}});
  CHECK(optimizer.penalty_value() == Approx(0.25 * (0 + 0.25 + 1 + 2.25)));
  Optimizer::Additions additions;
  additions.penalties["stay"] = {0.5, {}, {{"a", model.a.value().detach()}}};
  optimizer.set_additions(additions);
  model.a.set(zeros({4}));
  CHECK(same_bits(pulled(model, optimizer), tensor({0.5, 0.75, 1.0, 1.25})));
}

TEST_CASE("An anchor shared with a parameter that is added later is copied then") {
  One model(f32), other(f32);
  Sgd optimizer({&other.a}, {.lr = 1});
  optimizer.remove_parameters({&other.a});
  optimizer.set_penalty("stay", {1, {}, {{"a", model.a.value().detach()}}});
  optimizer.add_parameters({&model.a});
  model.a.set(zeros({4}));
  CHECK(same_bits(pulled(model, optimizer), tensor({1.0, 2.0, 3.0, 4.0})));
}
