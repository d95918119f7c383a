// llama2.c's legacy export (run.c, memory_map_weights): a header of seven i32, then f32 weights, kind after kind.
#include <stet/nn/init.h>
#include <stet/nn/pretrained.h>
#include <stet/nn/weight_file.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

constexpr std::string_view kOp = "load_llama2c";

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
          fields[i], ", expected 1 to ", 1 << 20,
          i ? "" : " (exports of version 1 and 2 are not supported; a released model is given as its folder)");
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

/// The rows in the file's order: those of a head are neighbours (2 i, 2 i + 1) there, and halves (i, i + d / 2) here.
Tensor pairs(const Tensor& rows, std::int64_t heads) {
  return transpose(reshape(rows, {heads, 2, rows.shape()[0] / heads / 2, rows.shape()[1]}), 1, 2);
}

void fill(const Llama& model, const WeightFile& file) {
  const LlamaConfig& c = model.config();
  State parameters = model.shared_state();
  std::uint64_t at = sizeof(Header);
  const auto skip = [&](std::int64_t floats) { at += static_cast<std::uint64_t>(floats) * sizeof(float); };
  const auto read = [&](const std::string& name, std::int64_t rotary_heads = 0) {
    const Tensor value = parameters.extract(name).mapped();
    file.read(rotary_heads ? pairs(value, rotary_heads) : value, at, DType::f32);
    skip(value.numel());
  };
  const auto each_layer = [&](const std::string& name, std::int64_t rotary_heads = 0) {
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
      read("model.layers." + std::to_string(i) + "." + name + ".weight", rotary_heads);
  };
  read("model.embed_tokens.weight");
  each_layer("input_layernorm");
  each_layer("self_attn.q_proj", c.num_attention_heads);
  each_layer("self_attn.k_proj", c.num_key_value_heads);
  each_layer("self_attn.v_proj");
  each_layer("self_attn.o_proj");
  each_layer("post_attention_layernorm");
  each_layer("mlp.gate_proj");
  each_layer("mlp.down_proj");
  each_layer("mlp.up_proj");
  read("model.norm.weight");
  skip(c.max_position_embeddings * head_width(c));  // tables of cosines and sines
  if (!c.tie_word_embeddings) read("lm_head.weight");
  if (!parameters.empty() || at != file.size())
    fail<BugError>(kOp, file.name(), ": read up to byte ", at, ", and not ", parameters.size(), " parameters");
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
  const WeightFile file(path, kOp);
  check(file.size() >= sizeof(Header), kOp, file.name(), ": found ", file.size(), " bytes, expected a header of ",
        sizeof(Header));
  Header header;
  file.read(&header, sizeof header, 0);
  const LlamaConfig config = config_of(file.name(), header);
  const double expected = sizeof(Header) + 4 * count(config);
  check(static_cast<double>(file.size()) == expected, kOp, file.name(), ": found ", file.size(), " bytes, expected ",
        std::to_string(expected).substr(0, std::to_string(expected).find('.')), " by the header");
  const init::Skip values;  // all come from the file
  auto model = std::make_unique<Llama>(config);
  fill(*model, file);
  return model;
}

}  // namespace stet::nn
