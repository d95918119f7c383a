// What reading and writing weights takes besides the model: pieces, whatever the file's type and however it is cut.
#include <array>
#include <bit>
#include <numeric>

#include <stet/autograd/ops.h>
#include <stet/nn/pretrained.h>
#include <stet/nn/safetensors.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"
#include "support/scratch.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

/// The highest memory of all tensors during `run`, less what there was before.
template <class Run> std::int64_t peak_of(const Run& run) {
  const std::int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  run();
  return memory_stats().peak_bytes - before;
}

/// Half precision by leaving digits out; 0 below its normal numbers.
std::uint16_t to_half(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits >> 16 & 0x8000u, exponent = bits >> 23 & 255u;
  return static_cast<std::uint16_t>(exponent > 112 ? sign | (exponent - 112) << 10 | (bits >> 13 & 1023u) : sign);
}
float from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
  return std::bit_cast<float>(rest ? sign | ((rest << 13) + (112u << 23)) : sign);
}

std::string halves_file(const nn::State& state) {
  std::string header, data;
  for (const auto& [name, value] : state) {
    const std::size_t begin = data.size();
    for (const float x : value.to_vector<float>()) {
      const std::uint16_t half = to_half(x);
      data.append(reinterpret_cast<const char*>(&half), sizeof half);
    }
    std::string shape;
    for (const std::int64_t size : value.shape()) shape += (shape.empty() ? "" : ",") + std::to_string(size);
    header += (header.empty() ? "{\"" : ",\"") + name + R"(":{"dtype":"F16","shape":[)" + shape +
              R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  header += "}";
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data;
}

enum class Kind { f32, bf16, f16 };

void write_as(Kind kind, nn::State state, const test::Scratch& scratch, const std::string& name) {
  if (kind == Kind::f16) {
    scratch.write(name, halves_file(state));
    return;
  }
  if (kind == Kind::bf16)
    for (auto& [key, value] : state) value = cast(value, DType::bf16);
  nn::save_safetensors(scratch.path() / name, state);
}

/// What is left of a value in such a file.
Tensor kept(Kind kind, const Tensor& x) {
  if (kind == Kind::f32) return x;
  if (kind == Kind::bf16) return cast(cast(x, DType::bf16), DType::f32);
  std::vector<float> values = x.to_vector<float>();
  for (float& v : values) v = from_half(to_half(v));
  return tensor(values, x.shape());
}

/// The folder's weights as another type, in one file or in two, which change in the middle of a block.
void convert(const fs::path& from, const test::Scratch& to, Kind kind, bool shards) {
  fs::copy(from / "config.json", to.path());
  nn::State first = nn::load_safetensors(from / "model.safetensors"), second;
  if (!shards) return write_as(kind, first, to, "model.safetensors");
  while (second.size() < first.size()) second.insert(first.extract(std::prev(first.end())));
  std::string map;
  for (const auto& [name, value] : first) map += "\"" + name + R"(": "a.safetensors",)";
  for (const auto& [name, value] : second) map += "\"" + name + R"(": "b.safetensors",)";
  map.back() = '}';
  to.write("model.safetensors.index.json", R"({"metadata": {}, "weight_map": {)" + map + "}");
  write_as(kind, first, to, "a.safetensors");
  write_as(kind, second, to, "b.safetensors");
}

template <class Model> void check_folders(const Model& model) {
  const test::Scratch whole;
  CHECK(peak_of([&] { save_pretrained(model, whole.path()); }) < kMiB);
  for (const Kind kind : {Kind::f32, Kind::bf16, Kind::f16})
    for (const bool shards : {false, true}) {
      CAPTURE(kind, shards);
      const test::Scratch folder;
      convert(whole.path(), folder, kind, shards);
      nn::Pretrained back;
      CHECK(peak_of([&] { back = nn::load_pretrained(folder.path()); }) < 4 * model.count() + kMiB);
      for (const nn::Parameter* p : model.parameters()) {
        CAPTURE(p->path());
        CHECK(test::same_bits(back.module().parameter(p->path()).value(), kept(kind, p->value().detach())));
      }
    }
}

}  // namespace

TEST_CASE("Reading or writing a folder takes less than 1 MiB besides the model") {
  check_folders(nn::Llama({.vocab_size = 4000,
                           .hidden_size = 256,
                           .intermediate_size = 1500,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 2,
                           .tie_word_embeddings = true}));
  check_folders(nn::Gpt2({.vocab_size = 4000, .n_positions = 64, .n_embd = 320, .n_layer = 2, .n_head = 4}));
  const nn::Linear later(8, 8);  // no model is being read: a layer has its initial values again
  CHECK(max(abs(later.weight.value())).item() > 0);
}

