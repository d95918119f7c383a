// cuBLASLt on the simulated device against a naive product, in every transposition, batch and epilogue.
#if defined(STET_CUDA_SIMULATED)
#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/bench.h"

namespace {

using namespace stet::test;

template <class T> struct Case {
  int m = 5, n = 7, k = 3, batch = 1, pad = 0;
  bool ta = false, tb = false;
  int epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  T alpha = 1, beta = 0;
};

/// A column-major matrix (or a batch of them) of numbers in -1 .. 1, with its layout.
template <class T> struct Matrix {
  int rows, cols, ld, batch;
  std::vector<T> host;
  T* device;
  cublasLtMatrixLayout_t layout = nullptr;
  Matrix(Bench& b, int r, int c, int pad, int batch_, int salt) : rows(r), cols(c), ld(r + pad), batch(batch_) {
    host.resize(static_cast<std::size_t>(ld * cols * batch));
    for (std::size_t i = 0; i < host.size(); ++i)
      host[i] = static_cast<T>((i * 37 + static_cast<std::size_t>(salt) * 11) % 41) / T(20) - 1;
    device = b.put(host);
    const auto type = sizeof(T) == 4 ? CUDA_R_32F : CUDA_R_64F;
    CHECK(cublasLtMatrixLayoutCreate(&layout, type, static_cast<unsigned>(rows), static_cast<unsigned>(cols), ld) == 0);
    const std::int64_t stride = ld * cols;
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
  }
  ~Matrix() { delete layout; }
  double at(bool transposed, int i, int j, int q) const {
    return host[static_cast<std::size_t>(q * ld * cols + (transposed ? i * ld + j : j * ld + i))];
  }
};

template <class T> cublasStatus_t multiply(Bench& b, const Case<T>& c, bool check_result = true) {
  Matrix<T> a(b, c.ta ? c.k : c.m, c.ta ? c.m : c.k, c.pad, c.batch, 1);
  Matrix<T> bb(b, c.tb ? c.n : c.k, c.tb ? c.k : c.n, c.pad, c.batch, 2);
  Matrix<T> d(b, c.m, c.n, c.pad, c.batch, 3);
  std::vector<T> bias(8);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<T>(i) / 4 - 1;
  T* bias_device = b.put(bias);

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&desc, sizeof(T) == 4 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_64F,
                           sizeof(T) == 4 ? CUDA_R_32F : CUDA_R_64F);
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    CHECK(cublasLtMatmulDescSetAttribute(desc, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, c.ta ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, c.tb ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<cublasLtEpilogue_t>(c.epilogue));
  set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_device);
  cublasLtMatmulPreferenceCreate(&preference);
  const std::uint64_t workspace = 1024;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, 8);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, bb.layout, d.layout, d.layout,
                                                         preference, 1, &result, &found);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatmul(handle, desc, &c.alpha, a.device, a.layout, bb.device, bb.layout, &c.beta, d.device,
                            d.layout, d.device, d.layout, &result.algo, b.room<char>(1024), 1024, b.stream);
  cublasLtMatmulPreferenceDestroy(preference);
  delete desc;
  delete handle;
  if (status != CUBLAS_STATUS_SUCCESS || !check_result) return status;
  if (c.epilogue & CUBLASLT_EPILOGUE_BGRADB) {
    const auto sums = b.get(bias_device, bias.size());
    for (int j = 0; j < c.n; ++j) {
      double sum = 0;
      for (int k = 0; k < c.k; ++k) sum += bb.at(c.tb, k, j, 0);
      CHECK(std::abs(sums[static_cast<std::size_t>(j)] - sum) < 1e-5);
    }
  }

  const auto got = b.get(d.device, d.host.size());
  double worst = 0;
  const auto compare = [&](double is, double expected) { worst = std::max(worst, std::abs(is - expected)); };
  for (int q = 0; q < c.batch; ++q)
    for (int j = 0; j < c.n; ++j)
      for (int i = 0; i < d.ld; ++i) {
        const auto at = static_cast<std::size_t>(q * d.ld * d.cols + j * d.ld + i);
        if (i >= c.m) {
          compare(got[at], d.host[at]);  // between the columns nothing is written
          continue;
        }
        double x = c.beta != 0 ? c.beta * d.at(false, i, j, q) : 0.0;
        for (int k = 0; k < c.k; ++k) x += c.alpha * a.at(c.ta, i, k, q) * bb.at(c.tb, k, j, q);
        if (c.epilogue & CUBLASLT_EPILOGUE_BIAS) x += bias[static_cast<std::size_t>(i)];
        if (c.epilogue & CUBLASLT_EPILOGUE_RELU) x = std::max(x, 0.0);
        compare(got[at], x);
      }
  CHECK(worst < 1e-5);
  return status;
}

TEMPLATE_TEST_CASE("cublasLt against a naive product", "", float, double) {
  for (int way = 0; way < 4; ++way)
    for (const int pad : {0, 3})
      for (const int batch : {1, 3}) {
        Bench b;
        Case<TestType> c;
        c.ta = way & 1, c.tb = way & 2, c.pad = pad, c.batch = batch;
        CHECK(multiply(b, c) == CUBLAS_STATUS_SUCCESS);
        c.alpha = TestType(0.5), c.beta = TestType(-2);
        CHECK(multiply(b, c) == CUBLAS_STATUS_SUCCESS);
        for (const int epilogue : {CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU_BIAS}) {
          c.epilogue = epilogue;
          CHECK(multiply(b, c) == CUBLAS_STATUS_SUCCESS);
        }
        c.epilogue = CUBLASLT_EPILOGUE_BGRADB;
        CHECK(multiply(b, c) == (batch == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED));
      }
}

TEST_CASE("cublasLt refuses what the real one refuses") {
  Bench b;
  Case<float> c;
  c.pad = -1;
  CHECK(multiply(b, c, false) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(has(last_message(), "[matmul] a leading dimension smaller than the number of rows"));
  c.pad = 0, c.k = 0;
  CHECK(multiply(b, c, false) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(has(last_message(), "[matmul] an empty matrix"));
  c.k = 3, c.epilogue = CUBLASLT_EPILOGUE_BIAS;
  for (const auto& [way, status] : {std::pair{Refusal::unsupported, CUBLAS_STATUS_NOT_SUPPORTED},
                                    {Refusal::invalid, CUBLAS_STATUS_INVALID_VALUE},
                                    {Refusal::late, CUBLAS_STATUS_NOT_SUPPORTED},
                                    {Refusal::none, CUBLAS_STATUS_SUCCESS}}) {
    refusal = way;
    CHECK(multiply(b, c, false) == status);
  }
  CHECK(cudaGetLastError() == cudaSuccess);
}

}  // namespace
#endif
