// Small made-up data for continual learning: classes as clouds around points of their own.
#pragma once

#include <cstdint>
#include <vector>

#include <stet/continual/examples.h>

namespace stet::test {

/// `per_class` examples of each class, classes taking turns: x (classes * per_class, width) f32, class c
/// around a random centre that depends on c alone, with `noise` standard deviations of 1 / 10.
inline continual::Pool clouds(std::int64_t classes, std::int64_t per_class, std::int64_t width, std::uint64_t seed,
                              double noise = 3) {
  Generator places = Generator(1).fork("places"), wobble = Generator(seed).fork("wobble");
  const std::int64_t n = classes * per_class;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) labels.push_back(i % classes);
  const Tensor y = tensor(labels);
  const Tensor centres = randn({classes, width}, places);
  return {index_select(centres, 0, y) + randn({n, width}, wobble) * (noise / 10), y};
}

}  // namespace stet::test
