// Attention against its composition: values and gradients in f32 and f64, every mask, grouped heads, rows that see
// nothing; finite differences to second order; the same bits at any number of threads; memory linear in the length.
#include <cmath>
#include <cstring>
#include <limits>

#include <stet/autograd/attention.h>
#include <stet/autograd/engine.h>
#include <stet/autograd/gradcheck.h>
#include <stet/tensor/error.h>
#include <stet/tensor/threads.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using test::spread;

namespace {

struct Case {
  const char* name;
  std::int64_t batch, heads, kv_heads, rows, keys, width, value_width;
};
// Lengths around the tiles of both backends, and far from them.
const std::vector<Case> kCases{{"one", 1, 1, 1, 1, 1, 1, 1},          {"small", 2, 2, 2, 5, 5, 4, 4},
                               {"grouped", 2, 4, 2, 7, 9, 8, 6},      {"one kv head", 1, 6, 1, 17, 33, 3, 5},
                               {"tiles", 2, 4, 4, 70, 70, 16, 16},    {"decoding", 3, 4, 2, 1, 67, 16, 16},
                               {"long keys", 1, 2, 1, 16, 130, 8, 8}, {"more rows than keys", 1, 2, 2, 66, 20, 8, 8},
                               {"few keys", 1, 1, 1, 16, 9, 8, 8},    {"later rows", 1, 2, 2, 25, 42, 4, 4}};

struct Inputs {
  Tensor q, k, v;
};
Inputs inputs(const Case& c, DType dtype) {
  return {spread({c.batch, c.heads, c.rows, c.width}, -2, 2, 1, dtype),
          spread({c.batch, c.kv_heads, c.keys, c.width}, -2, 2, 2, dtype),
          spread({c.batch, c.kv_heads, c.keys, c.value_width}, -1, 1, 3, dtype)};
}

struct Variant {
  const char* name;
  AttentionOptions options;
};
/// Masks of every kind; in the padding of sample 0 nothing is left where there is one key alone.
std::vector<Variant> variants(const Case& c, DType dtype) {
  const Tensor wide = spread({c.batch, c.heads, c.rows, c.keys}, -1, 1, 4, dtype);
  const Tensor bias = where(wide > 0.6, full({}, -std::numeric_limits<double>::infinity(), dtype), wide);
  return {
      {"plain", {}},
      {"causal", {.causal = true}},
      {"window", {.causal = true, .window = 3}},
      {"wide window", {.causal = true, .window = 70, .padding = spread({c.batch, c.keys}, -1, 1, 6) < 0.3}},
      {"window without an end", {.window = 40}},
      {"scale", {.scale = 0.3}},
      {"padding", {.padding = spread({c.batch, c.keys}, -1, 1, 5) < 0.3}},
      {"causal, padding", {.causal = true, .padding = spread({c.batch, c.keys}, -1, 1, 6) < 0.3}},
      {"bool mask", {.mask = spread({c.rows, c.keys}, -1, 1, 7) < 0.0}},
      {"additive mask", {.mask = bias}},
      {"all", {.causal = true, .mask = slice(bias, 1, 0, 1), .padding = spread({c.batch, c.keys}, -1, 1, 8) < 0.5}}};
}

/// max |a - b| / max |b|.
double error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const double largest = max(abs(b)).item(), difference = max(abs(a - b)).item();
  return largest > 0 ? difference / largest : difference;
}

/// NaN where this thread's tiles will stand.
[[gnu::noinline]] void litter_stack() {
  volatile std::uint32_t words[64 << 10];
  for (volatile std::uint32_t& word : words) word = 0xffffffffu;
}

/// Leaves NaN in the memory that results of these inputs' sizes will get: whoever reads before it writes shows.
void litter(const Inputs& in) {
  litter_stack();
  std::vector<Tensor> gone;
  for (int copies = 0; copies < 4; ++copies)
    for (const Tensor* t : {&in.q, &in.k, &in.v})
      gone.push_back(full(t->shape(), std::numeric_limits<double>::quiet_NaN(), t->dtype()));
}

