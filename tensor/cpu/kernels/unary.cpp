// Unary elementwise kernels: a fold over UnaryOps; and the epilogue of a GEMM tile.
#include <stet/tensor/cpu/kernels/loops.h>

namespace stet::cpu::STET_ISA {
namespace {

template <class Op, class T> void set(Kernels& table) {
  table.unary[UnaryOps::index<Op>][static_cast<std::size_t>(dtype_of<T>)] = unary_kernel<Op, T>;
}

template <class Op, class T>
void epilogue(T* c, std::int64_t rows, std::int64_t cols, std::int64_t ldc, const T* bias) {
  for (std::int64_t i = 0; i < rows; ++i) {
    T* __restrict row = c + i * ldc;
    if (bias) {
      for (std::int64_t j = 0; j < cols; ++j) row[j] = Op::eval(row[j] + bias[j]);
    } else {
      for (std::int64_t j = 0; j < cols; ++j) row[j] = Op::eval(row[j]);
    }
  }
}

struct Identity {
  template <class T> STET_HD static T eval(T x) { return x; }
};

}  // namespace

template <class T>
void bias_activation(T* c, std::int64_t rows, std::int64_t cols, std::int64_t ldc, const T* bias, Activation act) {
  switch (act) {
    case Activation::none:
      if (bias) epilogue<Identity>(c, rows, cols, ldc, bias);
      return;
    case Activation::relu: return epilogue<Relu>(c, rows, cols, ldc, bias);
    case Activation::gelu: return epilogue<Gelu>(c, rows, cols, ldc, bias);
    case Activation::tanh: return epilogue<Tanh>(c, rows, cols, ldc, bias);
    case Activation::sigmoid: return epilogue<Sigmoid>(c, rows, cols, ldc, bias);
  }
}
template void bias_activation(float*, std::int64_t, std::int64_t, std::int64_t, const float*, Activation);
template void bias_activation(double*, std::int64_t, std::int64_t, std::int64_t, const double*, Activation);

void fill_unary(Kernels& table) {
  UnaryOps::for_each([&]<class Op>() {
    set<Op, float>(table);
    set<Op, double>(table);
    if constexpr (Op::integers) set<Op, std::int64_t>(table);
  });
}

}  // namespace stet::cpu::STET_ISA
