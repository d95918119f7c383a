// Counter-based random numbers (Philox4x32-10): element i of a draw is a pure function of seed, draw number
// and i. So the bits are the same on CPU and CUDA, with any number of threads, and for any length of the
// draw.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include <stet/tensor/macros.h>
#include <stet/tensor/math.h>

namespace stet {

struct Philox4 {
  uint32_t w[4];
};

/// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), ten rounds, as in Random123.
STET_HD Philox4 philox(const uint32_t (&counter)[4], const uint32_t (&key)[2]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// What names one draw. Each draw must be used for one kind of number only: uniform and normal elements of
/// the same draw share bits.
struct RandomKey {
  uint64_t seed;
  uint64_t draw;
};

/// The four words number 4 * block to 4 * block + 3 of a draw.
STET_HD Philox4 random_block(RandomKey key, uint64_t block) {
  const uint32_t counter[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                               static_cast<uint32_t>(key.draw), static_cast<uint32_t>(key.draw >> 32)};
  const uint32_t words[2] = {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)};
  return philox(counter, words);
}

STET_HD uint32_t random_bits(RandomKey key, uint64_t i) {
  const Philox4 block = random_block(key, i / 4);
  const uint32_t even = (i & 2) != 0 ? block.w[2] : block.w[0];  // selects: an index would go through memory on CUDA
  const uint32_t odd = (i & 2) != 0 ? block.w[3] : block.w[1];
  return (i & 1) != 0 ? odd : even;
}

/// Words 2 i and 2 i + 1 of the draw, the first one low.
STET_HD uint64_t random_bits64(RandomKey key, uint64_t i) {
  const Philox4 block = random_block(key, i / 2);
  const uint32_t low = (i & 1) != 0 ? block.w[2] : block.w[0];
  const uint32_t high = (i & 1) != 0 ? block.w[3] : block.w[1];
  return uint64_t{high} << 32 | low;
}

/// Multiples of 2^-24 and 2^-53 in [0, 1), without rounding.
STET_HD float uniform01(uint32_t bits) { return static_cast<float>(static_cast<int32_t>(bits >> 8)) * 0x1p-24f; }
STET_HD double uniform01(uint64_t bits) { return static_cast<double>(static_cast<int64_t>(bits >> 11)) * 0x1p-53; }

template <class T> STET_HD T uniform(RandomKey key, uint64_t i) {
  if constexpr (std::is_same_v<T, float>) {
    return uniform01(random_bits(key, i));
  } else {
    return uniform01(random_bits64(key, i));
  }
}

/// Standard normal by Box and Muller, one block of words for each element. The first number is never zero, so
/// its logarithm is finite (|result| < 6.8). The angle is reduced to an octant as an integer, exactly. The
/// bits in double depend on the device's log and cos; those in float do not.
template <class T> STET_HD T normal(RandomKey key, uint64_t i) {
  const Philox4 block = random_block(key, i);
  if constexpr (std::is_same_v<T, float>) {
    const float u = static_cast<float>(block.w[0]) * 0x1p-32f + 0x1p-33f;
    const uint32_t quadrant = (block.w[1] + 0x20000000u) >> 30;
    const auto rest = static_cast<int32_t>(block.w[1] - (quadrant << 30));
    const float r = static_cast<float>(rest) * 1.46291808e-9f;  // 2 pi / 2^32
    return math::sqrt(-2.0f * math::log(u)) * math::detail::sin_of_quadrant(quadrant + 1u, r);
  } else {
    const double u = uniform01(uint64_t{block.w[1]} << 32 | block.w[0]) + 0x1p-54;
    const double turn = uniform01(uint64_t{block.w[3]} << 32 | block.w[2]);
    return math::sqrt(-2.0 * math::log(u)) * math::cos(6.283185307179586 * turn);
  }
}

/// True with probability p, rounded up to a multiple of 2^-24: never for p = 0, always for p = 1.
STET_HD bool bernoulli(RandomKey key, uint64_t i, float p) { return uniform01(random_bits(key, i)) < p; }

/// The high 64 bits of a product, by halves, since not every compiler has 128-bit integers.
STET_HD uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  const uint64_t carry = a0 * b1 + (middle & 0xffffffffu);
  return a1 * b1 + (middle >> 32) + (carry >> 32);
}

/// Uniform in [low, high), which must not be empty. Probabilities differ by at most 2^-64.
STET_HD int64_t randint(RandomKey key, uint64_t i, int64_t low, int64_t high) {
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  return static_cast<int64_t>(static_cast<uint64_t>(low) + multiply_high(random_bits64(key, i), range));
}

struct GeneratorState {
  uint64_t seed = 0;
  uint64_t draw = 0;
  bool operator==(const GeneratorState&) const = default;
};

/// Hands out draws. A copy repeats what the original will give.
class Generator {
 public:
  static constexpr uint64_t default_seed = 20'240'229;

  Generator() = default;
  explicit Generator(uint64_t seed) : state_{seed, 0} {}

  /// A generator of its own for a part of the program. It depends on the seed and the name, not on the draws
  /// made so far, so that adding a draw in one place does not change the numbers in another.
  Generator fork(std::string_view name) const;
  Generator fork(uint64_t number) const;

  RandomKey next() { return {state_.seed, state_.draw++}; }

  GeneratorState state() const { return state_; }
  void set_state(GeneratorState state) { state_ = state; }

 private:
  GeneratorState state_{default_seed, 0};
};

/// The generator for callers that name none. Like any generator it is not synchronised between threads.
Generator& default_generator();

/// Restarts the default generator.
void manual_seed(uint64_t seed);

/// 0 .. n - 1 in random order, or the first `wanted` of them (all, where there are no more): the argsort of one draw of
/// 64-bit keys, ties by index, which a GPU can reproduce.
std::vector<int64_t> permutation(Generator& generator, int64_t n, int64_t wanted);
inline std::vector<int64_t> permutation(Generator& generator, int64_t n) { return permutation(generator, n, n); }

}  // namespace stet