std::vector<Tensor> leaves(const Inputs& in) {
  std::vector<Tensor> all;
  for (const Tensor* t : {&in.q, &in.k, &in.v}) all.push_back(t->clone().set_requires_grad());
  return all;
}

/// heads * rows * keys stays small: the composition is what takes the time on a simulated device.
bool too_large(const Case& c) {
  return default_device() != Device::cpu() && c.batch * c.heads * c.rows * c.keys * c.width > 100'000;
}

}  // namespace

TEST_CASE("attention equals its composition", "[attention]") {
  for (const DType dtype : {f32, f64})
    for (const Case& c : kCases) {
      if (too_large(c)) continue;
      for (const auto& [name, options] : variants(c, dtype)) {
        INFO(c.name << ", " << name << ", " << dtype);
        const auto in = leaves(inputs(c, dtype));
        litter(inputs(c, dtype));
        const Tensor fused = attention(in[0], in[1], in[2], options),
                     composed = attention_composed(in[0], in[1], in[2], options);
        const double bound = dtype == f32 ? 1e-6 : 1e-14;
        CHECK(error(fused.detach(), composed.detach()) <= bound);
        const Tensor seed = spread(fused.shape(), 0.5, 1.5, 9, dtype);
        litter(inputs(c, dtype));
        const auto a = grad(fused, in, {.seed = seed, .retain_graph = true}), b = grad(composed, in, {.seed = seed}),
                   again = grad(fused, in, {.seed = seed, .create_graph = true});  // the kernel's, the composition's
        for (int i = 0; i < 3; ++i) {
          INFO("input " << i);
          CHECK(error(a[i], b[i]) <= bound * 4);
          CHECK(error(again[i].detach(), b[i]) <= bound * 4);
        }
      }
    }
}

TEST_CASE("attention: finite differences to second order", "[attention]") {
  for (const Case& c : {Case{"", 1, 2, 1, 3, 4, 2, 3}, Case{"", 2, 2, 2, 3, 2, 3, 2}})
    for (const auto& [name, options] : variants(c, f64))
      for (const test::Layout layout : {test::Layout::contiguous, test::Layout::transposed, test::Layout::strided}) {
        const Inputs in = inputs(c, f64);
        const auto result =
            gradcheck([&, &o = options](const auto& v) { return attention(v[0], v[1], v[2], o); },
                      {test::in_layout(in.q, layout), test::in_layout(in.k, layout), test::in_layout(in.v, layout)},
                      {.second_order = true, .name = "attention"});
        INFO(name << ' ' << test::name_of(layout) << '\n' << result.message);
        CHECK(result.ok);
        if (default_device() != Device::cpu()) break;
      }
}

TEST_CASE("attention gives the gradient of a floating mask", "[attention]") {
  const Case c{"", 1, 2, 2, 3, 4, 2, 2};
  const Inputs in = inputs(c, f64);
  const auto result = gradcheck([&](const auto& v) { return attention(v[0], in.k, in.v, {.mask = v[1]}); },
                                {in.q, spread({2, 3, 4}, -1, 1, 5)}, {.second_order = true, .name = "attention"});
  INFO(result.message);
  CHECK(result.ok);
}

TEST_CASE("a row that sees nothing gives zeros and no gradient", "[attention]") {
  for (const DType dtype : {f32, f64}) {
    const Case c{"", 2, 2, 1, 4, 3, 4, 4};
    const auto in = leaves(inputs(c, dtype));
    const Tensor nothing = spread({2, 3}, -1, 1, 1) > 5.0;
    for (const bool padding : {true, false}) {
      AttentionOptions options;
      if (padding) options.padding = nothing;
      else options.mask = full({4, 3}, -std::numeric_limits<double>::infinity(), dtype);
      const Tensor y = attention(in[0], in[1], in[2], options);
      for (const double value : y.to_vector<double>()) REQUIRE(value == 0);
      for (const bool create_graph : {false, true})
        for (const Tensor& g : grad(sum(square(y + 1.0)), in, {.create_graph = create_graph, .retain_graph = true}))
          for (const double value : g.to_vector<double>()) REQUIRE(value == 0);
    }
    // More rows than keys: causally, the first row is before the first key.
    const Tensor y = attention(in[0], in[1], in[2], {.causal = true});
    CHECK(max(abs(select(y, 2, 0))).item() == 0);
    CHECK(max(abs(select(y, 2, 1) - select(in[2], 2, 0))).item() < 1e-6);
  }
}

