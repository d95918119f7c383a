// Data movement by index, and sorting. Sums by index run in the order of the indices: the same bits every
// time.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <stet/tensor/cpu/cpu.h>
#include <stet/tensor/threads.h>

namespace stet::cpu {
namespace {

constexpr std::int64_t kChunk = 16384, kColumns = 64, kLine = 16;

void index_select_kernel(const Indexing& job) {
  const std::int64_t bytes = job.inner * size_of(job.dtype), rows = job.outer * job.count;
  const std::int64_t per_chunk = kChunk * 4 / std::max<std::int64_t>(bytes, 1) + 1;
  parallel_for((rows + per_chunk - 1) / per_chunk, [&](std::int64_t chunk) {
    for (std::int64_t i = chunk * per_chunk; i < std::min(rows, (chunk + 1) * per_chunk); ++i) {
      const std::int64_t from = i / job.count * job.n + job.index[i % job.count];
      std::memcpy(static_cast<char*>(job.out) + i * bytes, static_cast<const char*>(job.table) + from * bytes,
                  static_cast<std::size_t>(bytes));
    }
  });
}

template <class T> void add(T& target, T value) {
  if constexpr (std::is_same_v<T, bool>) target = target || value;
  else if constexpr (std::is_same_v<T, BFloat16>)
    target = BFloat16(static_cast<float>(target) + static_cast<float>(value));
  else target = Add::eval(target, value);
}

void index_add_kernel(const Indexing& job) {
  dispatch(job.dtype, [&]<class T>() {
    const T* table = static_cast<const T*>(job.table);
    T* out = static_cast<T*>(job.out);
    const std::int64_t blocks = (job.inner + kColumns - 1) / kColumns;
    const bool small = job.count * job.inner < kChunk;
    const auto column = [&](std::int64_t block) {  // where it starts: even blocks of whole cache lines
      return std::min(job.inner, (job.inner + kLine - 1) / kLine * block / blocks * kLine);
    };
    const auto work = [&](std::int64_t task) {
      const std::int64_t o = task / blocks, c0 = column(task % blocks), c1 = column(task % blocks + 1);
      for (std::int64_t i = 0; i < job.count; ++i) {
        const T* from = table + (o * job.count + i) * job.inner;
        T* to = out + (o * job.n + job.index[i]) * job.inner;
        for (std::int64_t c = c0; c < c1; ++c) add(to[c], from[c]);
      }
    };
    if (small)
      for (std::int64_t task = 0; task < job.outer * blocks; ++task) work(task);
    else parallel_for(job.outer * blocks, work);
  });
}

/// body(table position, position of the index) for all indices of one outer line.
template <class Body> void for_gather(const Indexing& job, std::int64_t outer, const Body& body) {
  const std::int64_t base = outer * job.count * job.inner, table = outer * job.n * job.inner;
  for (std::int64_t i = 0; i < job.count * job.inner; ++i)
    body(table + job.index[base + i] * job.inner + i % job.inner, base + i);
}

void gather_kernel(const Indexing& job) {
  dispatch(job.dtype, [&]<class T>() {
    const T* table = static_cast<const T*>(job.table);
    T* out = static_cast<T*>(job.out);
    for (std::int64_t o = 0; o < job.outer; ++o)
      for_gather(job, o, [&](std::int64_t from, std::int64_t to) { out[to] = table[from]; });
  });
}

void scatter_add_kernel(const Indexing& job) {
  dispatch(job.dtype, [&]<class T>() {
    const T* source = static_cast<const T*>(job.table);
    T* out = static_cast<T*>(job.out);
    for (std::int64_t o = 0; o < job.outer; ++o)
      for_gather(job, o, [&](std::int64_t to, std::int64_t from) { add(out[to], source[from]); });
  });
}

/// Total order with NaN last when ascending, first when descending (it counts as the largest).
template <class T> bool before(T a, T b) { return a < b || (b != b && a == a); }

template <class T>
void sort_line(const Sort& job, std::int64_t outer, std::int64_t inner, std::vector<std::int64_t>& order) {
  const T* in = static_cast<const T*>(job.in) + outer * job.n * job.inner + inner;
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto less = [&](std::int64_t i, std::int64_t j) {
    const T a = in[i * job.inner], b = in[j * job.inner];
    if (job.descending ? before(b, a) : before(a, b)) return true;
    if (job.descending ? before(a, b) : before(b, a)) return false;
    return i < j;  // stable, also where only the first k are sorted
  };
  if (job.k == job.n) std::sort(order.begin(), order.end(), less);
  else std::partial_sort(order.begin(), order.begin() + job.k, order.end(), less);
  T* values = static_cast<T*>(job.values) + outer * job.k * job.inner + inner;
  std::int64_t* indices = job.indices + outer * job.k * job.inner + inner;
  for (std::int64_t i = 0; i < job.k; ++i) {
    indices[i * job.inner] = order[static_cast<std::size_t>(i)];
    values[i * job.inner] = in[order[static_cast<std::size_t>(i)] * job.inner];
  }
}

void sort_kernel(const Sort& job) {
  dispatch(job.dtype, [&]<class T>() {
    if constexpr (!std::is_same_v<T, BFloat16>) {
      const std::int64_t lines = job.outer * job.inner, per_chunk = kChunk / 8 / job.n + 1;
      parallel_for((lines + per_chunk - 1) / per_chunk, [&](std::int64_t chunk) {
        std::vector<std::int64_t> order(static_cast<std::size_t>(job.n));
        for (std::int64_t i = chunk * per_chunk; i < std::min(lines, (chunk + 1) * per_chunk); ++i)
          sort_line<T>(job, i / job.inner, i % job.inner, order);
      });
    }
  });
}

}  // namespace

void fill_indexing(Kernels& table) {
  table.index_select = index_select_kernel;
  table.index_add = index_add_kernel;
  table.gather = gather_kernel;
  table.scatter_add = scatter_add_kernel;
  table.sort = sort_kernel;
}

}  // namespace stet::cpu
