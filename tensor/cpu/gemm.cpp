// GEMM: kernels/gemm.cpp for small products, kernels/packed.cpp for large ones, and OpenBLAS for f64 and batches of
// products in between, single-threaded inside the project's own pool. The product is cut into tiles whose size depends
// on the shape alone; each gets its bias and activation in cache.
#include <cblas.h>

#include <algorithm>
#include <limits>
#include <mutex>

#include <stet/tensor/cpu/allocator.h>
#include <stet/tensor/cpu/cpu.h>
#include <stet/tensor/threads.h>

namespace stet::cpu {
namespace {

void sgemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k, float beta, const float* a,
           blasint lda, const float* b, blasint ldb, float* c, blasint ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
}
void sgemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k, double beta, const double* a,
           blasint lda, const double* b, blasint ldb, double* c, blasint ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc);
}

struct Tiles {
  std::int64_t rows, cols;    // of one tile
  std::int64_t down, across;  // how many
};

/// At most 16 tiles, each of at least `work` multiply-adds and `area` elements of C; the larger side is cut first.
Tiles tiles_for(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t work, std::int64_t area) {
  Tiles t{m, n, 1, 1};
  while (t.rows * t.cols * k >= 2 * work && t.rows * t.cols >= 2 * area && t.down * t.across < 16) {
    std::int64_t& side = t.rows >= t.cols ? t.rows : t.cols;
    if (side < 32) break;
    side = (side / 2 + 15) / 16 * 16;
    t.down = (m + t.rows - 1) / t.rows;
    t.across = (n + t.cols - 1) / t.cols;
  }
  return t;
}

template <class T> void clear(T* c, std::int64_t rows, std::int64_t cols, std::int64_t ldc) {
  for (std::int64_t i = 0; i < rows; ++i) std::fill_n(c + i * ldc, cols, T(0));
}

/// multiply(a, b, c, rows, cols) for every tile, then its epilogue.
template <class T, class Multiply, class Epilogue>
void for_tiles(const Gemm& job, const Tiles& t, const Multiply& multiply, Epilogue epilogue) {
  const std::int64_t per_matrix = t.down * t.across, total = per_matrix * job.batch;
  const std::int64_t cost = job.m * job.n * std::max<std::int64_t>(job.k, 1) / per_matrix;
  const std::int64_t per_chunk = per_matrix > 1 ? 1 : 200'000 / std::max<std::int64_t>(cost, 1) + 1;
  parallel_for((total + per_chunk - 1) / per_chunk, [&](std::int64_t chunk) {
    for (std::int64_t i = chunk * per_chunk; i < std::min(total, (chunk + 1) * per_chunk); ++i) {
      const std::int64_t batch = i / per_matrix, row = i % per_matrix / t.across * t.rows, col = i % t.across * t.cols;
      const std::int64_t rows = std::min(t.rows, job.m - row), cols = std::min(t.cols, job.n - col);
      const T* a = static_cast<const T*>(job.a) + batch * job.stride_a + (job.transpose_a ? row : row * job.lda);
      const T* b = static_cast<const T*>(job.b) + batch * job.stride_b + (job.transpose_b ? col * job.ldb : col);
      T* c = static_cast<T*>(job.c) + batch * job.stride_c + row * job.ldc + col;
      if (job.k > 0) multiply(a, b, c, rows, cols);
      else if (!job.accumulate) clear(c, rows, cols, job.ldc);
      epilogue(c, rows, cols, job.ldc, job.bias ? static_cast<const T*>(job.bias) + col : nullptr, job.activation);
    }
  });
}

template <class T, class Epilogue> void blas_gemm(const Gemm& job, Epilogue epilogue) {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
  for (const std::int64_t size : {job.m, job.n, job.k, job.lda, job.ldb, job.ldc})
    check(size <= std::numeric_limits<blasint>::max(), "matmul", "a dimension or stride of ", size,
          ": OpenBLAS takes up to ", std::numeric_limits<blasint>::max());
  const auto ta = job.transpose_a ? CblasTrans : CblasNoTrans, tb = job.transpose_b ? CblasTrans : CblasNoTrans;
  const auto multiply = [&](const T* a, const T* b, T* c, std::int64_t rows, std::int64_t cols) {
    sgemm(ta, tb, static_cast<blasint>(rows), static_cast<blasint>(cols), static_cast<blasint>(job.k),
          T(job.accumulate), a, static_cast<blasint>(job.lda), b, static_cast<blasint>(job.ldb), c,
          static_cast<blasint>(job.ldc));
  };
  // Every tile packs its part of both operands anew: cutting a large product small costs up to a quarter of its time,
  // but one that is not cut keeps a single thread busy.
  const std::int64_t k = std::max<std::int64_t>(job.k, 1);
  const std::int64_t area = std::clamp<std::int64_t>(job.m * job.n / 8, 8'192, 65'536);
  for_tiles<T>(job, tiles_for(job.m, job.n, k, 2'500'000, area), multiply, epilogue);
}

/// Where packing once for all threads is the better choice: not for many small matrices, of which each thread takes
/// some.
bool packed_serves(const Gemm& job) { return job.k > 0 && (job.batch == 1 || job.m * job.n * job.k >= 8'000'000); }

/// Each matrix of the batch by all threads. False where there is no memory for the panels.
bool packed_gemm(const Gemm& job, const GemmParts& parts) {
  const std::int64_t bytes = parts.packed_floats(job) * static_cast<std::int64_t>(sizeof(float));
  auto* scratch = static_cast<float*>(allocate(bytes));
  if (!scratch) return false;
  for (std::int64_t i = 0; i < job.batch; ++i)
    parts.packed(job, static_cast<const float*>(job.a) + i * job.stride_a,
                 static_cast<const float*>(job.b) + i * job.stride_b, static_cast<float*>(job.c) + i * job.stride_c,
                 scratch);
  deallocate(scratch, bytes);
  return true;
}

void product(const Gemm& job) {
  const GemmParts& parts = gemm_parts();
  if (job.dtype == DType::f64) return blas_gemm<double>(job, parts.epilogue64);
  if (parts.small_serves(job)) {
    const auto multiply = [&](const float* a, const float* b, float* c, std::int64_t rows, std::int64_t cols) {
      parts.small(job, a, b, c, rows, cols);
    };
    // Few rows wait for memory, which two threads read faster than one; many keep their thread busy with arithmetic.
    const bool few = job.m < 4;
    const Tiles tiles = tiles_for(job.m, job.n, job.k, few ? 40'000 : 150'000, few ? 64 : 256);
    return for_tiles<float>(job, tiles, multiply, parts.epilogue32);
  }
  if (!packed_serves(job) || !packed_gemm(job, parts)) blas_gemm<float>(job, parts.epilogue32);
}

void gemm_kernel(const Gemm& job) {
  product(job);
  if (!job.row_sums) return;
  const Reduce sums =
      job.transpose_a ? Reduce{1, job.k, job.m, job.a, job.row_sums} : Reduce{job.m, job.k, 1, job.a, job.row_sums};
  table().reduce[ReduceOps::index<Sum>][static_cast<std::size_t>(job.dtype)](sums);
}

}  // namespace

void fill_gemm(Kernels& table) { table.gemm = gemm_kernel; }

}  // namespace stet::cpu
