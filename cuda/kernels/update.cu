// The optimizers' fused pass over all parameters of a group in one launch: the jobs travel as a kernel argument, so
// that a step copies nothing to the device. A block takes 1,024 elements of one parameter; blocks whose elements are
// all masked leave at once, and touch no memory of the parameter. The sum of squares for clipping goes the same way.
#include <vector>

#include <stet/cuda/kernels/block.h>

namespace stet::cuda {
namespace {

constexpr std::int64_t kSpan = 1024;          // elements of a block that updates
constexpr std::int64_t kSquaresSpan = 16384;  // and of one that sums squares

/// An UpdateMask in a kernel.
struct Allowed {
  Pointer<const std::int64_t> ranges;
  Pointer<const std::uint32_t> bits;
  std::int64_t range_count;

  /// The first range that ends after `begin`.
  __device__ __forceinline__ std::int64_t range_after(std::int64_t begin) const {
    std::int64_t low = 0, high = range_count;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (ranges[2 * middle + 1] <= begin) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  __device__ __forceinline__ bool may_change(std::int64_t i) const {
    if (bits) return bits[i / 32] >> (i % 32) & 1u;
    if (!ranges) return true;
    const std::int64_t r = range_after(i);
    return r < range_count && ranges[2 * r] <= i;
  }
  __device__ __forceinline__ bool none_in(std::int64_t begin, std::int64_t end) const {
    if (!ranges) return false;
    const std::int64_t r = range_after(begin);
    return r == range_count || ranges[2 * r] >= end;
  }
};
Allowed allowed(const UpdateMask& mask) { return {mask.ranges, mask.bits, mask.range_count}; }

template <class T> struct Entry {
  Pointer<T> parameter, state[3];
  Pointer<const T> gradient, importance, anchor;
  Pointer<const double> grad_scale;
  Allowed mask;
  std::int64_t count, first_block;
  T penalty;
};

/// Kernel arguments may take 4 KiB everywhere, 32 KiB from CUDA 12.1 on.
template <class T, int Capacity> struct Entries {
  int count = 0;
  T clip;
  UpdateCoefficients<T> coefficients;
  Entry<T> at[Capacity];
};

/// The tensor that this block belongs to: the last one that starts at or before it.
template <class Entries> __device__ __forceinline__ const auto& mine_of(const Entries& entries) {
  int low = 0, high = entries.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (entries.at[middle].first_block <= blockIdx.x) low = middle;
    else high = middle - 1;
  }
  return entries.at[low];
}

template <class Rule, class T>
__device__ __forceinline__ void update_one(const Entry<T>& e, T clip, const UpdateCoefficients<T>& c, std::int64_t i) {
  T value = e.parameter[i], state[3] = {T(0), T(0), T(0)};
  T g = e.gradient[i] * (e.grad_scale ? static_cast<T>(*e.grad_scale) : T(1));
  g = g > clip ? clip : g;
  g = g < -clip ? -clip : g;
  if (e.importance) g = g + e.penalty * e.importance[i] * (value - e.anchor[i]);
  else if (e.anchor) g = g + e.penalty * (value - e.anchor[i]);
  for (int s = 0; s < Rule::states; ++s) state[s] = e.state[s][i];
  Rule::apply(value, g, state[0], state[1], state[2], c);
  e.parameter[i] = value;
  for (int s = 0; s < Rule::states; ++s) e.state[s][i] = state[s];
}

template <class Rule, class T, int Capacity> __global__ void __launch_bounds__(kBlock)
    update_kernel(const Entries<T, Capacity> entries) {
  const Entry<T>& e = mine_of(entries);
  const std::int64_t begin = (blockIdx.x - e.first_block) * kSpan;
  const std::int64_t end = begin + kSpan < e.count ? begin + kSpan : e.count;
  if (e.mask.none_in(begin, end)) return;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock)
    if (e.mask.may_change(i)) update_one<Rule>(e, entries.clip, entries.coefficients, i);
}

template <class T> Entry<T> entry_of(const Update& job, std::int64_t first_block) {
  const auto state = [&](int k) { return static_cast<T*>(job.state[k]); };
  return {static_cast<T*>(job.parameter),
          {state(0), state(1), state(2)},
          static_cast<const T*>(job.gradient),
          static_cast<const T*>(job.importance),
          static_cast<const T*>(job.anchor),
          job.grad_scale,
          allowed(job.mask),
          job.count,
          first_block,
          static_cast<T>(job.options.penalty)};
}

template <class Rule, class T, int Capacity> void launch_group(const Update* const* jobs, std::int64_t count) {
  const UpdateOptions& o = jobs[0]->options;
  const double clip = o.clip_value > 0 ? o.clip_value : static_cast<double>(__builtin_inf());
  Entries<T, Capacity> entries{static_cast<int>(count), static_cast<T>(clip), UpdateCoefficients<T>(o), {}};
  std::int64_t blocks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    entries.at[i] = entry_of<T>(*jobs[i], blocks);
    blocks += ceil_div(jobs[i]->count, kSpan);
  }
  launch(Rule::name, update_kernel<Rule, T, Capacity>, exact_grid(Rule::name, blocks), dim3(kBlock), entries);
}

