// Chooses the instruction set once and joins the parts of the CPU's kernel table.
#include <stet/tensor/cpu/cpu.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include <stet/tensor/cpu/allocator.h>
#include <stet/tensor/error.h>
#include <stet/tensor/threads.h>

namespace stet::cpu {

#if defined(__x86_64__)
#define STET_FOR_EACH_ISA(X) X(v2) X(v3) X(v4)
#else
#define STET_FOR_EACH_ISA(X) X(generic)
#endif
#define STET_DECLARE(isa)                                                                                      \
  namespace isa {                                                                                              \
  void fill_unary(Kernels&);                                                                                   \
  void fill_binary(Kernels&);                                                                                  \
  void fill_reduce(Kernels&);                                                                                  \
  void fill_rows(Kernels&);                                                                                    \
  void fill_attention(Kernels&);                                                                               \
  void fill_random(Kernels&);                                                                                  \
  void fill_update(Kernels&);                                                                                  \
  template <class T> void bias_activation(T*, std::int64_t, std::int64_t, std::int64_t, const T*, Activation); \
  bool small_gemm_serves(const Gemm&);                                                                         \
  void small_gemm(const Gemm&, const float*, const float*, float*, std::int64_t, std::int64_t);                \
  std::int64_t packed_floats(const Gemm&);                                                                     \
  void packed_gemm(const Gemm&, const float*, const float*, float*, float*);                                   \
  }
STET_FOR_EACH_ISA(STET_DECLARE)

namespace {

struct Choice {
  std::string_view name;
  Kernels table;
  GemmParts gemm;
};

#define STET_FILL(isa)                                                        \
  if (name == #isa) {                                                         \
    isa::fill_unary(choice.table);                                            \
    isa::fill_binary(choice.table);                                           \
    isa::fill_reduce(choice.table);                                           \
    isa::fill_rows(choice.table);                                             \
    isa::fill_attention(choice.table);                                        \
    isa::fill_random(choice.table);                                           \
    isa::fill_update(choice.table);                                           \
    choice.gemm = {isa::bias_activation<float>, isa::bias_activation<double>, \
                   isa::small_gemm_serves,      isa::small_gemm,              \
                   isa::packed_floats,          isa::packed_gemm};            \
  }

std::string_view best_isa() {
#if defined(__x86_64__)
  const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  check(v2, "cpu", "this processor lacks x86-64-v2 (SSE4.2)");
  return v4 ? "v4" : v3 ? "v3" : "v2";
#else
  return "generic";
#endif
}

std::string_view chosen_isa() {
  const std::string_view best = best_isa();
  const char* forced = std::getenv("STET_ISA");
  if (!forced || !*forced) return best;
  const std::string_view wanted = forced;
  const bool known = wanted == "v2" || wanted == "v3" || wanted == "v4" || wanted == best;
  check(known, "cpu", "STET_ISA is '", wanted, "': expected v2, v3 or v4");
  check(wanted <= best, "cpu", "STET_ISA asks for ", wanted, ", this processor has ", best);
  return wanted;
}

Choice make_choice() {
  Choice choice;
  const std::string_view name = chosen_isa();
  choice.name = name == "v2" ? "v2" : name == "v3" ? "v3" : name == "v4" ? "v4" : "generic";
  STET_FOR_EACH_ISA(STET_FILL)
  fill_copy(choice.table);
  fill_indexing(choice.table);
  fill_gemm(choice.table);
  choice.table.alloc = allocate;
  choice.table.free = deallocate;
  choice.table.release = allocator_release;
  choice.table.set_limit = allocator_set_limit;
  choice.table.system_memory = [] { return SystemMemory{allocator_system_bytes(), allocator_system_allocations()}; };
  choice.table.upload = choice.table.download = [](void* to, const void* from, std::int64_t bytes) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  };
  choice.table.sync = [] {};
  flush_denormals();
  return choice;
}

const Choice& choice() {
  static const Choice* instance = new Choice(make_choice());  // outlives every static tensor
  return *instance;
}

}  // namespace

const Kernels& table() { return choice().table; }
std::string_view isa() { return choice().name; }
const GemmParts& gemm_parts() { return choice().gemm; }

}  // namespace stet::cpu

namespace stet {

const Kernels& kernels(Device device) {
  if (device.type != DeviceType::cpu) return cuda_kernels(device.index);
  thread_local const bool flushed = (flush_denormals(), true);  // the same numbers on whatever thread asks
  static_cast<void>(flushed);
  static const Kernels& table = cpu::table();
  return table;
}

}  // namespace stet
