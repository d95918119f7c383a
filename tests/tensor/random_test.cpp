// Tests of tensor/random.h: published vectors of Philox, distributions, and that an element depends on its
// place only. Seeds are fixed: the statistical bounds hold or fail for good, and were not met by trying
// seeds.
#include <stet/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "support/catch.h"

namespace {

using stet::Generator;
using stet::RandomKey;

constexpr int64_t count = 400'000;
constexpr RandomKey key{12345, 7};

void check_philox(const uint32_t (&counter)[4], const uint32_t (&words)[2], const uint32_t (&expected)[4]) {
  const stet::Philox4 got = stet::philox(counter, words);
  for (int i = 0; i < 4; ++i) CHECK(got.w[i] == expected[i]);
}

// Sum of (observed - expected)^2 / expected over equally likely bins.
double chi_square(const std::vector<int64_t>& bins) {
  const auto total = static_cast<double>(std::accumulate(bins.begin(), bins.end(), int64_t{0}));
  const double expected = total / static_cast<double>(bins.size());
  double sum = 0;
  for (const int64_t observed : bins) sum += std::pow(static_cast<double>(observed) - expected, 2) / expected;
  return sum;
}

// 99 degrees of freedom: 61.1 and 149.4 are the points of probability 0.001 at either end. Too even is wrong
// too.
void check_100_bins(const std::vector<int64_t>& bins) {
  REQUIRE(bins.size() == 100);
  const double statistic = chi_square(bins);
  CHECK(statistic > 61.1);
  CHECK(statistic < 149.4);
}

struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0, lag_correlation = 0;
};

template <class F> Moments moments(F element) {
  std::vector<double> x(count);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(element(i));
  Moments m;
  for (const double v : x) m.mean += v / count;
  for (const double v : x) m.variance += (v - m.mean) * (v - m.mean) / count;
  const double deviation = std::sqrt(m.variance);
  for (size_t i = 0; i < x.size(); ++i) {
    const double z = (x[i] - m.mean) / deviation;
    m.skewness += z * z * z / count;
    m.kurtosis += z * z * z * z / count;
    if (i > 0) m.lag_correlation += z * (x[i - 1] - m.mean) / deviation / count;
  }
  return m;
}

// Four standard errors of each moment of `count` numbers.
const double noise = 4.0 / std::sqrt(static_cast<double>(count));

template <class T> void check_uniform() {
  const Moments m = moments([](uint64_t i) { return stet::uniform<T>(key, i); });
  CHECK(std::fabs(m.mean - 0.5) < noise * std::sqrt(1.0 / 12));
  CHECK(std::fabs(m.variance - 1.0 / 12) < noise * std::sqrt(1.0 / 180));
  CHECK(std::fabs(m.lag_correlation) < noise);
  std::vector<int64_t> bins(100);
  for (int64_t i = 0; i < count; ++i) {
    const T u = stet::uniform<T>(key, static_cast<uint64_t>(i));
    REQUIRE(u >= T(0));
    REQUIRE(u < T(1));
    ++bins[static_cast<size_t>(u * 100)];
  }
  check_100_bins(bins);
}

template <class T> void check_normal() {
  const Moments m = moments([](uint64_t i) { return stet::normal<T>(key, i); });
  CHECK(std::fabs(m.mean) < noise);
  CHECK(std::fabs(m.variance - 1) < noise * std::sqrt(2.0));
  CHECK(std::fabs(m.skewness) < noise * std::sqrt(6.0));
  CHECK(std::fabs(m.kurtosis - 3) < noise * std::sqrt(24.0));
  CHECK(std::fabs(m.lag_correlation) < noise);
  std::vector<int64_t> bins(100);
  for (int64_t i = 0; i < count; ++i) {
    const T x = stet::normal<T>(key, static_cast<uint64_t>(i));
    REQUIRE(std::isfinite(x));
    const double probability = 0.5 * std::erfc(-static_cast<double>(x) * 0.70710678118654752440);
    ++bins[std::min<size_t>(99, static_cast<size_t>(probability * 100))];
  }
  check_100_bins(bins);
}

std::vector<uint32_t> first_words(Generator generator) {
  const RandomKey draw = generator.next();
  std::vector<uint32_t> words;
  for (uint64_t i = 0; i < 8; ++i) words.push_back(stet::random_bits(draw, i));
  return words;
}

}  // namespace

