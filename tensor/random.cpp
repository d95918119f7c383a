// Generators: how seeds are derived from names, the default generator, and permutations.
// The numbers themselves are in random.h, where CUDA kernels can use them.
#include <stet/tensor/random.h>

#include <algorithm>
#include <utility>

#include <stet/tensor/error.h>

namespace stet {

namespace {

// The finaliser of splitmix64: a bijection in which every bit of the input reaches every bit of the output.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Numbers and names hash into different families, so that fork(7) is not some fork(name) by construction.
constexpr uint64_t number_salt = 0x6e756d6265720000u;

}  // namespace

// The seed is mixed before the name joins it: otherwise two pairs of seed and name with equal sums would
// collide.
Generator Generator::fork(std::string_view name) const { return Generator(mix(mix(state_.seed) ^ fnv1a(name))); }

Generator Generator::fork(uint64_t number) const {
  return Generator(mix(mix(state_.seed) ^ mix(number ^ number_salt)));
}

Generator& default_generator() {
  static Generator generator;
  return generator;
}

void manual_seed(uint64_t seed) { default_generator() = Generator(seed); }

std::vector<int64_t> permutation(Generator& generator, int64_t n, int64_t wanted) {
  check(n >= 0, "permutation", "of ", n, " elements: expected 0 or more");
  const RandomKey key = generator.next();
  std::vector<std::pair<uint64_t, int64_t>> keyed;
  keyed.reserve(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) keyed.emplace_back(random_bits64(key, static_cast<uint64_t>(i)), i);
  const auto end = keyed.begin() + std::clamp<int64_t>(wanted, 0, n);
  std::partial_sort(keyed.begin(), end, keyed.end());
  std::vector<int64_t> order;
  order.reserve(keyed.size());
  for (auto it = keyed.begin(); it != end; ++it) order.push_back(it->second);
  return order;
}

}  // namespace stet