TEST_CASE("attention: scores far apart, and NaN in the rows that have it", "[attention]") {
  const auto are_nan = [](const Tensor& x) { return min(cast(not_equal(x, x), f32)).item() == 1; };
  const auto has_nan = [](const Tensor& x) { return max(cast(not_equal(x, x), f32)).item() == 1; };
  const Case c{"wide", 1, 2, 2, 70, 100, 16, 8};
  for (DType dtype : {f32, f64}) {
    const Inputs in = inputs(c, dtype);
    const Tensor far = in.q * 60.0;  // exponentials from 1 to far below the smallest number
    CHECK(error(attention(far, in.k, in.v), attention_composed(far, in.k, in.v, {})) <=
          (dtype == f32 ? 1e-4 : 1e-12));  // scores of hundreds
    Tensor q = in.q.clone();
    slice(q, 2, 40, 41).fill_(std::numeric_limits<double>::quiet_NaN());
    const Tensor out = attention(q, in.k, in.v), whole = attention(in.q, in.k, in.v);
    CHECK(are_nan(slice(out, 2, 40, 41)));
    for (const auto& [from, to] : {std::pair(0, 40), std::pair(41, 70)})
      CHECK(max(abs(slice(out, 2, from, to) - slice(whole, 2, from, to))).item() == 0);
    Tensor k = in.k.clone();
    slice(k, 2, 90, 91).fill_(std::numeric_limits<double>::quiet_NaN());
    const Tensor none = attention(in.q, k, in.v), early = attention(in.q, k, in.v, {.causal = true});
    CHECK(are_nan(none));
    CHECK(!has_nan(slice(early, 2, 0, 60)));  // row i sees keys up to i + 30
    CHECK(are_nan(slice(early, 2, 60, 70)));
  }
}

TEST_CASE("a causal query does not see what comes later", "[attention]") {
  const Case c{"", 1, 2, 2, 40, 40, 8, 8};
  const Inputs in = inputs(c, f32);
  const Tensor before = attention(in.q, in.k, in.v, {.causal = true});
  const Tensor later = cast(reshape(arange(40) > 20.0, {1, 1, 40, 1}), f32);
  const Tensor after = attention(in.q, in.k + later * 3.0, in.v - later * 7.0, {.causal = true});
  CHECK(test::same_bits(slice(before, 2, 0, 21), slice(after, 2, 0, 21)));
  CHECK_FALSE(test::same_bits(before, after));
}

TEST_CASE("attention with dropout", "[attention]") {
  const Case c{"", 2, 4, 2, 9, 11, 4, 4};
  const auto in = leaves(inputs(c, f64));
  const AttentionOptions plain{.causal = true};
  const auto run = [&](std::uint64_t seed, double p) {
    Generator generator(seed);
    return attention(in[0], in[1], in[2], {.causal = true, .dropout = p, .generator = &generator});
  };
  CHECK(test::same_bits(run(1, 0.3), run(1, 0.3)));
  CHECK_FALSE(test::same_bits(run(1, 0.3), run(2, 0.3)));
  const Tensor dropped = run(1, 0.3), seed = spread(dropped.shape(), 0.5, 1.5, 9);
  const auto kernel = grad(dropped, in, {.seed = seed, .retain_graph = true}),
             composed = grad(dropped, in, {.seed = seed, .create_graph = true});
  for (int i = 0; i < 3; ++i) CHECK(error(kernel[i], composed[i].detach()) <= 1e-14);
  // The mean over many draws is the value without.
  Tensor total = zeros({2, 4, 9, 4}, f64);
  const NoGrad no_grad;
  const int draws = default_device() == Device::cpu() ? 2000 : 100;
  for (int i = 0; i < draws; ++i) total = total + run(static_cast<std::uint64_t>(i), 0.3);
  CHECK(max(abs(total / double(draws) - attention(in[0], in[1], in[2], plain))).item() < 4 / std::sqrt(double(draws)));
}

