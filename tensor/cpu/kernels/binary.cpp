// Binary elementwise kernels, comparisons and selection: folds over BinaryOps and CompareOps.
#include <stet/tensor/cpu/kernels/loops.h>

namespace stet::cpu::STET_ISA {
namespace {

template <class Op, class T> void set_binary(Kernels& table) {
  table.binary[BinaryOps::index<Op>][static_cast<std::size_t>(dtype_of<T>)] = binary_kernel<Op, T, T>;
}
template <class Op, class T> void set_compare(Kernels& table) {
  table.compare[CompareOps::index<Op>][static_cast<std::size_t>(dtype_of<T>)] = binary_kernel<Op, T, bool>;
}

template <class T> void select_kernel(const Elementwise& e) {
  const bool* condition = static_cast<const bool*>(e.in[0]);
  const T* a = static_cast<const T*>(e.in[1]);
  const T* b = static_cast<const T*>(e.in[2]);
  T* out = static_cast<T*>(e.out);
  if (e.rank == 0) {
    *out = *condition ? *a : *b;
    return;
  }
  in_chunks(e.count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    for_runs<3>(e, begin, end, [&](std::int64_t at, std::int64_t n, const std::int64_t* offset) {
      const std::int64_t sc = e.stride[0][e.rank - 1], sa = e.stride[1][e.rank - 1], sb = e.stride[2][e.rank - 1];
      const bool* c = condition + offset[0];
      const T *x = a + offset[1], *y = b + offset[2];
      for (std::int64_t i = 0; i < n; ++i) out[at + i] = c[i * sc] ? x[i * sa] : y[i * sb];
    });
  });
}
template <class T> void set_select(Kernels& table) {
  table.select[static_cast<std::size_t>(dtype_of<T>)] = select_kernel<T>;
}

}  // namespace

void fill_binary(Kernels& table) {
  BinaryOps::for_each([&]<class Op>() {
    set_binary<Op, float>(table);
    set_binary<Op, double>(table);
    if constexpr (Op::integers) set_binary<Op, std::int64_t>(table);
  });
  CompareOps::for_each([&]<class Op>() {
    set_compare<Op, float>(table);
    set_compare<Op, double>(table);
    set_compare<Op, std::int64_t>(table);
  });
  set_select<float>(table);
  set_select<double>(table);
  set_select<std::int64_t>(table);
  set_select<std::int32_t>(table);
  set_select<std::uint8_t>(table);
  set_select<bool>(table);
  set_select<BFloat16>(table);
}

}  // namespace stet::cpu::STET_ISA
