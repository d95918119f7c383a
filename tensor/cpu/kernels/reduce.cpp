// Reductions over (outer, n, inner): along lines when inner is 1, over columns otherwise; positions of
// extremes; running sums.
#include <stet/tensor/cpu/kernels/tree.h>

namespace stet::cpu::STET_ISA {
namespace {

constexpr std::int64_t kLongLine = 65536;  // longer lines are cut into pieces of this many elements
constexpr std::int64_t kColumns = 64, kRowsPerPiece = 2048, kRowsPerLeaf = 64;

template <class Op, class T> T empty_value() {
  if constexpr (requires { Op::template identity<T>(); }) return Op::template identity<T>();
  else return T(0);
}

template <class Op, class T> void reduce_lines(const T* x, T* out, std::int64_t lines, std::int64_t n) {
  if (n > kLongLine) {
    const std::int64_t pieces = (n + kLongLine - 1) / kLongLine;
    T* partial = new T[static_cast<std::size_t>(lines * pieces)];
    parallel_for(lines * pieces, [&](std::int64_t job) {
      const T* line = x + job / pieces * n;
      const std::int64_t begin = job % pieces * kLongLine;
      const std::int64_t length = n - begin < kLongLine ? n - begin : kLongLine;
      partial[job] = reduce_tree<Op, T>(begin, length, [=](std::int64_t i) { return line[i]; });
    });
    for (std::int64_t i = 0; i < lines; ++i)
      out[i] = reduce_tree<Op, T>(i * pieces, pieces, [=](std::int64_t j) { return partial[j]; });
    delete[] partial;
    return;
  }
  const std::int64_t chunk = kChunk / n + 1;
  in_chunks(lines, chunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* line = x + i * n;
      out[i] = reduce_tree<Op, T>(0, n, [=](std::int64_t j) { return line[j]; });
    }
  });
}

/// out[c] = combination of rows [0, n) of `width` columns at x, row stride `inner`.
template <class Op, class T> inline void reduce_column_piece(const T* __restrict x, T* __restrict out, std::int64_t n,
                                                             std::int64_t inner, std::int64_t width) {
  for (std::int64_t row = 0; row < n; row += kRowsPerLeaf) {
    const std::int64_t end = n - row < kRowsPerLeaf ? n : row + kRowsPerLeaf;
    T leaf[kColumns];
    for (std::int64_t c = 0; c < width; ++c) leaf[c] = x[row * inner + c];
    for (std::int64_t r = row + 1; r < end; ++r)
      for (std::int64_t c = 0; c < width; ++c) leaf[c] = Op::eval(leaf[c], x[r * inner + c]);
    for (std::int64_t c = 0; c < width; ++c) out[c] = row == 0 ? leaf[c] : Op::eval(out[c], leaf[c]);
  }
}

template <class Op, class T> void reduce_columns(const T* x, T* out, const Reduce& job) {
  const std::int64_t blocks = (job.inner + kColumns - 1) / kColumns;
  const std::int64_t pieces = (job.n + kRowsPerPiece - 1) / kRowsPerPiece;
  T* partial = pieces > 1 ? new T[static_cast<std::size_t>(job.outer * pieces * job.inner)] : out;
  const auto work = [&](std::int64_t i) {
    const std::int64_t block = i % blocks, piece = i / blocks % pieces, outer = i / blocks / pieces;
    const std::int64_t column = block * kColumns, row = piece * kRowsPerPiece;
    const std::int64_t width = job.inner - column < kColumns ? job.inner - column : kColumns;
    const std::int64_t rows = job.n - row < kRowsPerPiece ? job.n - row : kRowsPerPiece;
    reduce_column_piece<Op>(x + (outer * job.n + row) * job.inner + column,
                            partial + (outer * pieces + piece) * job.inner + column, rows, job.inner, width);
  };
  const std::int64_t jobs = job.outer * pieces * blocks;
  const std::int64_t rows = job.n < kRowsPerPiece ? job.n : kRowsPerPiece;
  const std::int64_t per_chunk = kChunk / (rows * kColumns) + 1;  // small jobs are not worth a wake-up each
  in_chunks(jobs, per_chunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) work(i);
  });
  if (pieces == 1) return;
  for (std::int64_t o = 0; o < job.outer; ++o)
    for (std::int64_t c = 0; c < job.inner; ++c)
      out[o * job.inner + c] =
          reduce_tree<Op, T>(0, pieces, [=](std::int64_t p) { return partial[(o * pieces + p) * job.inner + c]; });
  delete[] partial;
}

template <class Op, class T> void reduce_kernel(const Reduce& job) {
  const T* x = static_cast<const T*>(job.in);
  T* out = static_cast<T*>(job.out);
  if (job.n == 0) {
    for (std::int64_t i = 0; i < job.outer * job.inner; ++i) out[i] = empty_value<Op, T>();
  } else if (job.inner == 1) {
    reduce_lines<Op>(x, out, job.outer, job.n);
  } else {
    reduce_columns<Op>(x, out, job);
  }
}

template <class T, bool smallest> void arg_kernel(const Reduce& job) {
  const T* x = static_cast<const T*>(job.in);
  auto* out = static_cast<std::int64_t*>(job.out);
  in_chunks(job.outer * job.inner, kChunk / job.n + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* line = x + i / job.inner * job.n * job.inner + i % job.inner;
      std::int64_t best = 0;
      for (std::int64_t j = 1; j < job.n; ++j) {
        const T now = line[j * job.inner], old = line[best * job.inner];
        const bool better = smallest ? now < old : now > old;
        if ((better || now != now) && !(old != old)) best = j;
      }
      out[i] = best;
    }
  });
}

template <class T> void cumsum_kernel(const Reduce& job) {
  const T* x = static_cast<const T*>(job.in);
  T* out = static_cast<T*>(job.out);
  parallel_for(job.outer, [&](std::int64_t o) {
    const std::int64_t base = o * job.n * job.inner;
    for (std::int64_t c = 0; c < job.inner && job.n > 0; ++c) out[base + c] = x[base + c];
    for (std::int64_t j = 1; j < job.n; ++j)
      for (std::int64_t c = 0; c < job.inner; ++c)
        out[base + j * job.inner + c] = Add::eval(out[base + (j - 1) * job.inner + c], x[base + j * job.inner + c]);
  });
}

template <class T> void set(Kernels& table) {
  constexpr auto t = static_cast<std::size_t>(dtype_of<T>);
  ReduceOps::for_each([&]<class Op>() { table.reduce[ReduceOps::index<Op>][t] = reduce_kernel<Op, T>; });
  table.arg_reduce[0][t] = arg_kernel<T, false>;
  table.arg_reduce[1][t] = arg_kernel<T, true>;
}

}  // namespace

void fill_reduce(Kernels& table) {
  set<float>(table);
  set<double>(table);
  set<std::int64_t>(table);
  table.cumsum[static_cast<std::size_t>(DType::f32)] = cumsum_kernel<float>;
  table.cumsum[static_cast<std::size_t>(DType::f64)] = cumsum_kernel<double>;
  table.cumsum[static_cast<std::size_t>(DType::i64)] = cumsum_kernel<std::int64_t>;
}

}  // namespace stet::cpu::STET_ISA
