// Random draws: element i depends on the key and i alone, so the bits are the CPU's.
#include <stet/cuda/launch.h>
#include <stet/tensor/random.h>

namespace stet::cuda {
namespace {

template <Draw draw, class T> struct DrawBody {
  Pointer<T> out;
  RandomKey key;
  double a, b, below;
  std::int64_t low, high;

  __device__ T value(std::uint64_t i) const {
    if constexpr (draw == Draw::bernoulli) return static_cast<T>(bernoulli(key, i, static_cast<float>(a)));
    else if constexpr (draw == Draw::randint) return static_cast<T>(randint(key, i, low, high));
    else if constexpr (draw == Draw::bits) return static_cast<T>(random_bits64(key, i));
    else {
      const T x = static_cast<T>(a), y = static_cast<T>(b);
      if constexpr (draw == Draw::normal) return x + y * normal<T>(key, i);
      const T drawn = x + (y - x) * uniform<T>(key, i), top = static_cast<T>(below);
      return drawn > top ? top : drawn;
    }
  }
  __device__ void operator()(std::int64_t i) const { out[i] = value(static_cast<std::uint64_t>(i)); }
};

template <Draw draw, class T> void run(const Random& job) {
  constexpr std::string_view names[kDraws] = {"uniform", "normal", "bernoulli", "randint", "bits"};
  const DrawBody<draw, T> body{static_cast<T*>(job.out), job.key, job.a, job.b, job.below, job.low, job.high};
  for_each(names[static_cast<int>(draw)], body, job.count);
}

template <class T> void draw_typed(const Random& job) {
  if (job.draw == Draw::bernoulli) return run<Draw::bernoulli, T>(job);
  if constexpr (std::is_floating_point_v<T>) {
    if (job.draw == Draw::uniform) run<Draw::uniform, T>(job);
    else run<Draw::normal, T>(job);
  } else {
    if (job.draw == Draw::randint) run<Draw::randint, T>(job);
    else run<Draw::bits, T>(job);
  }
}

void random(const Random& job) {
  dispatch(job.dtype, [&]<class T>() {
    if constexpr (!std::is_same_v<T, BFloat16>) draw_typed<T>(job);  // the caller converts
  });
}

}  // namespace

void fill_random(Kernels& table) { table.random = random; }

}  // namespace stet::cuda
