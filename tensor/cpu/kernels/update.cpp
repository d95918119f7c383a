// The optimizers' fused pass: gradient scaling and clipping, quadratic penalty, rule, mask; one sweep over
// memory. And the sum of squares that clipping by norm asks for first.
#include <stet/tensor/cpu/kernels/tree.h>

namespace stet::cpu::STET_ISA {
namespace {

/// 32 elements under one mask word: a whole word of zeros touches no memory, one of ones is a dense run.
template <class Body> void for_bits(const std::uint32_t* bits, std::int64_t begin, std::int64_t end, const Body& body) {
  for (std::int64_t i = begin; i < end; i += 32) {
    const std::uint32_t word = bits[i / 32];
    const std::int64_t stop = i + 32 < end ? i + 32 : end;
    if (word == 0) continue;
    if (word == 0xffffffffu) {
      body(i, stop);
      continue;
    }
    for (std::int64_t j = i; j < stop; ++j)
      if (word >> (j - i) & 1u) body(j, j + 1);
  }
}

/// body(from, to) for every run of elements of [begin, end) that may change; `begin` is a multiple of 32.
template <class Body> void for_allowed(const UpdateMask& mask, std::int64_t begin, std::int64_t end, const Body& body) {
  if (mask.bits) return for_bits(mask.bits, begin, end, body);
  if (!mask.ranges) return body(begin, end);
  std::int64_t low = 0, high = mask.range_count;  // first range that ends after `begin`
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (mask.ranges[2 * middle + 1] <= begin) low = middle + 1;
    else high = middle;
  }
  for (; low < mask.range_count && mask.ranges[2 * low] < end; ++low) {
    const std::int64_t from = mask.ranges[2 * low], to = mask.ranges[2 * low + 1];
    body(from > begin ? from : begin, to < end ? to : end);
  }
}

/// The chunks of all jobs, numbered through: threads share them out at once, however small each job is.
template <class Job> class Chunks {
 public:
  Chunks(const Job* jobs, std::int64_t count)
      : jobs_(jobs), count_(count), first_(new std::int64_t[static_cast<std::size_t>(count + 1)]) {
    first_[0] = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      first_[i + 1] = first_[i] + (jobs[i].count + kChunk - 1) / kChunk;
      elements_ += jobs[i].count;
    }
  }
  Chunks(const Chunks&) = delete;
  Chunks& operator=(const Chunks&) = delete;
  ~Chunks() { delete[] first_; }
  std::int64_t size() const { return first_[count_]; }
  /// The number of a job's first chunk.
  std::int64_t first(std::int64_t job) const { return first_[job]; }
  /// body(job, begin, end, number) for every chunk; together those of a small model are not worth a second thread.
  template <class Body> void for_each(const Body& body) const {
    if (elements_ > kChunk)
      return parallel_for(size(), [&](std::int64_t number) { run(job_of(number), number, body); });
    for (std::int64_t job = 0, number = 0; job < count_; ++job)
      for (; number < first_[job + 1]; ++number) run(job, number, body);
  }

 private:
  /// The last job that starts at or before that chunk.
  std::int64_t job_of(std::int64_t number) const {
    std::int64_t low = 0, high = count_ - 1;
    while (low < high) {
      const std::int64_t middle = (low + high + 1) / 2;
      if (first_[middle] <= number) low = middle;
      else high = middle - 1;
    }
    return low;
  }
  template <class Body> void run(std::int64_t job, std::int64_t number, const Body& body) const {
    const std::int64_t begin = (number - first_[job]) * kChunk, rest = jobs_[job].count - begin;
    body(jobs_[job], begin, begin + (rest < kChunk ? rest : kChunk), number);
  }

  const Job* jobs_;
  std::int64_t count_, elements_ = 0;
  std::int64_t* first_;
};

enum class Penalty { none, uniform, weighted };

template <class T> struct Pointers {
  T *p, *s0, *s1, *s2;
  const T *g, *importance, *anchor;
  T scale;
};

