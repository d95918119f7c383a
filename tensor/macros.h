// The project's only macros besides the version: qualifiers that the two device compilers need.
#pragma once

// STET_HD marks a scalar function that the CPU kernels and the CUDA kernels share. It is always inlined, so
// that no out-of-line copy compiled for one instruction set can be picked by the linker for another.
#if defined(__CUDACC__)
#define STET_HD __host__ __device__ __forceinline__
#else
#define STET_HD inline __attribute__((always_inline))
#endif