// Random123's kat_vectors, "philox4x32 10".
TEST_CASE("Philox passes its published vectors", "[random]") {
  check_philox({0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  check_philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff},
               {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  check_philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("words lie at their place: counter from index and draw, key from seed", "[random]") {
  const RandomKey draw{0x1111111122222222u, 0x3333333344444444u};
  const uint64_t block = 0x0123456789abcdefu;
  const stet::Philox4 expected =
      stet::philox({0x89abcdef, 0x01234567, 0x44444444, 0x33333333}, {0x22222222, 0x11111111});
  for (uint64_t i = 0; i < 4; ++i) CHECK(stet::random_bits(draw, 4 * block + i) == expected.w[i]);
  CHECK(stet::random_bits64(draw, 2 * block) == (uint64_t{expected.w[1]} << 32 | expected.w[0]));
  CHECK(stet::random_bits64(draw, 2 * block + 1) == (uint64_t{expected.w[3]} << 32 | expected.w[2]));
}

TEST_CASE("uniform01 takes the high bits without rounding", "[random]") {
  CHECK(stet::uniform01(uint32_t{0}) == 0.0f);
  CHECK(stet::uniform01(uint32_t{255}) == 0.0f);
  CHECK(stet::uniform01(uint32_t{256}) == 0x1p-24f);
  CHECK(stet::uniform01(~uint32_t{0}) == 1.0f - 0x1p-24f);
  CHECK(stet::uniform01(~uint64_t{0}) == 1.0 - 0x1p-53);
  CHECK(stet::uniform01(uint64_t{1} << 11) == 0x1p-53);
}

TEST_CASE("uniform numbers are uniform", "[random]") {
  check_uniform<float>();
  check_uniform<double>();
}

TEST_CASE("normal numbers are normal", "[random]") {
  check_normal<float>();
  check_normal<double>();
}

// float and double share nothing but the words: the leading digits must still agree with the formula.
TEST_CASE("normal is Box and Muller's formula", "[random]") {
  for (uint64_t i = 0; i < 10'000; ++i) {
    const stet::Philox4 block = stet::random_block(key, i);
    const double u = (block.w[0] + 0.5) * 0x1p-32, turn = block.w[1] * 0x1p-32;
    const double expected = std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * turn);
    REQUIRE(std::fabs(stet::normal<float>(key, i) - expected) < 2e-6);
  }
}

TEST_CASE("bernoulli has its probability", "[random]") {
  for (const double p : {0.1, 0.5, 0.9}) {
    int64_t hits = 0;
    for (int64_t i = 0; i < count; ++i) hits += stet::bernoulli(key, static_cast<uint64_t>(i), static_cast<float>(p));
    CHECK(std::fabs(static_cast<double>(hits) / count - p) < noise * std::sqrt(p * (1 - p)));
  }
  for (uint64_t i = 0; i < 10'000; ++i) {
    const float u = stet::uniform<float>(key, i);
    REQUIRE_FALSE(stet::bernoulli(key, i, u));  // strictly below: that is what makes p = 0 mean never
    REQUIRE(stet::bernoulli(key, i, u + 0x1p-24f));
    REQUIRE_FALSE(stet::bernoulli(key, i, 0.0f));
    REQUIRE(stet::bernoulli(key, i, 1.0f));
  }
}

TEST_CASE("randint is uniform over its range", "[random]") {
  std::vector<int64_t> bins(100);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = stet::randint(key, static_cast<uint64_t>(i), -30, 70);
    REQUIRE(value >= -30);
    REQUIRE(value < 70);
    ++bins[static_cast<size_t>(value + 30)];
  }
  check_100_bins(bins);
  CHECK(stet::randint(key, 3, 5, 6) == 5);
}

TEST_CASE("randint covers the whole range of int64", "[random]") {
  int64_t negative = 0;
  for (uint64_t i = 0; i < 10'000; ++i) negative += stet::randint(key, i, INT64_MIN, INT64_MAX) < 0;
  CHECK(std::abs(negative - 5000) < 200);
  CHECK(stet::multiply_high(~uint64_t{0}, ~uint64_t{0}) == ~uint64_t{0} - 1);
  CHECK(stet::multiply_high(0x123456789abcdef0u, 0xfedcba9876543210u) == 0x121fa00ad77d7422u);
}

TEST_CASE("an element does not depend on the order or the number of elements drawn", "[random]") {
  std::vector<float> forward, backward;
  for (uint64_t i = 0; i < 1000; ++i) forward.push_back(stet::normal<float>(key, i));
  for (uint64_t i = 500; i-- > 0;) backward.push_back(stet::normal<float>(key, i));
  std::reverse(backward.begin(), backward.end());
  CHECK(std::equal(backward.begin(), backward.end(), forward.begin()));
}

TEST_CASE("seeds, draws and forks give different numbers", "[random]") {
  Generator generator(1);
  std::set<std::vector<uint32_t>> seen;
  for (int i = 0; i < 5; ++i) {
    seen.insert(first_words(generator));
    generator.next();
  }
  seen.insert(first_words(Generator(2)));
  for (const char* name : {"", "a", "b", "ab", "ba", "weights", "dropout"})
    seen.insert(first_words(generator.fork(name)));
  for (uint64_t number = 0; number < 5; ++number) seen.insert(first_words(generator.fork(number)));
  seen.insert(first_words(Generator(2).fork("a")));
  seen.insert(first_words(generator.fork("a").fork("b")));
  CHECK(seen.size() == 5 + 1 + 7 + 5 + 2);
}

TEST_CASE("a fork depends on seed and name only", "[random]") {
  Generator generator(1);
  const Generator before = generator.fork("data");
  generator.next();
  CHECK(generator.fork("data").state() == before.state());
  CHECK(generator.state().draw == 1);
}

TEST_CASE("a generator's state goes round", "[random]") {
  Generator generator(99);
  generator.next();
  const stet::GeneratorState saved = generator.state();
  const std::vector<uint32_t> expected = first_words(generator);
  generator.next();
  CHECK(first_words(generator) != expected);
  Generator other;
  other.set_state(saved);
  CHECK(first_words(other) == expected);
  CHECK(saved == stet::GeneratorState{99, 1});
}

TEST_CASE("the default generator starts from a constant and can be seeded", "[random]") {
  const stet::GeneratorState kept = stet::default_generator().state();
  CHECK(first_words(Generator()) == first_words(Generator(Generator::default_seed)));
  stet::manual_seed(5);
  stet::default_generator().next();
  CHECK(stet::default_generator().state() == stet::GeneratorState{5, 1});
  stet::manual_seed(5);
  CHECK(stet::default_generator().state() == stet::GeneratorState{5, 0});
  stet::default_generator().set_state(kept);
}

TEST_CASE("permutation is the argsort of 64-bit keys", "[random]") {
  Generator generator(42);
  const RandomKey draw{42, 0};
  const std::vector<int64_t> order = stet::permutation(generator, 1000);
  CHECK(generator.state().draw == 1);
  std::vector<int64_t> sorted = order, all(1000);
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), int64_t{0});
  CHECK(sorted == all);
  for (size_t i = 1; i < order.size(); ++i)
    REQUIRE(stet::random_bits64(draw, static_cast<uint64_t>(order[i - 1])) <
            stet::random_bits64(draw, static_cast<uint64_t>(order[i])));
  CHECK(stet::permutation(generator, 1000) != order);
  CHECK(stet::permutation(generator, 0).empty());
  CHECK(stet::permutation(generator, 1) == std::vector<int64_t>{0});
}

// Pinned: a change of these numbers is a change of every seeded result that anyone has published.
TEST_CASE("pinned numbers", "[random]") {
  Generator generator(42);
  CHECK(stet::permutation(generator, 10) == std::vector<int64_t>{9, 2, 1, 7, 3, 0, 4, 6, 5, 8});
  CHECK(generator.fork(7).state().seed == 0xa1cb273ff8ef1c01u);
  const RandomKey draw = generator.fork("pinned").next();
  CHECK(draw.seed == 0xf2a9542cc5cfb525u);
  CHECK(stet::uniform<float>(draw, 0) == 0x1.b03c1p-3f);
  CHECK(stet::normal<float>(draw, 0) == -0x1.4924eap+0f);
  CHECK(stet::normal<float>(draw, 1'000'000) == 0x1.5b6bcap+0f);
  CHECK(stet::randint(draw, 0, 0, 1'000'000) == 620013);
}
