// The optimizers' fused pass over all parameters of a group in one launch: the jobs travel as a kernel argument, so
// that a step copies nothing to the device. A block takes 1,024 elements of one parameter; blocks whose elements are
// all masked leave at once, and touch no memory of the parameter.
#include <vector>

#include <stet/cuda/launch.h>

namespace stet::cuda {
namespace {

constexpr std::int64_t kSpan = 1024;  // elements of a block

template <class T> struct Entry {
  Pointer<T> parameter, state[3];
  Pointer<const T> gradient, importance, anchor;
  Pointer<const double> grad_scale;
  Pointer<const std::int64_t> ranges;
  Pointer<const std::uint32_t> bits;
  std::int64_t count, range_count, first_block;
  T penalty;
};

/// Kernel arguments may take 4 KiB everywhere, 32 KiB from CUDA 12.1 on.
template <class T, int Capacity> struct Entries {
  int count = 0;
  T clip;
  UpdateCoefficients<T> coefficients;
  Entry<T> at[Capacity];
};

/// The first range that ends after `begin`.
__device__ __forceinline__ std::int64_t range_after(Pointer<const std::int64_t> ranges, std::int64_t count,
                                                    std::int64_t begin) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (ranges[2 * middle + 1] <= begin) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <class T> __device__ __forceinline__ bool may_change(const Entry<T>& e, std::int64_t i) {
  if (e.bits) return e.bits[i / 32] >> (i % 32) & 1u;
  if (!e.ranges) return true;
  const std::int64_t r = range_after(e.ranges, e.range_count, i);
  return r < e.range_count && e.ranges[2 * r] <= i;
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
  int low = 0, high = entries.count - 1;  // the last entry that starts at or before this block
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (entries.at[middle].first_block <= blockIdx.x) low = middle;
    else high = middle - 1;
  }
  const Entry<T>& e = entries.at[low];
  const std::int64_t begin = (blockIdx.x - e.first_block) * kSpan;
  const std::int64_t end = begin + kSpan < e.count ? begin + kSpan : e.count;
  if (e.ranges) {
    const std::int64_t r = range_after(e.ranges, e.range_count, begin);
    if (r == e.range_count || e.ranges[2 * r] >= end) return;
  }
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kBlock)
    if (may_change(e, i)) update_one<Rule>(e, entries.clip, entries.coefficients, i);
}

template <class T> Entry<T> entry_of(const Update& job, std::int64_t first_block) {
  const auto state = [&](int k) { return static_cast<T*>(job.state[k]); };
  return {static_cast<T*>(job.parameter),
          {state(0), state(1), state(2)},
          static_cast<const T*>(job.gradient),
          static_cast<const T*>(job.importance),
          static_cast<const T*>(job.anchor),
          job.grad_scale,
          job.mask.ranges,
          job.mask.bits,
          job.count,
          job.mask.range_count,
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

template <class Rule, class T> void launch_all(const std::vector<const Update*>& group) {
  constexpr std::int64_t few = 16, many = 192;
  const auto total = static_cast<std::int64_t>(group.size());
  for (std::int64_t at = 0; at < total;) {
    const std::int64_t n = std::min(total - at, many);
    if (n <= few) launch_group<Rule, T, few>(group.data() + at, n);
    else launch_group<Rule, T, many>(group.data() + at, n);
    at += n;
  }
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

}  // namespace

void fill_update(Kernels& table) {
  UpdateRules::for_each([&]<class Rule>() { table.update[UpdateRules::index<Rule>] = update<Rule>; });
}

}  // namespace stet::cuda