TEST_CASE("the derivative of dropped attention: finite differences", "[attention]") {
  const Case c{"", 1, 2, 1, 3, 4, 2, 2};
  const Inputs in = inputs(c, f64);
  const auto result = gradcheck(
      [&](const auto& v) {
        Generator generator(7);
        return attention(v[0], v[1], v[2], {.dropout = 0.4, .generator = &generator});
      },
      {in.q, in.k, in.v}, {.second_order = true, .name = "attention"});
  INFO(result.message);
  CHECK(result.ok);
}

TEST_CASE("attention has the same bits at any number of threads", "[attention]") {
  const int before = threads();
  std::vector<Tensor> first;
  for (const int count : {1, 2, 3, 8}) {
    set_threads(count);
    std::vector<Tensor> results;
    for (const Case& c : {Case{"", 1, 2, 1, 150, 150, 32, 32}, Case{"", 4, 4, 2, 100, 100, 32, 32}}) {
      if (default_device() != Device::cpu()) break;
      const auto in = leaves(inputs(c, f32));
      const Tensor y = attention(in[0], in[1], in[2], {.causal = true});
      results.push_back(y.detach());
      for (const Tensor& g : grad(sum(square(y)), in)) results.push_back(g);
    }
    if (first.empty()) first = results;
    for (std::size_t i = 0; i < results.size(); ++i) CHECK(test::same_bits(first[i], results[i]));
  }
  set_threads(before);
}

namespace {
void says(const std::function<void()>& action, const std::string& text) {
  const std::string message = test::message_of(action);
  INFO(message);
  CHECK(message.find(text) != std::string::npos);
}
}  // namespace

TEST_CASE("attention of nothing, and in bf16", "[attention]") {
  const Tensor none = zeros({1, 2, 0, 4}), q = ones({1, 2, 3, 4}).set_requires_grad();
  const Tensor y = attention(q, none, none);
  CHECK(max(abs(y)).item() == 0);
  CHECK(max(abs(grad(sum(y), {q})[0])).item() == 0);
  CHECK(attention(none, q, q).shape() == Shape({1, 2, 0, 4}));
  CHECK(attention(zeros({0, 2, 3, 4}), zeros({0, 1, 5, 4}), zeros({0, 1, 5, 6})).shape() == Shape({0, 2, 3, 6}));
  const Inputs in = inputs(kCases[2], f32);
  const Tensor half = attention(cast(in.q, bf16), cast(in.k, bf16), cast(in.v, bf16));
  CHECK(half.dtype() == bf16);
  CHECK(error(cast(half, f32), attention(in.q, in.k, in.v)) < 0.02);
}

TEST_CASE("attention needs memory for its results and two numbers a row, forward and backward", "[attention]") {
  const std::int64_t length = 256, width = 32, matrix = length * length * 4;
  const Case c{"", 1, 2, 2, length, length, width, width};
  const auto in = leaves(inputs(c, f32));
  const Tensor seed = spread({1, 2, length, width}, -1, 1, 1, f32);
  const auto before = memory_stats().live_bytes;
  reset_peak_memory();
  const auto g = grad(attention(in[0], in[1], in[2], {.causal = true, .dropout = 0.1}), in, {.seed = seed});
  const std::int64_t results = 4 * seed.bytes(), rows = 2 * 2 * length * 4;
  CHECK(memory_stats().peak_bytes - before <= results + rows + 4096);
  CHECK(matrix > results / 2);  // one matrix of one head would be noticed
}

