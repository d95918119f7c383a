// The CPU backend's kernel table, for the instruction set chosen at run time.
#pragma once

#include <string_view>

#include <stet/tensor/kernels.h>

namespace stet::cpu {

const Kernels& table();
/// "v2", "v3", "v4" or "generic": what this process runs, the best the machine has unless STET_ISA says less.
std::string_view isa();

/// Filled by the files beside this one; the rest comes from kernels/.
void fill_copy(Kernels& table);
void fill_indexing(Kernels& table);
void fill_gemm(Kernels& table);

/// What the GEMM takes from kernels/.
struct GemmParts {
  void (*epilogue32)(float*, std::int64_t, std::int64_t, std::int64_t, const float*, Activation);
  void (*epilogue64)(double*, std::int64_t, std::int64_t, std::int64_t, const double*, Activation);
  bool (*small_serves)(const Gemm&);
  void (*small)(const Gemm&, const float*, const float*, float*, std::int64_t, std::int64_t);
  std::int64_t (*packed_floats)(const Gemm&);
  void (*packed)(const Gemm&, const float*, const float*, float*, float*);
};
const GemmParts& gemm_parts();

}  // namespace stet::cpu
