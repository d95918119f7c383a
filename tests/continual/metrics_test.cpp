// Metrics on matrices made by hand.
#include <cmath>

#include <stet/continual/metrics.h>

#include "support/catch.h"

using namespace stet::continual;

namespace {

const double kNan = std::nan("");

AccuracyMatrix example() {
  return {.before = {0.1, 0.2, 0.3}, .r = {{0.9, 0.3, 0.2}, {0.95, 0.8, 0.5}, {0.6, 0.7, 1.0}}};
}

}  // namespace

TEST_CASE("ACC, BWT, FWT and forgetting of a matrix made by hand") {
  const AccuracyMatrix m = example();
  CHECK(m.accuracy() == Approx((0.6 + 0.7 + 1.0) / 3));
  CHECK(m.backward_transfer() == Approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2));
  CHECK(m.forward_transfer() == Approx(((0.3 - 0.2) + (0.5 - 0.3)) / 2));
  CHECK(m.forgetting() == Approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2));  // the best was after the second task
}

TEST_CASE("Forgetting is negative where later tasks helped, and the last row is no candidate for the best") {
  const AccuracyMatrix m{.before = {0, 0}, .r = {{0.5, 0}, {0.9, 1}}};
  CHECK(m.forgetting() == Approx(-0.4));
  CHECK(m.backward_transfer() == Approx(0.4));
}

TEST_CASE("What a task scored before it was learned is no candidate for the best") {
  const AccuracyMatrix m{.before = {0, 0, 0}, .r = {{0.9, 0.99, 0}, {0.9, 0.8, 0}, {0.9, 0.7, 1}}};
  CHECK(m.forgetting() == Approx((0 + 0.1) / 2));
}

TEST_CASE("What is not defined is NaN") {
  const AccuracyMatrix none, one{.before = {0.1}, .r = {{0.7}}};
  CHECK(std::isnan(none.accuracy()));
  CHECK(one.accuracy() == Approx(0.7));
  for (const double value : {one.backward_transfer(), one.forward_transfer(), one.forgetting()})
    CHECK(std::isnan(value));
  // Joint training: only the last row was measured.
  const AccuracyMatrix joint{.before = {0, 0, 0}, .r = {{kNan, kNan, kNan}, {kNan, kNan, kNan}, {0.7, 0.8, 0.9}}};
  CHECK(joint.accuracy() == Approx(0.8));
  for (const double value : {joint.backward_transfer(), joint.forward_transfer(), joint.forgetting()})
    CHECK(std::isnan(value));
}

TEST_CASE("What was not measured is NaN, wherever the rows end") {
  const AccuracyMatrix lower{.before = {0.1, 0.2, 0.3}, .r = {{0.9}, {0.95, 0.8}, {0.6, 0.7, 1.0}}};
  CHECK(lower.accuracy() == Approx((0.6 + 0.7 + 1.0) / 3));
  CHECK(lower.backward_transfer() == Approx(-0.2));
  CHECK(lower.forgetting() == Approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2));
  CHECK(std::isnan(lower.forward_transfer()));
  const AccuracyMatrix short_before{.before = {0.1}, .r = {{0.9, 0.1}, {0.8, 0.7}}};
  CHECK(std::isnan(short_before.forward_transfer()));
}

TEST_CASE("Spread: mean and sample standard deviation") {
  const Spread s = spread_of({1, 2, 4});
  CHECK(s.mean == Approx(7.0 / 3));
  CHECK(s.deviation == Approx(std::sqrt(7.0 / 3)));
  CHECK(spread_of({5}).mean == 5);
  CHECK(std::isnan(spread_of({5}).deviation));
  CHECK(std::isnan(spread_of({}).mean));
  CHECK(std::isnan(spread_of({1, kNan}).mean));
}

TEST_CASE("The definitions name every metric") {
  for (const char* name : {"ACC", "BWT", "FWT", "forgetting"})
    CHECK(AccuracyMatrix::definitions().find(name) != std::string::npos);
}
