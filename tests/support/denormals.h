// A look at denormal numbers: the library flushes them on every thread that it meets.
#pragma once

#include <xmmintrin.h>

namespace stet::test {

/// As IEEE has them, while this lives.
struct Denormals {
  unsigned before = _mm_getcsr();
  Denormals() { _mm_setcsr(before & ~0x8040u); }
  ~Denormals() { _mm_setcsr(before); }
};

}  // namespace stet::test
