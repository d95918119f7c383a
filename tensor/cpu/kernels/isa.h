// The kernel files of this folder are compiled once per instruction set (STET_ISA = v2, v3, v4, or generic),
// each time in a namespace of its own. They use no inline code from elsewhere that the compiler could leave
// out of line: the linker would keep one copy for everyone, and that might be the AVX-512 one.
#pragma once

#include <stet/tensor/kernels.h>
#include <stet/tensor/threads.h>

namespace stet::cpu::STET_ISA {

// Each file fills its part of the table.
void fill_unary(Kernels& table);
void fill_binary(Kernels& table);
void fill_reduce(Kernels& table);
void fill_rows(Kernels& table);
void fill_attention(Kernels& table);
void fill_random(Kernels& table);
void fill_update(Kernels& table);
/// C (rows, cols; ldc) = act(C + bias): the epilogue of a GEMM tile.
template <class T>
void bias_activation(T* c, std::int64_t rows, std::int64_t cols, std::int64_t ldc, const T* bias, Activation act);

/// Whether small_gemm is the better choice for this product.
bool small_gemm_serves(const Gemm& job);
/// One piece of C: a, b and c point at its first row and column.
void small_gemm(const Gemm& job, const float* a, const float* b, float* c, std::int64_t rows, std::int64_t cols);
/// The whole of one matrix, with its bias and activation; `scratch` has room for packed_floats().
void packed_gemm(const Gemm& job, const float* a, const float* b, float* c, float* scratch);
std::int64_t packed_floats(const Gemm& job);

inline constexpr std::int64_t kChunk = 16384;  ///< elements of one piece of work; never depends on thread count

/// body(begin, end) over fixed pieces of [0, count).
template <class Body> inline void in_chunks(std::int64_t count, std::int64_t chunk, const Body& body) {
  parallel_for((count + chunk - 1) / chunk, [&](std::int64_t i) {
    const std::int64_t begin = i * chunk;
    body(begin, count - begin < chunk ? count : begin + chunk);
  });
}

/// Where the table holds one entry for both element types.
template <auto F32, auto F64, class Job> void either(const Job& job) { (job.dtype == DType::f32 ? F32 : F64)(job); }

}  // namespace stet::cpu::STET_ISA
