// GEMM on OpenBLAS, single-threaded inside the project's own pool: the product is cut into tiles whose size
// depends on the shape alone, and each tile gets its bias and activation while it is in cache.
#include <cblas.h>

#include <algorithm>
#include <mutex>

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
  std::int64_t rows, cols;          // of one tile
  std::int64_t down, across;        // how many
};

/// Tiles of about a million multiply-adds or more, the larger side cut first.
Tiles tiles_for(std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kWork = 400'000;
  Tiles t{m, n, 1, 1};
  const auto work = [&] { return t.rows * t.cols * k; };
  while (work() > 2 * kWork && t.down * t.across < 16 && (t.rows > 64 || t.cols > 64)) {
    if (t.rows >= t.cols) t.rows = (t.rows / 2 + 15) / 16 * 16;
    else t.cols = (t.cols / 2 + 15) / 16 * 16;
    t.down = (m + t.rows - 1) / t.rows;
    t.across = (n + t.cols - 1) / t.cols;
  }
  return t;
}

template <class T, class Epilogue>
void gemm_typed(const Gemm& job, Epilogue epilogue) {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
  const Tiles t = tiles_for(job.m, job.n, std::max<std::int64_t>(job.k, 1));
  const std::int64_t per_matrix = t.down * t.across;
  const std::int64_t cost = job.m * job.n * std::max<std::int64_t>(job.k, 1) / per_matrix;
  const std::int64_t per_chunk = per_matrix > 1 ? 1 : std::max<std::int64_t>(1, 200'000 / std::max<std::int64_t>(cost, 1));
  const auto ta = job.transpose_a ? CblasTrans : CblasNoTrans, tb = job.transpose_b ? CblasTrans : CblasNoTrans;
  const auto tile = [&](std::int64_t index) {
    const std::int64_t batch = index / per_matrix, row = index % per_matrix / t.across * t.rows,
                       col = index % t.across * t.cols;
    const std::int64_t rows = std::min(t.rows, job.m - row), cols = std::min(t.cols, job.n - col);
    const T* a = static_cast<const T*>(job.a) + batch * job.stride_a + (job.transpose_a ? row : row * job.lda);
    const T* b = static_cast<const T*>(job.b) + batch * job.stride_b + (job.transpose_b ? col * job.ldb : col);
    T* c = static_cast<T*>(job.c) + batch * job.stride_c + row * job.ldc + col;
    if (job.k == 0) {
      if (!job.accumulate)
        for (std::int64_t i = 0; i < rows; ++i) std::fill_n(c + i * job.ldc, cols, T(0));
    } else {
      sgemm(ta, tb, static_cast<blasint>(rows), static_cast<blasint>(cols), static_cast<blasint>(job.k),
            T(job.accumulate), a, static_cast<blasint>(job.lda), b, static_cast<blasint>(job.ldb), c,
            static_cast<blasint>(job.ldc));
    }
    epilogue(c, rows, cols, job.ldc, job.bias ? static_cast<const T*>(job.bias) + col : nullptr, job.activation);
  };
  const std::int64_t total = per_matrix * job.batch;
  parallel_for((total + per_chunk - 1) / per_chunk, [&](std::int64_t chunk) {
    for (std::int64_t i = chunk * per_chunk; i < std::min(total, (chunk + 1) * per_chunk); ++i) tile(i);
  });
}

void gemm_kernel(const Gemm& job) {
  if (job.dtype == DType::f32) gemm_typed<float>(job, epilogues().f32);
  else gemm_typed<double>(job, epilogues().f64);
}

}  // namespace

void fill_gemm(Kernels& table) { table.gemm = gemm_kernel; }

}  // namespace stet::cpu
