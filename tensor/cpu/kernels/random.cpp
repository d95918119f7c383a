// Random draws: element i depends on the key and i alone, so any order of work gives the same tensor.
#include <stet/tensor/cpu/kernels/isa.h>

namespace stet::cpu::STET_ISA {
namespace {

template <class T, class Make> inline void fill(const Random& job, const Make& make) {
  T* __restrict out = static_cast<T*>(job.out);
  in_chunks(job.count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(make(static_cast<std::uint64_t>(i)));
  });
}

template <class T> void draw_floating(const Random& job) {
  const T a = static_cast<T>(job.a), b = static_cast<T>(job.b), below = static_cast<T>(job.below);
  if (job.draw == Draw::uniform)
    fill<T>(job, [=](std::uint64_t i) {
      const T x = a + (b - a) * uniform<T>(job.key, i);
      return x > below ? below : x;
    });
  else if (job.draw == Draw::normal) fill<T>(job, [=](std::uint64_t i) { return a + b * normal<T>(job.key, i); });
  else if (job.draw == Draw::bernoulli)
    fill<T>(job, [=](std::uint64_t i) { return bernoulli(job.key, i, static_cast<float>(job.a)) ? T(1) : T(0); });
}

template <class T> void draw_integer(const Random& job) {
  if (job.draw == Draw::randint) fill<T>(job, [=](std::uint64_t i) { return randint(job.key, i, job.low, job.high); });
  else if (job.draw == Draw::bits) fill<T>(job, [=](std::uint64_t i) { return random_bits64(job.key, i); });
  else if (job.draw == Draw::bernoulli)
    fill<T>(job, [=](std::uint64_t i) { return bernoulli(job.key, i, static_cast<float>(job.a)); });
}

void random_kernel(const Random& job) {
  switch (job.dtype) {
    case DType::f32: return draw_floating<float>(job);
    case DType::f64: return draw_floating<double>(job);
    case DType::i64: return draw_integer<std::int64_t>(job);
    case DType::i32: return draw_integer<std::int32_t>(job);
    case DType::u8: return draw_integer<std::uint8_t>(job);
    case DType::boolean: return draw_integer<bool>(job);
    case DType::bf16: return;  // the caller converts
  }
}

}  // namespace

void fill_random(Kernels& table) { table.random = random_kernel; }

}  // namespace stet::cpu::STET_ISA
