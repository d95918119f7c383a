// llama2.c's legacy export (run.c, memory_map_weights): a header of seven i32, then f32 weights, kind after kind.
#include <bit>
#include <cstring>

#include <stet/autograd/ops.h>
#include <stet/nn/init.h>
#include <stet/nn/pretrained.h>
#include <stet/tensor/json_file.h>

namespace stet::nn {
namespace {

constexpr std::string_view kOp = "load_llama2c";
static_assert(std::endian::native == std::endian::little, "the format is little-endian");

struct Header {
  std::int32_t dim, hidden, layers, heads, kv_heads, vocab, positions;
};

LlamaConfig config_of(const std::string& file, const Header& h) {
  constexpr const char* names[] = {"dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"};
  const std::int64_t fields[] = {h.dim,      h.hidden,   h.layers,
                                 h.heads,    h.kv_heads, h.vocab < 0 ? -std::int64_t{h.vocab} : std::int64_t{h.vocab},
                                 h.positions};
  for (std::size_t i = 0; i < 7; ++i)
    check(fields[i] >= 1 && fields[i] <= (1 << 20), kOp, file, ": ", names[i], " at byte ", 4 * i, ": found ",
          fields[i], ", expected 1 to ", 1 << 20, i ? "" : " (exports of version 1 and 2 are not supported)");
  check(h.dim % h.heads == 0 && h.dim / h.heads % 2 == 0, kOp, file, ": n_heads at byte 12: found ", h.heads,
        ", expected heads of an even width, whose sum is dim ", h.dim);
  check(h.heads % h.kv_heads == 0, kOp, file, ": n_kv_heads at byte 16: found ", h.kv_heads,
        ", expected a divisor of n_heads ", h.heads);
  return {.vocab_size = fields[5],
          .hidden_size = h.dim,
          .intermediate_size = h.hidden,
          .num_hidden_layers = h.layers,
          .num_attention_heads = h.heads,
          .num_key_value_heads = h.kv_heads,
          .max_position_embeddings = h.positions,
          .rms_norm_eps = 1e-5,
          .tie_word_embeddings = h.vocab > 0};
}

/// Takes tensors from the file's bytes, in order.
class Weights {
 public:
  Weights(const std::string& bytes, std::size_t at) : bytes_(bytes), at_(at) {}

  Tensor take(const Shape& shape) {
    const Tensor out = empty(shape, {DType::f32, Device::cpu()});
    const auto size = static_cast<std::size_t>(out.bytes());
    std::memcpy(out.raw_mutable(), bytes_.data() + at_, size);
    at_ += size;
    return out;
  }
  void skip(std::int64_t floats) { at_ += static_cast<std::size_t>(floats) * sizeof(float); }

 private:
  const std::string& bytes_;
  std::size_t at_;
};

/// Rows of a head from neighbours (2 i, 2 i + 1) to halves (i, i + d / 2), as transformers' conversion does.
Tensor halves(const Tensor& rows, std::int64_t heads, std::int64_t d) {
  const Tensor pairs = reshape(rows, {heads, d / 2, 2, rows.shape()[1]});
  return contiguous(reshape(transpose(pairs, 1, 2), rows.shape()));
}

State read_state(Weights& w, const LlamaConfig& c) {
  const std::int64_t dim = c.hidden_size, d = dim / c.num_attention_heads, kv = c.num_key_value_heads * d;
  State state;
  state["model.embed_tokens.weight"] = w.take({c.vocab_size, dim});
  const auto each_layer = [&](const std::string& name, const Shape& shape, std::int64_t rotary_heads = 0) {
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
      const Tensor value = w.take(shape);
      state["model.layers." + std::to_string(i) + "." + name + ".weight"] =
          rotary_heads ? halves(value, rotary_heads, d) : value;
    }
  };
  each_layer("input_layernorm", {dim});
  each_layer("self_attn.q_proj", {dim, dim}, c.num_attention_heads);
  each_layer("self_attn.k_proj", {kv, dim}, c.num_key_value_heads);
  each_layer("self_attn.v_proj", {kv, dim});
  each_layer("self_attn.o_proj", {dim, dim});
  each_layer("post_attention_layernorm", {dim});
  each_layer("mlp.gate_proj", {c.intermediate_size, dim});
  each_layer("mlp.down_proj", {dim, c.intermediate_size});
  each_layer("mlp.up_proj", {c.intermediate_size, dim});
  state["model.norm.weight"] = w.take({dim});
  w.skip(c.max_position_embeddings * d);  // tables of cosines and sines
  if (!c.tie_word_embeddings) state["lm_head.weight"] = w.take({c.vocab_size, dim});
  return state;
}

/// In floats; a double holds it without overflow, and exactly for any file that exists.
double count(const LlamaConfig& c) {
  const auto dim = static_cast<double>(c.hidden_size), heads = static_cast<double>(c.num_attention_heads);
  const double kv = dim / heads * static_cast<double>(c.num_key_value_heads);
  const double layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * dim * static_cast<double>(c.intermediate_size);
  return static_cast<double>(c.vocab_size) * dim * (c.tie_word_embeddings ? 1 : 2) + dim +
         layer * static_cast<double>(c.num_hidden_layers) +
         static_cast<double>(c.max_position_embeddings) * dim / heads;
}

}  // namespace

std::unique_ptr<Llama> load_llama2c(const std::filesystem::path& path) {
  const std::string file = path.string(), bytes = read_bytes(path, kOp);
  check(bytes.size() >= sizeof(Header), kOp, file, ": found ", bytes.size(), " bytes, expected a header of ",
        sizeof(Header));
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const LlamaConfig config = config_of(file, header);
  const double expected = sizeof(Header) + 4 * count(config);
  check(static_cast<double>(bytes.size()) == expected, kOp, file, ": found ", bytes.size(), " bytes, expected ",
        std::to_string(expected).substr(0, std::to_string(expected).find('.')), " by the header");
  const NoGrad no_grad;
  Weights weights(bytes, sizeof header);
  const init::Skip values;  // all come from the file
  auto model = std::make_unique<Llama>(config);
  model->load(read_state(weights, config));
  return model;
}

}  // namespace stet::nn