TEST_CASE(
    "A tied output that stands in the file as well is compared in pieces, by its numbers where its type is another") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const nn::Gpt2 model({.vocab_size = 4000, .n_positions = 8, .n_embd = 96, .n_layer = 1, .n_head = 2});
    const test::Scratch folder;
    save_pretrained(model, folder.path());
    nn::State state = nn::load_safetensors(folder.path() / "model.safetensors");
    Tensor& table = state.at("transformer.wte.weight");
    table = cast(table, dtype);
    const Tensor output = state["lm_head.weight"] = cast(table, DType::f32).clone();
    nn::save_safetensors(folder.path() / "model.safetensors", state);
    CHECK(peak_of([&] { nn::load_pretrained(folder.path()); }) < 4 * model.count() + kMiB);
    output.mutable_data<float>()[output.numel() - 1] += 1;
    nn::save_safetensors(folder.path() / "model.safetensors", state);
    const std::string message = test::message_of([&] { nn::load_pretrained(folder.path()); });
    CHECK(message.find("\"lm_head.weight\" differs") != std::string::npos);
  }
}

TEST_CASE("Saving any module takes less than 1 MiB besides it") {
  const test::Scratch scratch;
  nn::Mlp model({1000, 900, 10});
  CHECK(peak_of([&] { nn::save(model, scratch.path() / "mlp"); }) < kMiB);
  const nn::State before = model.state();
  model.layer(0).weight.set(zeros({900, 1000}));
  CHECK(nn::load(model, scratch.path() / "mlp").empty());
  CHECK(test::same_bits(model.layer(0).weight.value(), before.at("fc1.weight")));
}

TEST_CASE("Tensors of every shape go through pieces") {
  const test::Scratch scratch;
  nn::State state{{"none", zeros({0, 5})}, {"one", full({}, 0.5)}};
  for (const Shape& shape : {Shape{300'000}, {3, 100'000}, {100'000, 3}, {1, 1, 200'000}, {2, 3, 50'000}, {7, 99, 301}})
    state[std::to_string(shape.size()) + "_" + std::to_string(shape[0])] = test::spread(shape, -2, 2, 1, {DType::f32});
  for (const auto& [name, value] : nn::load_safetensors(scratch.write("halves", halves_file(state))))
    CHECK(test::same_bits(value, kept(Kind::f16, state.at(name))));
  for (auto& [name, value] : state)
    if (value.rank() > 1) value = transpose(value);
  CHECK(peak_of([&] { nn::save_safetensors(scratch.path() / "turned", state); }) < kMiB);
  for (const auto& [name, value] : nn::load_safetensors(scratch.path() / "turned"))
    CHECK(test::same_bits(value, state.at(name)));
}

TEST_CASE("llama2.c's export is read into the model, each row where it belongs") {
  const std::array<std::int32_t, 7> header{256, 1500, 2, 4, 2, -2000, 16};  // a negative vocabulary: an own output
  constexpr std::int64_t kDim = 256, kHidden = 1500, kLayers = 2, kVocab = 2000, kKv = 128, kWidth = 64;
  const std::int64_t table = kVocab * kDim, norms = kLayers * kDim, q = kDim * kDim, k = kKv * kDim;
  const std::int64_t count =
      2 * table + 2 * norms + kDim + kLayers * (2 * q + 2 * k + 3 * kHidden * kDim) + 16 * kWidth;
  std::vector<float> floats(static_cast<std::size_t>(count));
  std::iota(floats.begin(), floats.end(), 0.0f);
  const test::Scratch scratch;
  std::string bytes(reinterpret_cast<const char*>(header.data()), sizeof header);
  bytes.append(reinterpret_cast<const char*>(floats.data()), floats.size() * sizeof(float));
  const fs::path file = scratch.write("model.bin", bytes);
  std::unique_ptr<nn::Llama> model;
  CHECK(peak_of([&] { model = nn::load_llama2c(file); }) < 4 * count + kMiB);

  const auto at = [&](const std::string& name, std::int64_t row) {
    return select(select(model->parameter(name).value().detach(), 0, row), 0, 0).item();
  };
  CHECK(at("model.embed_tokens.weight", 1999) == static_cast<double>(1999 * kDim));
  const std::int64_t first_q = table + norms, first_k = first_q + kLayers * q;
  for (const std::int64_t i : {0, 1, 31})  // row (head 3, i) is the pair's first, row (head 3, i + 32) its second
    for (const std::int64_t second : {0, 1})
      CHECK(at("model.layers.1.self_attn.q_proj.weight", 3 * kWidth + i + 32 * second) ==
            static_cast<double>(first_q + q + (3 * kWidth + 2 * i + second) * kDim));
  CHECK(at("model.layers.0.self_attn.k_proj.weight", kWidth + 33) ==
        static_cast<double>(first_k + (kWidth + 3) * kDim));
  CHECK(at("lm_head.weight", 1999) == static_cast<double>(count - kDim));
}
