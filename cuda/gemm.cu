// Matrix products by cuBLASLt. A row-major C = A B is the column-major C^T = B^T A^T: the operands change places and
// nothing is copied. What cuBLASLt decided for a problem is kept, keyed by the problem.
#include <cublasLt.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>

#include <stet/cuda/launch.h>
#include <stet/tensor/error.h>

namespace stet::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what NVIDIA advises for Hopper

std::atomic<bool> tf32_allowed{false};

void check_blas(cublasStatus_t status, const Gemm& job) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::string more;
#if defined(STET_CUDA_SIMULATED)
  more = "; simulated: " + simulated::last_message();
#endif
  fail("matmul", "cuBLASLt status ", static_cast<int>(status), " for (", job.m, ", ", job.k, ") x (", job.k, ", ",
       job.n, "), lda ", job.lda, ", ldb ", job.ldb, ", ldc ", job.ldc, ", batch ", job.batch, more);
}

/// All that the choice of an algorithm depends on.
struct Key {
  std::int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
  std::int64_t flags;  // device, dtype, transposes, epilogue, TF32, alignment
  auto operator<=>(const Key&) const = default;
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;  // in cuBLAS's order: its A is our B
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace = 0;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;  // done by the product; the default where it has no such
};

int alignment_of(std::initializer_list<const void*> places) {
  std::uintptr_t bits = 256;
  for (const void* p : places) bits |= reinterpret_cast<std::uintptr_t>(p);
  return 1 << std::countr_zero(bits);
}

/// What rides on the product in f32: the bias, or the sums of A's rows, which are cuBLAS's "bias gradient of B".
/// Everything else is one more pass: its ReLU makes 0 of NaN. It does not say how it reads the vector: an odd place
/// is not for it.
cublasLtEpilogue_t epilogue_of(const Gemm& job) {
  if (job.dtype != DType::f32 || job.batch != 1 || (job.bias && job.row_sums)) return CUBLASLT_EPILOGUE_DEFAULT;
  if (job.bias && aligned(job.bias)) return CUBLASLT_EPILOGUE_BIAS;
  return job.row_sums && aligned(job.row_sums) ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_DEFAULT;
}

class Blas {
 public:
  /// Gives the epilogue that was done too.
  cublasLtEpilogue_t run(const Gemm& job) {
    const std::lock_guard lock(mutex_);
    Plan& plan = plan_of(job);
    ++count().launches;
    cublasStatus_t status = multiply(job, plan);
    if (status != CUBLAS_STATUS_SUCCESS && plan.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
      static_cast<void>(cudaGetLastError());
      status = choose(job, plan, CUBLASLT_EPILOGUE_DEFAULT);
      if (status == CUBLAS_STATUS_SUCCESS) status = multiply(job, plan);
    }
    check_blas(status, job);
    return plan.epilogue;
  }

 private:
  cublasStatus_t multiply(const Gemm& job, Plan& plan) {
    const void* vector = job.row_sums ? job.row_sums : job.bias;
    if (plan.epilogue != CUBLASLT_EPILOGUE_DEFAULT) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector, job);
    const float alpha = 1, beta = job.accumulate ? 1.0f : 0.0f;
    const double alpha64 = 1, beta64 = job.accumulate ? 1.0 : 0.0;
    const bool wide = job.dtype == DType::f64;
    if (plan.workspace > 0 && !workspace_) workspace_ = new Scratch("matmul", kWorkspace);
    return cublasLtMatmul(handle_, plan.operation, wide ? static_cast<const void*>(&alpha64) : &alpha, job.b, plan.a,
                          job.a, plan.b, wide ? static_cast<const void*>(&beta64) : &beta, job.c, plan.c, job.c, plan.c,
                          &plan.algorithm, workspace_ ? workspace_->as<void>() : nullptr, plan.workspace, stream());
  }

  template <class T> static void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name,
                                     const T& value, const Gemm& job) {
    check_blas(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value), job);
  }

  Plan& plan_of(const Gemm& job) {
    if (!handle_) check_blas(cublasLtCreate(&handle_), job);
    const bool tf32 = tf32_allowed && job.dtype == DType::f32;
    const int alignment = alignment_of({job.a, job.b, job.c});
    const std::int64_t flags = static_cast<std::int64_t>(job.dtype) | job.transpose_a << 8 | job.transpose_b << 9 |
                               tf32 << 10 | job.accumulate << 11 | static_cast<std::int64_t>(epilogue_of(job)) << 16 |
                               static_cast<std::int64_t>(alignment) << 32;
    const Key key{job.m,     job.n,        job.k,        job.lda,      job.ldb, job.ldc,
                  job.batch, job.stride_a, job.stride_b, job.stride_c, flags};
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    return plans_.emplace(key, make_plan(job, tf32)).first->second;
  }

  static cublasLtMatrixLayout_t layout(const Gemm& job, cudaDataType_t type, std::int64_t rows, std::int64_t cols,
                                       std::int64_t ld, std::int64_t stride) {
    cublasLtMatrixLayout_t out = nullptr;
    check_blas(
        cublasLtMatrixLayoutCreate(&out, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld),
        job);
    const auto batch = static_cast<std::int32_t>(job.batch);
    check_blas(cublasLtMatrixLayoutSetAttribute(out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), job);
    check_blas(
        cublasLtMatrixLayoutSetAttribute(out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
        job);
    return out;
  }

  Plan make_plan(const Gemm& job, bool tf32) {
    const bool wide = job.dtype == DType::f64;
    const cudaDataType_t type = wide ? CUDA_R_64F : CUDA_R_32F;
    const cublasComputeType_t compute = wide   ? CUBLAS_COMPUTE_64F
                                        : tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                               : CUBLAS_COMPUTE_32F;
    Plan plan;
    check_blas(cublasLtMatmulDescCreate(&plan.operation, compute, type), job);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, job.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, job);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, job.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, job);
    plan.a = job.transpose_b ? layout(job, type, job.k, job.n, job.ldb, job.stride_b)
                             : layout(job, type, job.n, job.k, job.ldb, job.stride_b);
    plan.b = job.transpose_a ? layout(job, type, job.m, job.k, job.lda, job.stride_a)
                             : layout(job, type, job.k, job.m, job.lda, job.stride_a);
    plan.c = layout(job, type, job.n, job.m, job.ldc, job.stride_c);
    cublasStatus_t status = choose(job, plan, epilogue_of(job));
    if (status != CUBLAS_STATUS_SUCCESS && epilogue_of(job) != CUBLASLT_EPILOGUE_DEFAULT)
      status = choose(job, plan, CUBLASLT_EPILOGUE_DEFAULT);
    check_blas(status, job);
    return plan;
  }

  /// Versions differ in how they say that no algorithm has an epilogue: any failure may mean it.
  cublasStatus_t choose(const Gemm& job, Plan& plan, cublasLtEpilogue_t epilogue) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue, job);
    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(cublasLtMatmulPreferenceCreate(&preference), job);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      check_blas(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value), job);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    const auto bytes = static_cast<std::uint32_t>(alignment_of({job.a, job.b, job.c}));
    for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(name, bytes);
    cublasLtMatmulHeuristicResult_t found{};
    int results = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.a, plan.b, plan.c,
                                                                 plan.c, preference, 1, &found, &results);
    static_cast<void>(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (results == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    plan.algorithm = found.algo;
    plan.workspace = found.workspaceSize;
    plan.epilogue = epilogue;
    return status;
  }

  std::mutex mutex_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
  Scratch* workspace_ = nullptr;
};

