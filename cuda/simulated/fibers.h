// Fibers: stacks that take turns on one host thread. A switch costs a few instructions and no system call: it saves
// what a function call must preserve, and no more. For x86-64, and for launch.cpp alone.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

#include <stet/cuda/simulated/internal.h>

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define STET_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define STET_TSAN 1
#endif

extern "C" void stet_simulated_switch(void** save, void* load);
asm(R"(
.text
.globl stet_simulated_switch
.hidden stet_simulated_switch
.type stet_simulated_switch, @function
stet_simulated_switch:
  .irp register, rbp, rbx, r12, r13, r14, r15
  pushq %\register
  .endr
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  .irp register, r15, r14, r13, r12, rbx, rbp
  popq %\register
  .endr
  ret
)");

namespace stet::simulated {

struct Fiber {
  unsigned thread = 0;  // the thread of the block that it runs
  void* stack_pointer = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* shadow = nullptr;      // ThreadSanitizer's
};

inline constexpr std::size_t kPage = 4096, kStack = 256 << 10;
inline Fiber* host = nullptr;

/// A fiber that begins with `entry` when it is first switched to; `entry` never returns, the fiber lives for ever.
inline Fiber* make_fiber(void (*entry)()) {
  void* memory =
      mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED && mprotect(memory, kPage, PROT_NONE) == 0, "simulated device",
        "no memory for the stack of a thread");
  static std::size_t made = 0;
  auto* fiber = new Fiber;
  fiber->stack = static_cast<char*>(memory) + kPage;
  // Equal addresses modulo a power of two share a cache set: without the 448 every switch would miss.
  fiber->stack_bytes = kStack - made++ % 64 * 448;
  auto* top = reinterpret_cast<void**>(static_cast<char*>(memory) + kPage + fiber->stack_bytes);
  *--top = nullptr;  // where entry would return to: the unwinder stops here
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber->stack_pointer = top;
#if defined(STET_TSAN)
  fiber->shadow = __tsan_create_fiber(0);
#endif
  return fiber;
}

/// Makes `fiber` stand for the host thread that calls.
inline void adopt_host([[maybe_unused]] Fiber& fiber) {
  host = &fiber;
#if defined(STET_TSAN)
  fiber.shadow = __tsan_get_current_fiber();
#endif
}

/// The first thing that `entry` does.
inline void fiber_entered([[maybe_unused]] Fiber& self) {
#if defined(STET_ASAN)
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &stack, &bytes);
  if (!host->stack) host->stack = stack, host->stack_bytes = bytes;  // the host is the first to switch
#endif
}

inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(STET_ASAN)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(STET_TSAN)
  __tsan_switch_to_fiber(to.shadow, 0);
#endif
  stet_simulated_switch(&from.stack_pointer, to.stack_pointer);
  fiber_entered(from);
}

}  // namespace stet::simulated