TEST_CASE("attention: a large finite bias of a whole row changes nothing, and only -inf hides", "[attention]") {
  const Case c{"", 1, 1, 1, 20, 20, 8, 8};
  const auto in = leaves(inputs(c, f32));
  const Tensor seed = spread({1, 1, c.rows, c.value_width}, 0.5, 1.5, 9, f32);
  const auto with = [&](double bias) {
    const Tensor mask = zeros({c.rows, c.keys});
    slice(mask, 0, 3, 5).copy_(full({2, c.keys}, bias, f32));
    const Tensor out = attention(in[0], in[1], in[2], {.mask = mask});
    auto all = grad(out, in, {.seed = seed});
    all.push_back(out.detach());
    return all;
  };
  // At -1e7 and below the scores of the row are the bias: its probabilities are equal, or nearly so.
  for (const double bias : {-1e7, -1.37e7, -1.0862e8, -1.0862e9, -7.7e12, -1e30, -3.4028234e38, 1e9, 3.4028234e38}) {
    INFO(bias);
    const auto a = with(bias);
    for (const Tensor& t : a) CHECK(max(abs(t)).item() < 20);
    if (std::abs(bias) < 1e9) continue;
    const Tensor mean_of_values = mean(in[2].detach(), {2});
    CHECK(max(abs(slice(a[3], 2, 3, 5) - unsqueeze(mean_of_values, 2))).item() < 1e-6);
  }
  CHECK(max(abs(slice(with(-std::numeric_limits<double>::infinity())[3], 2, 3, 5))).item() == 0);
}

TEST_CASE("attention's gradients fill the one of the tensor that q, k and v are pieces of", "[attention]") {
  const std::int64_t batch = 2, rows = 70, heads = 4, kv_heads = 2, width = 16, all = heads + 2 * kv_heads;
  const Tensor x = spread({batch, rows, all, width}, -1, 1, 3, f32).set_requires_grad();
  const Tensor seed = spread({batch, heads, rows, width}, -1, 1, 1, f32);
  const auto pieces = [&](const Tensor& from) {
    std::vector<Tensor> out = split(from, {heads, kv_heads, kv_heads}, 2);
    for (Tensor& piece : out) piece = transpose(piece, 1, 2);
    return out;
  };
  std::vector<Tensor> apart = pieces(x.detach());
  for (Tensor& piece : apart) piece = piece.clone().set_requires_grad();
  const auto expected = grad(attention(apart[0], apart[1], apart[2], {.causal = true}), apart, {.seed = seed});
  const auto joined = [&](std::vector<Tensor> parts) {
    for (Tensor& part : parts) part = transpose(part, 1, 2);
    return cat(parts, 2);
  };

  const auto in = pieces(x);
  const Tensor out = attention(in[0], in[1], in[2], {.causal = true});
  const auto before = memory_stats().live_bytes;
  reset_peak_memory();
  out.backward(seed, true);
  CHECK(memory_stats().peak_bytes - before < x.bytes() + x.bytes() / 2);  // not of the pieces as well
  CHECK(test::same_bits(x.grad(), joined(expected)));

  // Pieces that something else reads too, one that nobody asks for, and none at all beside others.
  const Tensor twice = grad(sum(out * seed) + sum(in[1]), {x}, {.retain_graph = true})[0];
  CHECK(error(twice, joined({expected[0], expected[1] + 1, expected[2]})) < 1e-5);
  const Tensor apart_k = attention(in[0], apart[1].detach(), in[2], {.causal = true});
  const Tensor no_k = grad(apart_k, {x}, {.seed = seed, .retain_graph = true})[0];
  CHECK(error(no_k, joined({expected[0], zeros(expected[1].shape(), f32), expected[2]})) < 1e-5);
  const auto of_two = grad(attention(in[0], in[1], in[2], {.causal = true}), {in[0], x}, {.seed = seed});
  CHECK(test::same_bits(of_two[0].clone(), expected[0].clone()));
  CHECK(test::same_bits(of_two[1], joined(expected)));
}

