// Schedules: their values, what they do to steps, and what is refused.
#include <stet/optim/optimizers.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <sstream>

#include "support/catch.h"
#include "support/message.h"
#include "support/two_parameters.h"

using namespace stet;
using namespace stet::optim;
using Catch::Matchers::Contains;
using test::message_of;
using Model = test::TwoParameters;

TEST_CASE("Schedules") {
  const auto values = [](const Schedule& s, std::vector<std::int64_t> steps) {
    std::vector<double> out;
    for (const auto t : steps) out.push_back(s(t));
    return out;
  };
  CHECK(values(constant_schedule(0.5), {0, 9}) == std::vector<double>{0.5, 0.5});
  CHECK(values(step_schedule(10, 0.5), {0, 9, 10, 19, 20}) == std::vector<double>{1, 1, 0.5, 0.5, 0.25});
  CHECK(values(warmup_schedule(4), {0, 1, 3, 4, 100}) == std::vector<double>{0.25, 0.5, 1, 1, 1});
  CHECK(values(warmup_schedule(2, step_schedule(3, 0.5)), {1, 2, 4, 5}) == std::vector<double>{1, 1, 1, 0.5});
  const Schedule cosine = cosine_schedule(100, 0.2);
  CHECK(cosine(0) == 1);
  CHECK(cosine(200) == Approx(0.2));
  CHECK(cosine(50) == Approx(0.6));
  CHECK(cosine(25) == Approx(0.2 + 0.4 * (1 + std::cos(std::numbers::pi / 4))));
  CHECK(cosine(100) == Approx(0.2));
  CHECK(cosine(1000) == Approx(0.2));
  CHECK_THAT(message_of([] { step_schedule(0); }), Contains("[step_schedule]"));
  CHECK_THAT(message_of([] { cosine_schedule(0); }), Contains("[cosine_schedule]"));
  CHECK_THAT(message_of([] { warmup_schedule(-1); }), Contains("[warmup_schedule]"));
  CHECK(message_of([] { warmup_schedule(3, {}); }) ==
        "[warmup_schedule] after: expected a schedule, got an empty function");

  Model model;
  Sgd optimizer({&model.b}, {.lr = 0.5});
  optimizer.set_schedule(step_schedule(1, 0.5));
  const Tensor before = model.b.value().clone();
  model.b.value().set_grad(ones({5}, f64));
  for (int t = 0; t < 3; ++t) optimizer.step();
  const Tensor moved = before - model.b.value().detach();
  CHECK(max(abs(moved - full({5}, 0.5 * (1 + 0.5 + 0.25), f64))).item() < 1e-15);
}

TEST_CASE("A factor that is negative or not finite is refused before anything changes") {
  Model model;
  Adam optimizer(model.parameters(), {});
  for (const nn::Parameter* p : model.parameters()) p->value().set_grad(ones(p->shape(), f64));
  optimizer.step();
  const Tensor a = model.a.value().clone(), b = model.b.value().clone();
  for (const double wrong : {-0.5, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::ostringstream text;
    text << "[step] the schedule gives " << wrong << " after 1 steps: expected a finite number, 0 or more";
    optimizer.set_schedule([=](std::int64_t) { return wrong; });
    CHECK(message_of([&] { optimizer.step(); }) == text.str());
    CHECK(same(model.a.value(), a));
    CHECK(same(model.b.value(), b));
    CHECK(optimizer.state().at("a/step").item() == 1);
    CHECK(optimizer.steps() == 1);
  }
}

TEST_CASE("A schedule starts again with the optimizer's state") {
  Model model;
  Sgd optimizer({&model.b}, {.lr = 0.5});
  std::vector<std::int64_t> asked;
  optimizer.set_schedule([&](std::int64_t step) {
    asked.push_back(step);
    return 1.0;
  });
  model.b.value().set_grad(ones({5}, f64));
  for (int t = 0; t < 3; ++t) optimizer.step();
  optimizer.reset_state();
  CHECK(optimizer.steps() == 0);
  for (int t = 0; t < 2; ++t) optimizer.step();
  CHECK(asked == std::vector<std::int64_t>{0, 1, 2, 0, 1});
}
