// The real data set, where it is installed.
#include <algorithm>

#include <stet/data/images.h>
#include <stet/tensor/error.h>

#include "support/catch.h"

using namespace stet;

TEST_CASE("Fashion-MNIST loads: 60,000 and 10,000 images of 28 x 28, each class equally often") {
  try {
    data::find_dataset("fashion-mnist");
  } catch (const Error& missing) {
    WARN("skipped: " << missing.what());
    return;
  }
  for (const auto& [split, count] : {std::pair{data::Split::train, 60000}, std::pair{data::Split::test, 10000}}) {
    const auto set = data::load_images("fashion-mnist", split);
    CHECK(set.count == count);
    CHECK(set.height == 28);
    CHECK(set.width == 28);
    REQUIRE(set.images.size() == static_cast<std::size_t>(count) * 784);
    for (int c = 0; c < 10; ++c) CHECK(std::count(set.labels.begin(), set.labels.end(), c) == count / 10);
    CHECK(*std::max_element(set.images.begin(), set.images.end()) == 255);
  }
}