TEST_CASE("attention: what is wrong is named", "[attention]") {
  const Tensor q = zeros({2, 4, 3, 8}), k = zeros({2, 2, 5, 8});
  says([&] { attention(q, zeros({2, 2, 5, 6}), k); }, "[attention] q (2, 4, 3, 8), k (2, 2, 5, 6), v (2, 2, 5, 8): ");
  says([&] { attention(q, zeros({2, 3, 5, 8}), zeros({2, 3, 5, 8})); }, "4 heads must be a multiple of 3");
  says([&] { attention(q, k, cast(k, f64)); }, "[attention] q holds f32, k f32, v f64: expected one floating dtype");
  says(
      [&] {
        attention(q, k, k, {.padding = zeros({2, 4})});
      },
      "[attention] padding f32 (2, 4): expected bool (batch, S) = (2, 5)");
  says([&] { attention(q, k, k, {.mask = zeros({3, 4})}); }, "(3, 4)");
  says([&] { attention(q, k, k, {.dropout = 1}); }, "[attention] dropout 1: expected 0 to below 1");
}

TEST_CASE("rotary positions", "[attention]") {
  const RotaryTable table = rotary_table(3, 4, rotary_frequencies(6, 100), f64);
  REQUIRE(table.cos.shape() == Shape({4, 3}));
  const Tensor x = spread({2, 4, 8}, -1, 1, 1);
  for (const bool interleaved : {false, true}) {
    const auto y = rotary(x, table, interleaved).to_vector<double>(), in = x.to_vector<double>();
    for (int b = 0; b < 2; ++b)
      for (int t = 0; t < 4; ++t) {
        const auto at = [&](int i) { return (b * 4 + t) * 8 + i; };
        for (int i = 0; i < 3; ++i) {
          const int p = at(interleaved ? 2 * i : i), r = at(interleaved ? 2 * i + 1 : i + 3);
          const double angle = (t + 3) * std::pow(100.0, -2.0 * i / 6);
          CHECK(std::abs(y[p] - (in[p] * std::cos(angle) - in[r] * std::sin(angle))) < 1e-14);
          CHECK(std::abs(y[r] - (in[r] * std::cos(angle) + in[p] * std::sin(angle))) < 1e-14);
        }
        CHECK(y[at(6)] == in[at(6)]);
        CHECK(y[at(7)] == in[at(7)]);
      }
    const auto result = gradcheck([&](const auto& v) { return square(rotary(v[0], table, interleaved)); }, {x},
                                  {.second_order = true, .name = "rotary"});
    INFO(result.message);
    CHECK(result.ok);
  }
  says([&] { rotary(zeros({2, 5, 8}, f64), table); }, "(4, 3)");
  says([&] { rotary(zeros({4, 4}, f64), table); }, "6 rotated features of 4");
  says([&] { rotary(zeros({4, 8}, i64), table); }, "[rotary] x holds i64: expected floating point");
  const Tensor low = rotary(cast(x, bf16), table);
  CHECK(low.dtype() == bf16);
  CHECK(max(abs(cast(low, f64) - rotary(cast(cast(x, bf16), f64), table))).item() < 0x1p-7);
}

TEST_CASE("gradients of leaves are contiguous, however they came", "[attention]") {
  const Tensor q = spread({1, 2, 3, 4}, -1, 1, 1).set_requires_grad(), k = q.clone().set_requires_grad();
  sum(attention(q, k, q.detach())).backward();
  CHECK(q.grad().is_contiguous());
  CHECK(k.grad().is_contiguous());
  const Tensor alone = grad(sum(attention(q, q.detach(), q.detach())), {q})[0];
  CHECK(alone.is_contiguous());
  const Tensor w = ones({2, 3}).set_requires_grad();
  sum(matmul(ones({4, 3}), transpose(w))).backward();
  CHECK(w.grad().is_contiguous());
}
