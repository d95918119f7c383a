// Data movement by index. Sums by index are deterministic: a stable sort brings equal indices together in their
// order, and one thread adds up each run, as the CPU does.
#include <stet/cuda/kernels/sort.h>
#include <stet/cuda/launch.h>

namespace stet::cuda {
namespace {

/// Elements are moved as T. `across`: every element of the result has an index of its own (gather); otherwise
/// `inner` elements side by side share one (index_select).
template <class T, bool across> struct TakeBody {
  Checked op;
  std::int64_t n, count, inner;
  Pointer<T> out;
  Pointer<const T> table;
  Pointer<const std::int64_t> index;
  Pointer<Complaint> complaint;

  __device__ void operator()(std::int64_t i) const {
    const Split column = split(i, inner), line = split(column.quotient, count);
    const std::int64_t place = across ? i : line.rest;
    const std::int64_t row = checked(index[place], n, place, op, complaint);
    out[i] = table[(line.quotient * n + row) * inner + column.rest];
  }
};

/// Runs of equal indices in sorted order: thread (outer, place, column) adds a run if it stands at its start.
/// `across`: every column has indices of its own (scatter_add); otherwise all columns share them (index_add).
template <class T, bool across> struct AddRunsBody {
  Checked op;
  std::int64_t n, count, inner;
  Pointer<T> out;
  Pointer<const T> source;
  Pointer<const std::int64_t> sorted, order;
  Pointer<Complaint> complaint;

  __device__ __forceinline__ std::int64_t slot(std::int64_t outer, std::int64_t place, std::int64_t column) const {
    return across ? (outer * count + place) * inner + column : place;
  }
  static __device__ __forceinline__ T add(T a, T b) {
    if constexpr (std::is_same_v<T, bool>) return a || b;
    else if constexpr (std::is_same_v<T, BFloat16>) return BFloat16(static_cast<float>(a) + static_cast<float>(b));
    else return Add::eval(a, b);
  }
  __device__ void operator()(std::int64_t i) const {
    const Split in_line = split(i, inner), line = split(in_line.quotient, count);
    const std::int64_t column = in_line.rest, place = line.rest, outer = line.quotient;
    const std::int64_t target = sorted[slot(outer, place, column)];
    if (place > 0 && sorted[slot(outer, place - 1, column)] == target) return;
    const std::int64_t first = order[slot(outer, place, column)];
    if (checked(target, n, across ? slot(outer, first, column) : first, op, complaint) != target) return;
    const std::int64_t to = (outer * n + target) * inner + column;
    T sum = out[to];
    for (std::int64_t p = place; p < count && sorted[slot(outer, p, column)] == target; ++p)
      sum = add(sum, source[(outer * count + order[slot(outer, p, column)]) * inner + column]);
    out[to] = sum;
  }
};

/// body<T>() with the unsigned or vector type that moves `bytes` bytes at the given places.
template <class Run> void by_width(std::int64_t bytes, std::initializer_list<const void*> places, const Run& run) {
  bool fits = true;
  for (const void* p : places) fits = fits && aligned(p);
  if (bytes % 16 == 0 && fits) return run.template operator()<uint4>();
  if (bytes % 4 == 0) return run.template operator()<std::uint32_t>();
  if (bytes % 2 == 0) return run.template operator()<std::uint16_t>();
  run.template operator()<std::uint8_t>();
}

void index_select(const Indexing& job) {
  const std::int64_t bytes = job.inner * size_of(job.dtype);
  by_width(bytes, {job.table, job.out}, [&]<class T>() {
    const std::int64_t inner = bytes / static_cast<std::int64_t>(sizeof(T));
    for_each("index_select",
             TakeBody<T, false>{job.op, job.n, job.count, inner, static_cast<T*>(job.out),
                                static_cast<const T*>(job.table), job.index, complaint()},
             job.outer * job.count * inner);
  });
}

void gather(const Indexing& job) {
  const auto run = [&]<class T>() {
    for_each("gather",
             TakeBody<T, true>{job.op, job.n, job.count, job.inner, static_cast<T*>(job.out),
                               static_cast<const T*>(job.table), job.index, complaint()},
             job.outer * job.count * job.inner);
  };
  switch (size_of(job.dtype)) {
    case 1: return run.template operator()<std::uint8_t>();
    case 2: return run.template operator()<std::uint16_t>();
    case 4: return run.template operator()<std::uint32_t>();
    default: return run.template operator()<std::uint64_t>();
  }
}

template <bool across> void add_by_index(const Indexing& job) {
  const std::string_view op = across ? "scatter_add" : "index_add";
  const std::int64_t outer = across ? job.outer : 1, inner = across ? job.inner : 1;
  const std::int64_t bytes = outer * job.count * inner * static_cast<std::int64_t>(sizeof(std::int64_t));
  const Scratch sorted(op, bytes), order(op, bytes);
  sort_indices(op, job.index, outer, job.count, inner, sorted.as<std::int64_t>(), order.as<std::int64_t>());
  dispatch(job.dtype, [&]<class T>() {
    for_each(op,
             AddRunsBody<T, across>{job.op, job.n, job.count, job.inner, static_cast<T*>(job.out),
                                    static_cast<const T*>(job.table), sorted.as<std::int64_t>(),
                                    order.as<std::int64_t>(), complaint()},
             job.outer * job.count * job.inner);
  });
}

}  // namespace

void fill_indexing(Kernels& table) {
  table.index_select = index_select;
  table.gather = gather;
  table.index_add = add_by_index<false>;
  table.scatter_add = add_by_index<true>;
}

}  // namespace stet::cuda