/// Jobs that one launch may take: same dtype and coefficients. The penalty's strength is each job's own.
bool joins(const Update& a, const Update& b) {
  UpdateOptions x = a.options, y = b.options;
  x.penalty = y.penalty = 0;
  return a.dtype == b.dtype && x == y;
}

/// run.operator()<capacity>(jobs, count) for as many at a time as the arguments of one launch hold.
template <class Job, class Run> void in_groups(const std::vector<const Job*>& jobs, const Run& run) {
  constexpr std::int64_t few = 16, many = 192;
  const auto total = static_cast<std::int64_t>(jobs.size());
  for (std::int64_t at = 0; at < total; at += many) {
    const std::int64_t n = std::min(total - at, many);
    if (n <= few) run.template operator()<few>(jobs.data() + at, n);
    else run.template operator()<many>(jobs.data() + at, n);
  }
}

template <class Rule, class T> void launch_all(const std::vector<const Update*>& group) {
  in_groups(group,
            [&]<int capacity>(const Update* const* jobs, std::int64_t n) { launch_group<Rule, T, capacity>(jobs, n); });
}

template <class Rule> void update(const Update* jobs, std::int64_t count) {
  std::vector<bool> done(static_cast<std::size_t>(count), false);
  for (std::int64_t i = 0; i < count; ++i) {
    if (done[static_cast<std::size_t>(i)]) continue;
    std::vector<const Update*> group;
    for (std::int64_t j = i; j < count; ++j)
      if (!done[static_cast<std::size_t>(j)] && joins(jobs[i], jobs[j])) {
        group.push_back(jobs + j);
        done[static_cast<std::size_t>(j)] = true;
      }
    if (jobs[i].dtype == DType::f32) launch_all<Rule, float>(group);
    else launch_all<Rule, double>(group);
  }
}

template <class T> struct SquaresEntry {
  Pointer<const T> values;
  Allowed mask;
  std::int64_t count, first_block;
};
template <class T, int Capacity> struct SquaresEntries {
  int count = 0;
  Pointer<double> out;
  SquaresEntry<T> at[Capacity];
};

/// out[block] = the sum over the block's elements; nothing is read where the mask is closed.
template <class T, int Capacity> __global__ void __launch_bounds__(kBlock)
    squares_kernel(const SquaresEntries<T, Capacity> entries) {
  STET_SHARED(double, scratch, kWarp);
  const SquaresEntry<T>& e = mine_of(entries);
  const std::int64_t begin = (blockIdx.x - e.first_block) * kSquaresSpan;
  const std::int64_t end = begin + kSquaresSpan < e.count ? begin + kSquaresSpan : e.count;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock)
    if (e.mask.may_change(i)) sum += static_cast<double>(e.values[i]) * static_cast<double>(e.values[i]);
  sum = reduce_block<Sum>(sum, scratch);
  if (threadIdx.x == 0) entries.out[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kBlock)
    join_squares_kernel(Pointer<double> out, Pointer<const double> partial, std::int64_t n) {
  STET_SHARED(double, scratch, kWarp);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kBlock) sum += partial[i];
  sum = reduce_block<Sum>(sum, scratch);
  if (threadIdx.x == 0) *out = sum;
}

/// Sums of the tensors of one element type go to partial[0], ... ; gives how many there are.
template <class T> std::int64_t squares_of(const std::vector<const Squares*>& jobs, double* partial) {
  std::int64_t total = 0;
  in_groups(jobs, [&]<int capacity>(const Squares* const* group, std::int64_t n) {
    SquaresEntries<T, capacity> entries{static_cast<int>(n), partial + total, {}};
    std::int64_t blocks = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      entries.at[i] = {static_cast<const T*>(group[i]->values), allowed(group[i]->mask), group[i]->count, blocks};
      blocks += ceil_div(group[i]->count, kSquaresSpan);
    }
    launch("clip_norm", squares_kernel<T, capacity>, exact_grid("clip_norm", blocks), dim3(kBlock), entries);
    total += blocks;
  });
  return total;
}

void sum_of_squares(const Squares* jobs, std::int64_t count, double* out) {
  std::vector<const Squares*> narrow, wide;
  std::int64_t blocks = 1;  // an empty list has an empty sum
  for (const Squares* job = jobs; job != jobs + count; ++job) {
    if (job->count == 0) continue;
    (job->dtype == DType::f32 ? narrow : wide).push_back(job);
    blocks += ceil_div(job->count, kSquaresSpan);
  }
  const Scratch scratch("clip_norm", blocks * static_cast<std::int64_t>(sizeof(double)));
  auto* partial = scratch.as<double>();
  std::int64_t n = squares_of<float>(narrow, partial);
  n += squares_of<double>(wide, partial + n);
  launch("clip_norm", join_squares_kernel, dim3(1), dim3(kBlock), out, partial, n);
}

}  // namespace

void fill_update(Kernels& table) {
  table.sum_of_squares = sum_of_squares;
  UpdateRules::for_each([&]<class Rule>() { table.update[UpdateRules::index<Rule>] = update<Rule>; });
}

}  // namespace stet::cuda
