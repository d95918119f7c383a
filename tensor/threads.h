// The thread pool: one worker per core, and work that is cut into chunks whose size never depends on how many
// threads there are, so that results are the same bits at any thread count.
#pragma once

#include <cstdint>

namespace stet {

/// Threads that share the work: STET_THREADS, else one per core.
int threads();
/// Changes the number of threads (1..256). Not while work is running.
void set_threads(int count);

/// Calls run(context, chunk) for every chunk in [0, chunks), in any order, on any thread; returns when all
/// are done. Called from inside a chunk it runs everything on the calling thread. When a chunk throws, chunks that have
/// not begun are left out, and the first error is thrown here once the others have ended.
void parallel_run(std::int64_t chunks, void (*run)(void* context, std::int64_t chunk), void* context);

/// body(chunk) for every chunk.
template <class Body> void parallel_for(std::int64_t chunks, const Body& body) {
  if (chunks <= 1) {
    if (chunks == 1) body(std::int64_t{0});
    return;
  }
  parallel_run(
      chunks, [](void* context, std::int64_t chunk) { (*static_cast<const Body*>(context))(chunk); },
      const_cast<Body*>(&body));
}

/// Flushes denormal numbers to zero on this thread from now on; every worker and the first caller of the
/// library do so, since decayed optimizer state would otherwise slow training down several times.
void flush_denormals();

}  // namespace stet
