// Elementwise kernels: folds over the lists of tensor/elementwise.h, whose functors the CPU's kernels share. One
// kernel for contiguous operands and numbers, which moves 16 bytes at a time, and one for any strides.
#include <algorithm>

#include <stet/cuda/kernels/layout.h>

namespace stet::cuda {
namespace {

struct Select {
  static constexpr std::string_view name = "where";
  template <class T> STET_HD static T eval(bool condition, T a, T b) { return condition ? a : b; }
};

/// out[i] = F(a[i], b[i], c[i]) with strides; the first operand is of type A, the others of type B.
template <class F, int N, class A, class B, class R> struct Strided {
  Pointer<R> out;
  Operand<A> a;
  Operand<B> b, c;
  Layout<N> layout;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t at[N];
    layout.offsets(i, at);
    if constexpr (N == 1) out[i] = F::eval(a.get(at[0]));
    else if constexpr (N == 2) out[i] = F::eval(a.get(at[0]), b.get(at[1]));
    else out[i] = F::eval(a.get(at[0]), b.get(at[1]), c.get(at[2]));
  }
};

/// The same without strides: thread i takes the i-th pack of elements. All types have one size, or, for
/// comparisons and selections, elements are moved one by one.
template <class F, int N, class A, class B, class R> struct Flat {
  static constexpr bool packed = sizeof(A) == sizeof(R) && (N == 1 || sizeof(B) == sizeof(R));
  static constexpr int width = packed && N <= 2 ? Pack<R>::width : 1;
  Pointer<R> out;
  Operand<A> a;
  Operand<B> b, c;
  std::int64_t count;

  template <class T> static __device__ __forceinline__ Pack<T> pack(const Operand<T>& x, std::int64_t i) {
    if (x.at) return load_pack<T>(x.at, i);
    Pack<T> all;
    for (int k = 0; k < Pack<T>::width; ++k) all.at[k] = x.number;
    return all;
  }
  __device__ void one(std::int64_t i) const {
    if constexpr (N == 1) out[i] = F::eval(a.get(i));
    else if constexpr (N == 2) out[i] = F::eval(a.get(i), b.get(i));
    else out[i] = F::eval(a.get(i), b.get(i), c.get(i));
  }
  __device__ void operator()(std::int64_t thread) const {
    const std::int64_t i = thread * width;
    if constexpr (width > 1) {
      if (i + width <= count) {
        const Pack<A> x = pack(a, i);
        Pack<R> y;
        if constexpr (N == 1) {
          for (int k = 0; k < width; ++k) y.at[k] = F::eval(x.at[k]);
        } else {
          const Pack<B> z = pack(b, i);
          for (int k = 0; k < width; ++k) y.at[k] = F::eval(x.at[k], z.at[k]);
        }
        store_pack<R>(out, i, y);
        return;
      }
    }
    for (std::int64_t j = i; j < count && j < i + width; ++j) one(j);
  }
};

/// Whether every operand is a number or lies as the result does, in memory that a pack may be read from.
bool is_flat(const Elementwise& job, int operands) {
  bool flat = job.rank <= 1 && aligned(job.out);
  for (int k = 0; k < operands; ++k)
    flat = flat && (job.host >> k & 1u || ((job.rank == 0 || job.stride[k][0] == 1) && aligned(job.in[k])));
  return flat;
}

template <class F, int N, class A, class B, class R> void run(const Elementwise& job) {
  const auto operand = [&]<class T>(int k) { return k < N ? Operand<T>(job.in[k], job.host >> k & 1u) : Operand<T>(); };
  const Operand<A> a = operand.template operator()<A>(0);
  const Operand<B> b = operand.template operator()<B>(1), c = operand.template operator()<B>(2);
  R* out = static_cast<R*>(job.out);
  if (is_flat(job, N)) {
    using Body = Flat<F, N, A, B, R>;
    return for_each(F::name, Body{out, a, b, c, job.count}, ceil_div(job.count, Body::width));
  }
  const auto layout = [&] {
    if constexpr (N == 1) return Layout<N>(job.rank, job.size, job.count, {job.stride[0]});
    else if constexpr (N == 2) return Layout<N>(job.rank, job.size, job.count, {job.stride[0], job.stride[1]});
    else return Layout<N>(job.rank, job.size, job.count, {job.stride[0], job.stride[1], job.stride[2]});
  };
  for_each(F::name, Strided<F, N, A, B, R>{out, a, b, c, layout()}, job.count);
}

template <class T> constexpr std::size_t at = static_cast<std::size_t>(dtype_of<T>);

template <class T> void fill_for(Kernels& table) {
  UnaryOps::for_each([&]<class Op>() {
    if constexpr (Op::integers || std::is_floating_point_v<T>)
      table.unary[UnaryOps::index<Op>][at<T>] = run<Op, 1, T, T, T>;
  });
  BinaryOps::for_each([&]<class Op>() {
    if constexpr (Op::integers || std::is_floating_point_v<T>)
      table.binary[BinaryOps::index<Op>][at<T>] = run<Op, 2, T, T, T>;
  });
  CompareOps::for_each([&]<class Op>() { table.compare[CompareOps::index<Op>][at<T>] = run<Op, 2, T, T, bool>; });
}

template <class... T> void fill_select(Kernels& table) { ((table.select[at<T>] = run<Select, 3, bool, T, T>), ...); }

}  // namespace

void fill_elementwise(Kernels& table) {
  fill_for<float>(table);
  fill_for<double>(table);
  fill_for<std::int64_t>(table);
  fill_select<float, double, std::int64_t, std::int32_t, std::uint8_t, bool, BFloat16>(table);
}

}  // namespace stet::cuda
