// Images as tensors: the values, the order of a batch, and indices that do not exist.
#include <string>
#include <vector>

#include <stet/data/images.h>

#include "support/catch.h"

using namespace stet;

namespace {

data::ImageSet small_set() {
  return {.count = 3, .height = 1, .width = 2, .classes = 10, .images = {0, 255, 51, 102, 1, 254}, .labels = {7, 0, 9}};
}

}  // namespace

TEST_CASE("Pixels become numbers from 0 to 1, in the order that was asked for") {
  const auto set = small_set();
  const std::vector<std::int64_t> batch = {2, 0, 2};
  const Tensor x = data::pixels(set, batch);
  CHECK(x.dtype() == f32);
  CHECK(x.shape() == Shape{3, 2});
  const float one = 1.0f / 255.0f, most = 254.0f / 255.0f;
  CHECK(x.to_vector<float>() == std::vector<float>{one, most, 0, 1, one, most});
  CHECK(data::pixels(set).to_vector<float>() == std::vector<float>{0, 1, 0.2f, 0.4f, one, most});

  const Tensor y = data::labels(set, batch);
  CHECK(y.dtype() == i64);
  CHECK(y.to_vector<std::int64_t>() == std::vector<std::int64_t>{9, 7, 9});
  CHECK(data::labels(set).to_vector<std::int64_t>() == std::vector<std::int64_t>{7, 0, 9});
}

TEST_CASE("An empty batch is an empty tensor") {
  const std::vector<std::int64_t> none;
  CHECK(data::pixels(small_set(), none).shape() == Shape{0, 2});
  CHECK(data::labels(small_set(), none).shape() == Shape{0});
}

TEST_CASE("Indices outside of the set are refused") {
  const auto set = small_set();
  for (const std::int64_t bad : {-1, 3}) {
    const std::vector<std::int64_t> batch = {0, bad};
    const std::string expected = "index " + std::to_string(bad) + " of a set of 3 images";
    CHECK_THROWS_WITH(data::pixels(set, batch), "[pixels] " + expected);
    CHECK_THROWS_WITH(data::labels(set, batch), "[labels] " + expected);
  }
}