/// Everything is read through locals that nothing else writes, or the loop would not vectorise.
template <class Rule, class T, Penalty penalty>
void dense(const Pointers<T>& at, std::int64_t begin, std::int64_t end, const UpdateOptions& o) {
  const UpdateCoefficients<T> c(o);
  const T scale = at.scale, lambda = static_cast<T>(o.penalty);
  const T clip = o.clip_value > 0 ? static_cast<T>(o.clip_value) : static_cast<T>(__builtin_inf());
  T* __restrict p = at.p;
  T* __restrict s0 = at.s0;
  T* __restrict s1 = at.s1;
  T* __restrict s2 = at.s2;
  const T* __restrict gradient = at.g;
  const T* __restrict importance = at.importance;
  const T* __restrict anchor = at.anchor;
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep  // the tensors never overlap; there are too many of them for checks at run time
#endif
  for (std::int64_t i = begin; i < end; ++i) {
    T value = p[i], a = T(0), b = T(0), d = T(0);
    T g = gradient[i] * scale;
    g = g > clip ? clip : g;
    g = g < -clip ? -clip : g;
    if constexpr (penalty == Penalty::uniform) g = g + lambda * (value - anchor[i]);
    if constexpr (penalty == Penalty::weighted) g = g + lambda * importance[i] * (value - anchor[i]);
    if constexpr (Rule::states > 0) a = s0[i];
    if constexpr (Rule::states > 1) b = s1[i];
    if constexpr (Rule::states > 2) d = s2[i];
    Rule::apply(value, g, a, b, d, c);
    p[i] = value;
    if constexpr (Rule::states > 0) s0[i] = a;
    if constexpr (Rule::states > 1) s1[i] = b;
    if constexpr (Rule::states > 2) s2[i] = d;
  }
}

template <class Rule, class T, Penalty penalty>
void update_range(const Update& job, const Pointers<T>& at, std::int64_t begin, std::int64_t end) {
  for_allowed(job.mask, begin, end,
              [&](std::int64_t from, std::int64_t to) { dense<Rule, T, penalty>(at, from, to, job.options); });
}

template <class Rule, class T> void update_chunk(const Update& job, std::int64_t begin, std::int64_t end) {
  const Pointers<T> at{static_cast<T*>(job.parameter),      static_cast<T*>(job.state[0]),
                       static_cast<T*>(job.state[1]),       static_cast<T*>(job.state[2]),
                       static_cast<const T*>(job.gradient), static_cast<const T*>(job.importance),
                       static_cast<const T*>(job.anchor),   static_cast<T>(job.grad_scale ? *job.grad_scale : 1)};
  if (!at.anchor) update_range<Rule, T, Penalty::none>(job, at, begin, end);
  else if (!at.importance) update_range<Rule, T, Penalty::uniform>(job, at, begin, end);
  else update_range<Rule, T, Penalty::weighted>(job, at, begin, end);
}

template <class Rule> void update_kernel(const Update* jobs, std::int64_t count) {
  Chunks(jobs, count).for_each([](const Update& job, std::int64_t begin, std::int64_t end, std::int64_t) {
    if (job.dtype == DType::f32) update_chunk<Rule, float>(job, begin, end);
    else update_chunk<Rule, double>(job, begin, end);
  });
}

/// Adds the squares of elements [from, to) to lanes, element i to lane i % 16: the order depends on the elements alone,
/// not on how a mask names them. In f64: squares of f32 are exact there and cannot overflow.
template <class T> void add_squares(const T* __restrict x, std::int64_t from, std::int64_t to, double* lanes) {
  double lane[kLanes];
  for (int l = 0; l < kLanes; ++l) lane[l] = lanes[l];
  const auto square = [=](std::int64_t i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); };
  std::int64_t i = from;
  for (; i < to && i % kLanes != 0; ++i) lane[i % kLanes] += square(i);
  for (; i + kLanes <= to; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += square(i + l);
  for (; i < to; ++i) lane[i % kLanes] += square(i);
  for (int l = 0; l < kLanes; ++l) lanes[l] = lane[l];
}

template <class T> double squares_of(const Squares& job, std::int64_t begin, std::int64_t end) {
  double lanes[kLanes] = {};
  for_allowed(job.mask, begin, end, [&](std::int64_t from, std::int64_t to) {
    add_squares(static_cast<const T*>(job.values), from, to, lanes);
  });
  return join_lanes<Sum>(lanes);
}

/// Chunks are summed side by side, those of a job joined in their order, and then the jobs in theirs.
void sum_of_squares(const Squares* jobs, std::int64_t count, double* out) {
  const Chunks chunks(jobs, count);
  double* partial = new double[static_cast<std::size_t>(chunks.size())];
  chunks.for_each([=](const Squares& job, std::int64_t begin, std::int64_t end, std::int64_t number) {
    partial[number] =
        job.dtype == DType::f32 ? squares_of<float>(job, begin, end) : squares_of<double>(job, begin, end);
  });
  *out = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = chunks.first(i), size = chunks.first(i + 1) - first;
    if (size > 0) *out += reduce_tree<Sum, double>(0, size, [=](std::int64_t j) { return partial[first + j]; });
  }
  delete[] partial;
}

}  // namespace

void fill_update(Kernels& table) {
  table.sum_of_squares = sum_of_squares;
  UpdateRules::for_each([&]<class Rule>() { table.update[UpdateRules::index<Rule>] = update_kernel<Rule>; });
}

}  // namespace stet::cpu::STET_ISA
