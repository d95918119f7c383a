// Index arithmetic beyond 2^31 and 2^32 elements, where no memory would allow the tensor itself.
#if defined(STET_CUDA_SIMULATED)
#include <stet/cuda/kernels/layout.h>

#include "support/catch.h"

using namespace stet;

namespace {

/// Offsets by long division.
std::vector<std::int64_t> expected(const cuda::Layout<2>& layout, std::int64_t position) {
  std::vector<std::int64_t> out(2, 0);
  for (int d = layout.rank - 1; d >= 0; --d) {
    for (int k = 0; k < 2; ++k) out[static_cast<std::size_t>(k)] += position % layout.size[d] * layout.stride[k][d];
    position /= layout.size[d];
  }
  return out;
}

}  // namespace

TEST_CASE("Offsets are right on both sides of 2^31 and 2^32") {
  const std::int64_t sizes[] = {70'000, 300, 1'001}, first[] = {1, 70'000, 21'000'000}, second[] = {300'300, 0, -1};
  const cuda::Layout<2> layout(3, sizes, 70'000LL * 300'300, {first, second});
  const std::int64_t two = 1;
  for (const std::int64_t around :
       {std::int64_t{0}, two << 31, two << 32, (two << 32) + (two << 31), std::int64_t{70'000} * 300'300 - 3})
    for (std::int64_t position = std::max<std::int64_t>(around - 3, 0); position < around + 3; ++position) {
      std::int64_t got[2];
      layout.offsets(position, got);
      INFO(position);
      CHECK(std::vector<std::int64_t>(got, got + 2) == expected(layout, position));
    }
}

TEST_CASE("A dimension of more than 2^32 is no smaller one near its beginning") {
  const std::int64_t sizes[] = {2, (std::int64_t{1} << 32) + 2}, strides[] = {7, 3};
  const cuda::Layout<1> layout(2, sizes, 2 * sizes[1], {strides});
  std::int64_t got = 0;
  layout.offsets(5, &got);
  CHECK(got == 15);
  layout.offsets(sizes[1] + 1, &got);
  CHECK(got == 10);
}

TEST_CASE("Grids cover more than 2^31 elements") {
  CHECK(cuda::grid_of(cuda::ceil_div(std::int64_t{1} << 40, cuda::kBlock)).x == 0x7fffffff);
  CHECK(cuda::grid_of(0).x == 1);
  CHECK_THROWS_WITH(cuda::exact_grid("sum", std::int64_t{1} << 31),
                    "[sum] needs 2147483648 blocks of threads: a grid takes 2147483647");
  CHECK(cuda::ceil_div((std::int64_t{1} << 33) + 1, cuda::kBlock) == (std::int64_t{1} << 25) + 1);
}
#endif
