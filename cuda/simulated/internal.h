// What the parts of the simulated device share. Everything here is called with mutex() held.
#pragma once

#include <cuda_runtime.h>

#include <mutex>

#include <stet/tensor/error.h>

namespace stet::simulated {

inline constexpr std::size_t kGuard = 64;  // bytes behind an allocation, on both sides of a shared array
inline constexpr unsigned char kPoison = 0xff;

std::recursive_mutex& mutex();

/// A refused call: it changed nothing and the device goes on. Any other Error makes the device unusable.
struct Refused : Error {
  Refused(cudaError_t code_, const std::string& what) : Error(what), code(code_) {}
  cudaError_t code;
};
/// An access outside the memory that is in use.
struct IllegalAddress : Error {
  using Error::Error;
};
template <class... Parts> void demand(bool ok, cudaError_t code, std::string_view op, const Parts&... parts) {
  if (ok) return;
  std::ostringstream out;
  ((out << '[' << op << "] ") << ... << parts);
  throw Refused(code, out.str());
}
template <class... Parts> void need(bool ok, std::string_view op, const Parts&... parts) {
  demand(ok, cudaErrorInvalidValue, op, parts...);
}

// runtime.cpp
using Work = std::function<void()>;
/// Runs an API call: takes the mutex, turns what it throws into a code, remembers the message.
cudaError_t guarded(const Work& call) noexcept;
/// Whether the work now waits in the stream's queue: it may have been captured, or run since the queue was full.
bool enqueue(cudaStream_t stream, Work work);
/// Queues what shall be done once every stream has done what it has now. A graph runs later and more than once: while
/// one is captured, this does nothing.
void when_idle(Work work);
void synchronize_all();
/// Refuses a call if the stream is capturing, and spoils what is captured.
void forbid_capture(const char* op, cudaStream_t stream);

// memory.cpp
/// Demands that `bytes` from `pointer` on are in use by one allocation.
void need_device(std::string_view op, const char* role, const void* pointer, std::size_t bytes);
/// Work calls this for its operands, since a graph may run after they were freed.
void check_alive(std::string_view op, std::initializer_list<const void*> pointers);
extern std::size_t blocks_freed;  // so far

// launch.cpp
/// The kernel as work, if it stays inside the limits.
Work kernel_work(const char* kernel, dim3 grid, dim3 block, Work thread_body);

}  // namespace stet::simulated
