// The tensor handle: creation, views, copies, printing, dtypes and promotion, and the messages of misuse.
#include <stet/autograd/ops.h>
#include <stet/cuda/cuda.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using Catch::Matchers::Contains;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

}  // namespace

TEST_CASE("copies share memory, clone() does not", "[tensor]") {
  const Tensor a = tensor({1.f, 2.f, 3.f});
  const Tensor b = a, c = a.clone(), d = a.detach();
  a.fill_(7);
  CHECK(values(b) == std::vector<double>{7, 7, 7});
  CHECK(values(c) == std::vector<double>{1, 2, 3});
  CHECK(values(d) == std::vector<double>{7, 7, 7});
}

TEST_CASE("assignment to an rvalue does not compile", "[tensor]") {
  STATIC_REQUIRE(std::is_assignable_v<Tensor&, const Tensor&>);
  STATIC_REQUIRE_FALSE(std::is_assignable_v<Tensor&&, const Tensor&>);
  STATIC_REQUIRE_FALSE(std::is_assignable_v<Tensor&&, Tensor&&>);
}

TEST_CASE("creation", "[tensor]") {
  CHECK(values(zeros({2, 2})) == std::vector<double>(4, 0));
  CHECK(values(ones({3}, i64)) == std::vector<double>(3, 1));
  CHECK(values(full({2}, 2.5, f64)) == std::vector<double>{2.5, 2.5});
  CHECK(values(arange(4)) == std::vector<double>{0, 1, 2, 3});
  CHECK(values(arange(1, 2, 0.25, f32)) == std::vector<double>{1, 1.25, 1.5, 1.75});
  CHECK(values(linspace(0, 1, 3)) == std::vector<double>{0, 0.5, 1});
  for (std::int64_t n = 2; n < 60; ++n) CHECK(linspace(0, 1, n, f64).to_vector<double>().back() == 1);
  const auto far = arange(200'000).to_vector<std::int64_t>();
  CHECK((far[70'000] == 70'000 && far.back() == 199'999));
  CHECK(values(eye(2)) == std::vector<double>{1, 0, 0, 1});
  CHECK(tensor({{1, 2}, {3, 4}}).dtype() == i32);
  CHECK(tensor({true, false}).dtype() == boolean);
  CHECK(zeros({0, 5}).numel() == 0);
  CHECK(scalar(3).rank() == 0);
  CHECK(zeros({2, 3, 4, 5, 6, 1, 1, 2}).rank() == 8);
}

TEST_CASE("views share memory and know their layout", "[tensor]") {
  const Tensor x = reshape(arange(24, f32), {2, 3, 4});
  const Tensor t = transpose(x, 0, 2);
  CHECK(t.shape() == Shape({4, 3, 2}));
  CHECK_FALSE(t.is_contiguous());
  CHECK(values(select(select(t, 0, 1), 0, 2)) == std::vector<double>{9, 21});
  CHECK(values(slice(x, 2, 1, 4, 2)) == std::vector<double>{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23});
  CHECK(values(select(x, 1, -1)) == std::vector<double>{8, 9, 10, 11, 20, 21, 22, 23});
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK(values(slice(x, 2, 1, 4, most)) == values(slice(x, 2, 1, 2)));
  slice(x, 0, 1, 2).fill_(-1);
  CHECK(values(select(x, 0, 1)) == std::vector<double>(12, -1));
  CHECK(values(select(x, 0, 0))[5] == 5);
  CHECK(expand(tensor({1.f, 2.f}), {3, 2}).strides()[0] == 0);
  CHECK(reshape(t, {-1}).is_contiguous());
  CHECK(zeros({3, 1, 4}).is_contiguous());
  CHECK(transpose(zeros({3, 1}), 0, 1).is_contiguous());
}

TEST_CASE("pieces, joined and flattened", "[tensor]") {
  const Tensor x = reshape(arange(24), {2, 3, 4});
  CHECK(flatten(x, 0, 1).shape() == Shape({6, 4}));
  CHECK(flatten(x, 1).shape() == Shape({2, 12}));
  CHECK(flatten(x, -2, -2).shape() == x.shape());
  const auto pieces = split(arange(5), 2);
  REQUIRE(pieces.size() == 3);
  CHECK(values(pieces[1]) == std::vector<double>{2, 3});
  CHECK(values(pieces[2]) == std::vector<double>{4});
  const Tensor joined = cat({arange(2), tensor({0.5f})});
  CHECK(joined.dtype() == f32);
  CHECK(values(joined) == std::vector<double>{0, 1, 0.5});
  CHECK((zeros({0, 3}) + ones({1, 3})).shape() == Shape({0, 3}));
  CHECK(values(index_add(tensor({true, false}), 0, zeros({2}, i64), 2)) == std::vector<double>{1, 0});
  const Tensor columns = zeros({2, 3});
  slice(columns, 1, 0, 3, 2).fill_(1);  // not contiguous
  CHECK(values(columns) == std::vector<double>{1, 0, 1, 1, 0, 1});
}

TEST_CASE("promotion: the higher dtype wins, numbers take the tensor's", "[tensor][dtype]") {
  const Tensor b = tensor({true, false}), i = arange(2), n = tensor<std::int32_t>({1, 2}), f = tensor({1.5f, 2.5f}),
               d = ones({2}, f64);
  const Tensor h = cast(f, bf16), u = tensor<std::uint8_t>({200, 100});
  CHECK((b + i).dtype() == i64);
  CHECK((n + i).dtype() == i64);
  CHECK((i + f).dtype() == f32);
  CHECK((f + d).dtype() == f64);
  CHECK((h + f).dtype() == f32);
  CHECK((h + h).dtype() == bf16);
  CHECK((b + b).dtype() == i64);
  CHECK(values(b + b) == std::vector<double>{2, 0});
  CHECK((u + u).dtype() == DType::u8);
  CHECK(values(u + u) == std::vector<double>{144, 200});  // wraps
  CHECK((i * 2.0).dtype() == i64);
  CHECK((i * 2.5).dtype() == f32);
  CHECK((f * 2.5).dtype() == f32);
  CHECK(exp(i).dtype() == f32);
  CHECK((i / 2.0).dtype() == f32);
  CHECK(values(i / 2.0) == std::vector<double>{0, 0.5});
  CHECK((i < f).dtype() == boolean);
  CHECK(pow(n, 2).dtype() == i32);
  CHECK(pow(n, 0.5).dtype() == f32);
  // A number that the tensor's dtype does not hold is compared as what it is, and is no operand.
  const auto only = [](auto value) { return tensor<decltype(value)>({value}); };
  CHECK((only(std::uint8_t{0}) > -1.0).item() == 1);
  CHECK((only(std::uint8_t{255}) < 300.0).item() == 1);
  CHECK((only(std::numeric_limits<std::int32_t>::max()) < 3e9).item() == 1);
  CHECK((only(std::numeric_limits<std::int32_t>::min()) > -3e9).item() == 1);
  CHECK((only(std::numeric_limits<std::int64_t>::max()) < 1e30).item() == 1);
  CHECK_THROWS_WITH(u * -1.0, Contains("[number] -1 beside a tensor of u8, which does not hold it"));
  CHECK_THROWS_WITH(n + 3e9, Contains("beside a tensor of i32"));
  CHECK(sum(b).item() == 1);
  CHECK(sum(u).dtype() == i64);
  CHECK(sum(u).item() == 300);
  CHECK(max(u).dtype() == DType::u8);
}

TEST_CASE("bf16 rounds to nearest even and keeps NaN and infinities", "[tensor][dtype]") {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = tensor({1.0f, 1.00390625f, 1.01171875f, 3.4028235e38f, inf, -inf, std::nanf(""), -0.0f});
  const auto y = cast(cast(x, bf16), f32).to_vector<float>();
  CHECK(y[0] == 1.0f);
  CHECK(y[1] == 1.0f);       // a tie: to even
  CHECK(y[2] == 1.015625f);  // a tie: to even, upwards
  CHECK(y[3] == inf);
  CHECK(y[4] == inf);
  CHECK(y[5] == -inf);
  CHECK(std::isnan(y[6]));
  CHECK(std::signbit(y[7]));
}

TEST_CASE("casts saturate, NaN becomes 0", "[tensor][dtype]") {
  const Tensor x = tensor({-1e30, 1e30, std::nan(""), 2.9, -2.9});
  CHECK(cast(x, i64).to_vector<std::int64_t>() == std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(),
                                                                            std::numeric_limits<std::int64_t>::max(), 0,
                                                                            2, -2});
  CHECK(values(cast(x, DType::u8)) == std::vector<double>{0, 255, 0, 2, 0});
  CHECK(values(cast(x, boolean)) == std::vector<double>{1, 1, 1, 1, 1});
}

TEST_CASE("printing", "[tensor][print]") {
  const test::OnCpu cpu("elsewhere the device is printed too, which the last line shows");
  CHECK(to_string(tensor({{1.f, 2.5f}, {3.f, 4.f}})) == "tensor([[ 1., 2.5],\n        [ 3.,  4.]], f32 (2, 2))");
  CHECK(to_string(arange(3)) == "tensor([0, 1, 2], i64 (3,))");
  CHECK(to_string(tensor<std::int64_t>({9007199254740993, std::numeric_limits<std::int64_t>::max()})) ==
        "tensor([   9007199254740993, 9223372036854775807], i64 (2,))");
  CHECK(to_string(scalar(2)) == "tensor(2., f32)");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(to_string(tensor({nan, -nan})) == "tensor([nan, nan], f32 (2,))");
  CHECK(to_string(tensor({true})) == "tensor([true], bool (1,))");
  CHECK(to_string(zeros({0, 2})) == "tensor([], f32 (0, 2))");
  CHECK(to_string(Tensor()) == "tensor(undefined)");
  const std::string many = to_string(arange(5000));
  CHECK_THAT(many, Contains("[   0,    1,    2, ..., 4997, 4998, 4999]"));
  CHECK_THAT(to_string(tensor({1e-8f, 1.f})), Contains("1.000e-08"));
  CHECK(to_string(tensor({999999.f, 0.001f})) == "tensor([999999.,   0.001], f32 (2,))");
  CHECK(to_string(tensor({1e6, 1.0})) == "tensor([1.000e+06, 1.000e+00], f64 (2,))");
  CHECK(to_string(tensor({0.0005, 1.0})) == "tensor([5.000e-04, 1.000e+00], f64 (2,))");
  CHECK(to_string(zeros({2, 2, 1}, i64)) ==
        "tensor([[[0],\n         [0]],\n\n        [[0],\n         [0]]], i64 (2, 2, 1))");
  CHECK(to_string(arange(1000)).find("...") == std::string::npos);
  const std::string wide = to_string(zeros({200, 7}, i64)), narrow = to_string(zeros({200, 6}, i64));
  CHECK_THAT(wide, Contains("[0, 0, 0, ..., 0, 0, 0],\n        ...,\n"));
  CHECK_THAT(narrow, Contains("[0, 0, 0, 0, 0, 0],\n        ...,\n"));
  // The column is as wide as what is shown.
  const Tensor hidden = zeros({1100}, i64);
  slice(hidden, 0, 500, 501).fill_(123456);
  CHECK_THAT(to_string(hidden), Contains("[0, 0, 0, ..., 0, 0, 0]"));
  if (cuda::available())
    CHECK(to_string(to(tensor({1.f, 2.f}), Device::cuda())) == "tensor([1., 2.], f32 (2,) cuda:0)");
}

TEST_CASE("in-place writes broadcast, convert and bump the version", "[tensor]") {
  const Tensor x = zeros({2, 3});
  const auto version = x.impl().storage->version();
  x.copy_(tensor<std::int64_t>({1, 2, 3}));
  CHECK(values(x) == std::vector<double>{1, 2, 3, 1, 2, 3});
  CHECK(x.impl().storage->version() > version);
  transpose(x).copy_(tensor({{1.f, 2.f}, {3.f, 4.f}, {5.f, 6.f}}));
  CHECK(values(x) == std::vector<double>{1, 3, 5, 2, 4, 6});
  const Tensor square = reshape(arange(9, f32), {3, 3});
  square.copy_(transpose(square));  // the source lies in the target's memory
  CHECK(values(square) == std::vector<double>{0, 3, 6, 1, 4, 7, 2, 5, 8});
  const Tensor line = arange(5, f32);
  slice(line, 0, 1, 5).copy_(slice(line, 0, 0, 4));
  CHECK(values(line) == std::vector<double>{0, 0, 1, 2, 3});

  const Tensor whole = zeros({3, 50, 40}), given = reshape(arange(2 * 40 * 50), {2, 40, 50});
  transpose(slice(whole, 0, 1)).copy_(given);  // written along its memory, in tiles
  CHECK(same(contiguous(transpose(slice(whole, 0, 1))), cast(given, f32)));
  CHECK(max(abs(select(whole, 0, 0))).item() == 0);
}

TEST_CASE("fifty kinds of misuse say what is wrong", "[tensor][misuse]") {
  const Tensor a = zeros({2, 3}), b = zeros({4, 5}), i = arange(3), c = tensor({true, false});
  const auto says = [](const auto& f, const std::string& text) {
    INFO(text);
    CHECK_THROWS_WITH((f(), test::settle()), Contains(text));
  };
  says([&] { matmul(a, b); }, "[matmul] shapes (2, 3) and (4, 5): last dimension 3 must equal 4");
  says([&] { add(a, b); }, "[add] shapes (2, 3) and (4, 5) do not broadcast: dimension -1 is 3 and 5");
  says([&] { linear(a, b); }, "[linear] shapes (2, 3) and (4, 5): x is (..., in), w is (out, in)");
  says([&] { linear(a, zeros({4, 3}), zeros({3})); }, "[linear] bias (3,) for weight (4, 3): expected (4,)");
  says([&] { linear(a, zeros({4, 3}, f64)); }, "[linear] dtypes f32 and f64");
  says([&] { matmul(i, i); }, "[matmul] needs f32 or f64, got i64");
  says([&] { matmul(scalar(1), a); }, "[matmul] shapes () and (2, 3): both need at least one dimension");
  says([&] { reshape(a, {4, 2}); }, "[reshape] shape (2, 3) has 6 elements, (4, 2) needs 8");
  says([&] { reshape(a, {-1, -1}); }, "[reshape] shape (-1, -1) has more than one -1");
  says([&] { reshape(a, {-1, 4}); }, "[reshape] 6 elements of shape (2, 3) do not fit (-1, 4)");
  says([&] { permute(a, {0, 0}); }, "[permute] axis 0 is named twice");
  says([&] { permute(a, {0}); }, "[permute] 1 axes for shape (2, 3)");
  says([&] { transpose(i); }, "[transpose] shape (3,) has fewer than two axes");
  says([&] { expand(a, {2, 4}); }, "[expand] shapes (2, 3) and (2, 4) do not broadcast");
  says([&] { expand(zeros({1}), {-1}); }, "[expand] shape (-1,): dimension 0 is negative");
  says([&] { permutation(default_generator(), -1); }, "[permutation] of -1 elements: expected 0 or more");
  says([&] { sum(a, {2}); }, "[sum] axis 2 is out of range for rank 2");
  says([&] { sum(a, {0, -2}); }, "[sum] axis 0 is named twice");
  says([&] { max(zeros({0, 3}), {0}); }, "[max] of no elements: shape (0, 3)");
  says([&] { argmax(zeros({3, 0})); }, "[argmax] of no elements: shape (3, 0)");
  says([&] { select(a, 0, 2); }, "[select] index 2 is out of range for size 2 of axis 0");
  says([&] { slice(a, 0, 0, 2, 0); }, "[slice] step 0: expected at least 1");
  says([&] { squeeze(a, 0); }, "[squeeze] axis 0 of shape (2, 3) is not of size 1");
  says([&] { cat({}); }, "[cat] of no tensors");
  says([&] { cat({a, b}); }, "[cat] shapes (4, 5) and (2, 3): all dimensions but axis 0 must be equal");
  says([&] { stack({a, b}); }, "[stack] shapes (2, 3) and (4, 5)");
  says([&] { split(a, 0); }, "[split] pieces of 0: expected at least 1");
  says([&] { split(a, {2, 2}, 1); }, "[split] pieces of 4 elements in all for axis 1 of shape (2, 3)");
  says([&] { split(a, {4, -1}, 1); }, "[split] a piece of -1 elements");
  says(
      [&] {
        index_select(a, 0, tensor<std::int64_t>({0, 2}));
      },
      "[index_select] index 2 at position 1 is out of range for size 2");
  says([&] { index_select(a, 0, tensor({0.f})); }, "[index_select] index holds f32, expected i64");
  says(
      [&] {
        gather(a, 0, zeros({2, 2}, i64));
      },
      "[gather] shapes (2, 3) and (2, 2): all dimensions but axis 0 must be equal");
  says([&] { scatter_add(a, 1, zeros({2, 1}, i64), zeros({2, 2})); }, "[scatter_add] index (2, 1) and source (2, 2)");
  says([&] { embedding(i, i); }, "[embedding] weight (3,): expected (rows, width)");
  says([&] { embedding(a, i); }, "[embedding] index 2 at position 2 is out of range for size 2");
  says([&] { embedding(a, a); }, "[embedding] index holds f32, expected i64");
  says([&] { one_hot(i, 2); }, "[one_hot] index 2 at position 2 is out of range for size 2");
  says([&] { where(a, a, a); }, "[where] condition holds f32, expected bool");
  says([&] { clamp(a, 1, 0); }, "[clamp] low 1 is above high 0");
  says([&] { topk(i, 4); }, "[topk] k = 4 of an axis of 3 elements");
  says([&] { softmax(i); }, "[softmax] needs f32 or f64, got i64");
  says([&] { layer_norm(a, zeros({2})); }, "[layer_norm] weight or bias f32 (2,) for x f32 (2, 3)");
  says([&] { rms_norm(a, zeros({2})); }, "[rms_norm] weight f32 (2,) for x f32 (2, 3)");
  says([&] { cross_entropy_rows(a, i); }, "[cross_entropy] target (3,) for logits (2, 3): expected (2,)");
  says(
      [&] {
        cross_entropy_rows(a, tensor<std::int64_t>({0, 3}));
      },
      "[cross_entropy] target 3 at position 1 is out of range for 3 classes");
  says([&] { cross_entropy_rows(a, zeros({2})); }, "[cross_entropy] target holds f32, expected i64");
  says([&] { cross_entropy_rows(a, zeros({2}, i64), {.label_smoothing = 2}); },
       "[cross_entropy] label smoothing 2: expected 0 to 1");
  says([&] { a.item(); }, "[item] needs one element, got shape (2, 3)");
  says([&] { a.data<double>(); }, "[data] tensor (2, 3) holds f32, not f64");
  says([&] { transpose(to(a, Device::cpu())).data<float>(); }, "is not contiguous: use contiguous()");
  says([&] { Tensor().shape(); }, "[tensor] an undefined tensor was used");
  says([&] { zeros({1LL << 40, 1LL << 40}); }, "has more than 2^63 - 1 elements");
  says([&] { zeros({-1}); }, "[empty] shape (-1,): dimension 0 is negative");
  says([&] { Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}); }, "[shape] rank 9: at most 8 dimensions are supported");
  says([&] { tensor(std::vector<float>{1, 2}, {3}); }, "[tensor] 2 values for shape (3,)");
  says([&] { a.copy_(b); }, "[copy_] shapes (4, 5) and (2, 3) do not broadcast");
  says([&] { expand(zeros({1}), {3}).copy_(ones({3})); },
       "[copy_] in-place write to an expanded tensor (3,), whose elements share memory along axis 0");
  says([&] { zeros({3}).copy_(zeros({3}).set_requires_grad()); }, "[copy_] a source (3,) that records history");
  says([&] { arange(0, 8e15, 1, f64); }, "has no memory for 64000000000000000 bytes");
  says([&] { randint({2}, 0, 300, default_generator(), DType::u8); }, "[randint] 0 to 299: u8 does not hold these");
  says([&] { uniform({2}, 1, 0); }, "[uniform] low 1 is above high 0");
  says([&] { bernoulli({2}, 1.5); }, "[bernoulli] p 1.5: expected 0 to 1");
  says([&] { randint({2}, 3, 3); }, "[randint] low 3 is not below high 3");
  says([&] { zeros({2}, Device::cuda(15)); }, cuda::available() ? "[cuda] no device 15: this machine has " : "[cuda] ");
  (void)c;
}
