// The part of cuBLASLt that this project uses, by OpenBLAS; see cuda_runtime.h beside it. Matrices are column-major;
// what the real library refuses is refused, and every operand's whole extent is checked before the product is queued.
#pragma once

#include <cblas.h>

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include <stet/cuda/simulated/internal.h>

typedef enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1 } cudaDataType_t;
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_64F = 70, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
// clang-format off
enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasLtMatmulDescAttributes_t {
  CUBLASLT_MATMUL_DESC_TRANSA = 3, CUBLASLT_MATMUL_DESC_TRANSB = 4,
  CUBLASLT_MATMUL_DESC_EPILOGUE = 7, CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8
};
enum cublasLtEpilogue_t {  // sums of what is to be done: 2 ReLU, 4 bias, 512 the sums of B over k
  CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_RELU = 2,
  CUBLASLT_EPILOGUE_BIAS = 4, CUBLASLT_EPILOGUE_RELU_BIAS = 6, CUBLASLT_EPILOGUE_BGRADB = 512
};
enum cublasLtMatrixLayoutAttribute_t {
  CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6
};
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8
};
// clang-format on

struct cublasLtMatmulAlgo_t {
  std::uint64_t workspace;
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  std::size_t workspaceSize;
};
typedef struct cublasLtContext {
} * cublasLtHandle_t;
typedef struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
} * cublasLtMatmulDesc_t;
typedef struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  std::int64_t rows, cols, ld;
  std::int32_t batch = 1;
  std::int64_t stride = 0;
  auto operator<=>(const cublasLtMatrixLayoutOpaque_t&) const = default;
} * cublasLtMatrixLayout_t;
typedef struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace = 0;
} * cublasLtMatmulPreference_t;

namespace stet::blas {

using namespace simulated;

inline constexpr std::uint64_t kWorkspace = 4096;
inline constexpr const char* kOp = "matmul";

struct Product {
  cublasLtMatmulDescOpaque_t desc;
  cublasLtMatrixLayoutOpaque_t a, b, d;
  const void *pa = nullptr, *pb = nullptr;
  void* pd = nullptr;
  double alpha = 0, beta = 0;
};

inline cublasStatus_t status(const Work& call) {
  const cudaError_t code = guarded(call);
  if (code == cudaSuccess) return CUBLAS_STATUS_SUCCESS;
  if (code != cudaErrorInvalidValue && code != cudaErrorNotSupported) return CUBLAS_STATUS_EXECUTION_FAILED;
  cudaGetLastError();  // the runtime's own error is not concerned
  return code == cudaErrorInvalidValue ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_NOT_SUPPORTED;
}

inline void supported(bool ok, const char* what) { demand(ok, cudaErrorNotSupported, kOp, what); }

inline void check_shapes(const Product& p) {
  supported((p.desc.compute == CUBLAS_COMPUTE_64F) == (p.desc.scale == CUDA_R_64F), "scale and compute type differ");
  for (const auto* m : {&p.a, &p.b, &p.d}) {
    supported(m->type == p.desc.scale, "operands of another type than the scale");
    need(m->rows >= 1 && m->cols >= 1 && m->batch >= 1, kOp, "an empty matrix");
    need(m->ld >= m->rows, kOp, "a leading dimension smaller than the number of rows (matrices are column-major)");
    need(m->batch == p.d.batch, kOp, "different batch counts");
    need(m->stride >= 0 && m->ld <= 0x7fffffff && m->cols <= 0x7fffffff, kOp, "a dimension outside the range");
  }
  need(p.d.batch == 1 || p.d.stride >= (p.d.cols - 1) * p.d.ld + p.d.rows, kOp, "the results of a batch overlap");
  const bool ta = p.desc.transa == CUBLAS_OP_T, tb = p.desc.transb == CUBLAS_OP_T;
  need((ta ? p.a.cols : p.a.rows) == p.d.rows && (tb ? p.b.rows : p.b.cols) == p.d.cols &&
           (ta ? p.a.rows : p.a.cols) == (tb ? p.b.cols : p.b.rows),
       kOp, "the shapes do not fit each other");
}

template <class T> void check_memory(const Product& p) {
  const auto check = [](const char* role, const void* at, const cublasLtMatrixLayoutOpaque_t& m) {
    const std::int64_t count = (m.batch - 1) * m.stride + (m.cols - 1) * m.ld + m.rows;
    need_device(kOp, role, at, static_cast<std::size_t>(count) * sizeof(T));
  };
  check("A: ", p.pa, p.a);
  check("B: ", p.pb, p.b);
  check("D: ", p.pd, p.d);
  const std::int64_t n = p.desc.epilogue & CUBLASLT_EPILOGUE_BGRADB ? p.d.cols : p.d.rows;
  if (p.desc.epilogue & (CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_BGRADB))
    check("bias: ", p.desc.bias, {p.d.type, n, 1, n});
  // The real one does not look, and may read it by 16 bytes: no refusal, but a misaligned address.
  stet::check(reinterpret_cast<std::uintptr_t>(p.desc.bias) % 16 == 0, kOp, "a bias that begins at an odd place");
}

template <class T> void multiply(const Product& p) {
  check_alive(kOp, {p.pa, p.pb, p.pd, p.desc.bias});
  const bool ta = p.desc.transa == CUBLAS_OP_T, tb = p.desc.transb == CUBLAS_OP_T;
  const auto n = [](std::int64_t x) { return static_cast<blasint>(x); };
  for (std::int64_t batch = 0; batch < p.d.batch; ++batch) {
    T* d = static_cast<T*>(p.pd) + batch * p.d.stride;
    const auto run = [&](auto gemm) {
      gemm(CblasColMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, n(p.d.rows), n(p.d.cols),
           n(ta ? p.a.rows : p.a.cols), T(p.alpha), static_cast<const T*>(p.pa) + batch * p.a.stride, n(p.a.ld),
           static_cast<const T*>(p.pb) + batch * p.b.stride, n(p.b.ld), T(p.beta), d, n(p.d.ld));
    };
    if constexpr (sizeof(T) == 4) run(cblas_sgemm);
    else run(cblas_dgemm);
    for (std::int64_t j = 0; j < p.d.cols; ++j)
      for (std::int64_t i = 0; i < p.d.rows; ++i) {
        T& x = d[j * p.d.ld + i];
        if (p.desc.epilogue & CUBLASLT_EPILOGUE_BIAS) x += static_cast<const T*>(p.desc.bias)[i];
        if (p.desc.epilogue & CUBLASLT_EPILOGUE_RELU && !(x > 0)) x = 0;  // NaN too
      }
  }
  for (std::int64_t j = 0; p.desc.epilogue & CUBLASLT_EPILOGUE_BGRADB && j < p.d.cols; ++j) {
    double sum = 0;  // over k of column j of op(B)
    for (std::int64_t i = 0; i < (tb ? p.b.cols : p.b.rows); ++i)
      sum += static_cast<const T*>(p.pb)[tb ? i * p.b.ld + j : j * p.b.ld + i];
    static_cast<T*>(p.desc.bias)[j] = static_cast<T>(sum);
  }
}

/// Checks a product and queues it.
template <class T> void queue(Product p, const void* alpha, const void* beta, cudaStream_t stream) {
  need(!is_device(alpha) && !is_device(beta), kOp, "alpha and beta are host pointers");
  p.alpha = *static_cast<const T*>(alpha);
  p.beta = *static_cast<const T*>(beta);
  check_shapes(p);
  check_memory<T>(p);
  enqueue(stream, [p] { multiply<T>(p); });
}

template <class T> void take(T& field, const void* value, std::size_t bytes) {
  need(value && bytes == sizeof field, kOp, "an attribute of another size");
  std::memcpy(&field, value, bytes);
}

inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  // One thread: a product's bits do not depend on the machine, and ThreadSanitizer cannot see OpenBLAS's own.
  return status([=] { openblas_set_num_threads(1), *handle = new cublasLtContext; });
}

inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  return status([=] { *desc = new cublasLtMatmulDescOpaque_t{compute, scale}; });
}
inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name,
                                                     const void* value, std::size_t bytes) {
  return status([=] {
    if (name == CUBLASLT_MATMUL_DESC_TRANSA) take(desc->transa, value, bytes);
    else if (name == CUBLASLT_MATMUL_DESC_TRANSB) take(desc->transb, value, bytes);
    else if (name == CUBLASLT_MATMUL_DESC_EPILOGUE) take(desc->epilogue, value, bytes);
    else take(desc->bias, value, bytes);
  });
}

inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                                 std::uint64_t cols, std::int64_t ld) {
  const auto n = [](std::uint64_t x) { return static_cast<std::int64_t>(x); };
  return status([=] { *layout = new cublasLtMatrixLayoutOpaque_t{type, n(rows), n(cols), ld}; });
}
inline cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t name, const void* value,
                                                       std::size_t bytes) {
  return status([=] {
    if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) take(layout->batch, value, bytes);
    else take(layout->stride, value, bytes);
  });
}

inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return status([=] { *preference = new cublasLtMatmulPreferenceOpaque_t; });
}
inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return delete preference, CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                                           std::size_t bytes) {
  return status([=] {
    // Alignments do not matter here.
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) take(preference->workspace, value, bytes);
  });
}

inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int,
                                                     cublasLtMatmulHeuristicResult_t results[], int* found) {
  return status([=] {
    *found = 0;
    check_shapes({*desc, *a, *b, *d});
    const bool plain = desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT;
    supported(plain || refusal != Refusal::unsupported, "no algorithm has this epilogue");
    supported(desc->epilogue != CUBLASLT_EPILOGUE_BGRADB || d->batch == 1, "no algorithm has this epilogue");
    need(plain || refusal != Refusal::invalid, kOp, "an epilogue that this compute type does not have");
    const std::uint64_t workspace = std::min(preference->workspace, kWorkspace);
    results[0] = {{workspace}, workspace};
    *found = 1;
  });
}

inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                                     cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                                     const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                                     cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                                     std::size_t workspace_bytes, cudaStream_t stream) {
  return status([=] {
    supported(c == d && *c_layout == *d_layout, "C is not D");
    supported(desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT || refusal != Refusal::late, "not with these operands");
    need(algo->workspace <= workspace_bytes, kOp, "too small a workspace for the algorithm");
    need_device(kOp, "workspace: ", workspace, workspace_bytes);
    const Product p{*desc, *a_layout, *b_layout, *d_layout, a, b, d};
    desc->scale == CUDA_R_32F ? queue<float>(p, alpha, beta, stream) : queue<double>(p, alpha, beta, stream);
  });
}

}  // namespace stet::blas

using namespace stet::blas;