Blas& blas() { return of_current_device<Blas>(); }

/// Where element i of the results (batch, m, n) stands, and its column.
struct Place {
  std::int64_t at, column;
};
__device__ __forceinline__ Place place(std::int64_t i, std::int64_t m, std::int64_t n, std::int64_t ldc,
                                       std::int64_t stride) {
  const Split row = split(i, n), product = split(row.quotient, m);
  return {product.quotient * stride + product.rest * ldc + row.rest, row.rest};
}

/// c = act(c + bias), as far as the product has not done it.
template <class Op, class T> struct EpilogueBody {
  Pointer<T> c;
  Pointer<const T> bias;
  std::int64_t m, n, ldc, stride;
  __device__ void operator()(std::int64_t i) const {
    const Place to = place(i, m, n, ldc, stride);
    c[to.at] = Op::eval(bias ? c[to.at] + bias[to.column] : c[to.at]);
  }
};
struct Identity {
  template <class T> STET_HD static T eval(T x) { return x; }
};

template <class T> void epilogue(const Gemm& job, const void* bias) {
  const auto run = [&]<class Op>() {
    for_each(
        "linear",
        EpilogueBody<Op, T>{static_cast<T*>(job.c), static_cast<const T*>(bias), job.m, job.n, job.ldc, job.stride_c},
        job.batch * job.m * job.n);
  };
  switch (job.activation) {
    case Activation::none:
      if (bias) run.template operator()<Identity>();
      return;
    case Activation::relu: return run.template operator()<Relu>();
    case Activation::gelu: return run.template operator()<Gelu>();
    case Activation::tanh: return run.template operator()<Tanh>();
    case Activation::sigmoid: return run.template operator()<Sigmoid>();
  }
}

template <class T> struct ClearBody {
  Pointer<T> c;
  std::int64_t m, n, ldc, stride;
  __device__ void operator()(std::int64_t i) const { c[place(i, m, n, ldc, stride).at] = T(0); }
};

/// An empty sum is zero.
void clear(const Gemm& job) {
  const auto run = [&]<class T>() {
    for_each("matmul", ClearBody<T>{static_cast<T*>(job.c), job.m, job.n, job.ldc, job.stride_c},
             job.batch * job.m * job.n);
  };
  job.dtype == DType::f32 ? run.template operator()<float>() : run.template operator()<double>();
}

void gemm(const Gemm& job) {
  cublasLtEpilogue_t done = CUBLASLT_EPILOGUE_DEFAULT;
  if (job.k > 0) done = blas().run(job);
  else if (!job.accumulate) clear(job);
  const void* bias = done == CUBLASLT_EPILOGUE_BIAS ? nullptr : job.bias;
  if (job.row_sums && done != CUBLASLT_EPILOGUE_BGRADB) {
    if (job.transpose_a) sum(job.dtype, {1, job.k, job.m, job.a, job.row_sums});
    else sum(job.dtype, {job.m, job.k, 1, job.a, job.row_sums});
  }
  if (job.dtype == DType::f32) epilogue<float>(job, bias);
  else epilogue<double>(job, bias);
}

}  // namespace

void allow_tf32(bool allow) { tf32_allowed = allow; }
void fill_gemm(Kernels& table) { table.gemm = gemm; }

}  // namespace stet::cuda
