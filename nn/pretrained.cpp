// Weights of released models: which file has what, and the names under which a model looks for them.
#include <stet/nn/pretrained.h>

#include <algorithm>
#include <map>
#include <type_traits>

#include <stet/autograd/ops.h>
#include <stet/nn/init.h>
#include <stet/nn/pretrained_config.h>
#include <stet/nn/safetensors_reader.h>
#include <stet/tensor/json_file.h>

namespace stet::nn {

namespace fs = std::filesystem;
using pretrained::kLoad;

namespace {

using safetensors::Entry;
using safetensors::Reader;

/// Where a tensor's values are.
struct Source {
  std::shared_ptr<const Reader> file;
  const Entry* entry;
};
using Sources = std::map<std::string, Source>;

/// All tensors of a folder, none of which is read yet, and the file that an Error about them names.
struct Weights {
  std::string file;
  Sources sources;

  template <class... Parts> [[noreturn]] void refuse(const Parts&... parts) const { fail(kLoad, file, ": ", parts...); }
  /// Before anything is allocated by the configuration's word.
  void expect(const std::string& name, const Shape& shape) const {
    const auto found = sources.find(name);
    if (found == sources.end()) refuse("found no ", quoted(name), ", expected ", shape, " by config.json");
    if (!(found->second.entry->shape == shape))
      refuse(quoted(name), " is ", found->second.entry->shape, ", expected ", shape, " by config.json");
  }
  void expect_layers(std::int64_t layers) const {
    if (layers > std::ssize(sources))
      refuse("found ", sources.size(), " tensors, expected num_hidden_layers ", layers, " of config.json at most");
  }
};

/// What older releases keep beside the weights, although it follows from the configuration: GPT-2's causal masks,
/// Llama's rotary frequencies, BERT's positions.
bool is_constant(std::string_view name) {
  constexpr std::string_view ends[] = {".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq",
                                       "embeddings.position_ids"};
  return std::any_of(std::begin(ends), std::end(ends), [&](std::string_view end) { return name.ends_with(end); });
}

/// Without the exception that a name too long or a folder without permission would be.
bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

Sources sources_in(const fs::path& file) {
  const auto reader = std::make_shared<const Reader>(file);
  Sources sources;
  for (const Entry& e : reader->header().entries) {
    check(is_floating(e.dtype) || is_constant(e.name), kLoad, file.string(), ": ", quoted(e.name), " has dtype ",
          e.dtype, ", expected f32, f16, bf16 or f64 (quantized weights are not supported)");
    sources[e.name] = {reader, &e};
  }
  return sources;
}

/// model.safetensors.index.json says which shard holds each tensor; both must agree.
Weights read_shards(const fs::path& index) {
  const JsonFile file(index, kLoad);
  file.root().expect_keys({"metadata", "weight_map"});
  Weights weights{index.string(), {}};
  std::map<std::string, Sources> shards;
  std::size_t listed = 0, held = 0;
  file.root().at("weight_map").for_each_member([&](std::string_view name, const JsonFile::Value& value) {
    const std::string shard(value.text());
    const bool plain = shard.find('/') == std::string::npos && shard.ends_with(".safetensors");
    if (!plain) value.refuse("found ", quoted(shard), ", expected a .safetensors file beside the index");
    if (!shards.contains(shard)) {
      if (!is_there(index.parent_path() / shard))
        value.refuse("found no file ", quoted(shard), ", expected it beside the index");
      held += (shards[shard] = sources_in(index.parent_path() / shard)).size();
    }
    const auto found = shards[shard].find(std::string(name));
    if (found == shards[shard].end()) value.refuse("found no such tensor in ", quoted(shard), ", expected it there");
    weights.sources.emplace(name, found->second);
    ++listed;
  });
  check(listed == held, kLoad, index.string(), ": weight_map: found ", listed, " tensors, expected the ", held,
        " that its files hold");
  return weights;
}

Weights read_weights(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (is_there(single)) return {single.string(), sources_in(single)};
  check(is_there(index), kLoad, folder.string(), ": found no model.safetensors and no model.safetensors.index.json, ",
        "expected one");
  return read_shards(index);
}

/// `rename(name)` gives the model's name, or an empty one to leave the tensor out.
template <class Rename> void rename_all(Weights& weights, Rename&& rename) {
  Sources sources;
  for (const auto& [name, source] : weights.sources) {
    if (is_constant(name)) continue;
    const std::string now = rename(name);
    if (!now.empty() && !sources.emplace(now, source).second)
      weights.refuse("found ", quoted(now), " under two names, expected one");
  }
  weights.sources = std::move(sources);
}

bool starts_any(const Sources& sources, std::string_view start) {
  return std::any_of(sources.begin(), sources.end(), [&](const auto& item) { return item.first.starts_with(start); });
}

/// An output that shares the embedding may stand in the file, if it is the same.
void drop_tied_output(Weights& weights, const std::string& embedding) {
  const auto output = weights.sources.find("lm_head.weight"), source = weights.sources.find(embedding);
  if (output == weights.sources.end() || source == weights.sources.end()) return;
  const auto& [file, entry] = output->second;
  if (!file->same(*entry, *source->second.file, *source->second.entry))
    weights.refuse("\"lm_head.weight\" differs from ", quoted(embedding), ", expected the same: tie_word_embeddings");
  weights.sources.erase(output);
}

/// Makes the model and reads its parameters. Buffers, the state of dropout's draws, are in no released file.
template <class Model, class... Settings>
std::unique_ptr<Model> filled(const Weights& weights, const Settings&... settings) {
  const init::Skip values;  // all come from the file
  auto model = std::make_unique<Model>(settings...);
  State targets;
  for (const Parameter* p : model->parameters()) targets[p->path()] = p->value().detach();
  if constexpr (std::is_same_v<Model, Gpt2>) targets = Gpt2::transposed(std::move(targets));
  Shapes found;
  for (const auto& [name, source] : weights.sources) found[name] = source.entry->shape;
  if (const Misfits problems = misfits(found, shapes_of(targets)); !problems.names.empty())
    weights.refuse(problems.text);
  for (const auto& [name, source] : weights.sources) source.file->read(*source.entry, targets.at(name));
  return model;
}

std::unique_ptr<Gpt2> make_gpt2(Weights& weights, const Gpt2Config& c) {
  rename_all(weights, [](const std::string& name) -> std::string {
    return name.starts_with("transformer.") || name == "lm_head.weight" ? name : "transformer." + name;
  });
  drop_tied_output(weights, "transformer.wte.weight");
  weights.expect("transformer.wte.weight", {c.vocab_size, c.n_embd});
  weights.expect("transformer.wpe.weight", {c.n_positions, c.n_embd});
  weights.expect("transformer.h.0.mlp.c_fc.weight", {c.n_embd, c.n_inner ? c.n_inner : 4 * c.n_embd});
  weights.expect_layers(c.n_layer);
  return filled<Gpt2>(weights, c);
}

std::unique_ptr<Llama> make_llama(Weights& weights, const LlamaConfig& c) {
  const bool bare = !starts_any(weights.sources, "model.");
  rename_all(weights, [&](const std::string& name) -> std::string {
    return bare && name != "lm_head.weight" ? "model." + name : name;
  });
  if (c.tie_word_embeddings) drop_tied_output(weights, "model.embed_tokens.weight");
  const std::int64_t width = head_width(c);
  weights.expect("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  weights.expect("model.layers.0.self_attn.q_proj.weight", {c.num_attention_heads * width, c.hidden_size});
  weights.expect("model.layers.0.mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
  weights.expect_layers(c.num_hidden_layers);
  return filled<Llama>(weights, c);
}

/// Names of the first releases say gamma and beta for a norm's weight and bias.
std::string present_name(std::string name) {
  if (name.ends_with("LayerNorm.gamma")) name.replace(name.size() - 5, 5, "weight");
  if (name.ends_with("LayerNorm.beta")) name.replace(name.size() - 4, 4, "bias");
  return name;
}

void expect_bert(const Weights& weights, const BertConfig& c, const std::string& start) {
  weights.expect(start + "embeddings.word_embeddings.weight", {c.vocab_size, c.hidden_size});
  weights.expect(start + "embeddings.position_embeddings.weight", {c.max_position_embeddings, c.hidden_size});
  weights.expect(start + "embeddings.token_type_embeddings.weight", {c.type_vocab_size, c.hidden_size});
  weights.expect(start + "encoder.layer.0.intermediate.dense.weight", {c.intermediate_size, c.hidden_size});
  weights.expect_layers(c.num_hidden_layers);
}

std::unique_ptr<Bert> make_bert(Weights& weights, BertConfig c, std::vector<std::string>& left_out) {
  rename_all(weights, [&](const std::string& name) -> std::string {
    for (const char* head : {"cls.", "classifier.", "qa_outputs."})
      if (name.starts_with(head)) {
        left_out.push_back(name);
        return "";
      }
    return present_name(name.starts_with("bert.") ? name.substr(5) : name);
  });
  expect_bert(weights, c, "");
  c.pooler = starts_any(weights.sources, "pooler.");
  return filled<Bert>(weights, c);
}

std::unique_ptr<BertClassifier> make_bert_classifier(Weights& weights, const BertConfig& c,
                                                     const BertClassifierOptions& options) {
  rename_all(weights, present_name);
  expect_bert(weights, c, "bert.");
  weights.expect("classifier.weight", {options.num_labels, c.hidden_size});
  return filled<BertClassifier>(weights, c, options);
}

}  // namespace

Module& Pretrained::module() const {
  return std::visit([](const auto& held) -> Module& { return *held; }, model);
}

Pretrained load_pretrained(const fs::path& folder) {
  std::error_code ignored;
  if (fs::is_regular_file(folder, ignored))
    return {.model_type = "llama", .model = load_llama2c(folder), .end_tokens = {1, 2}};
  check(is_there(folder / "config.json") || !is_there(folder / "adapter_config.json"), kLoad, folder.string(),
        ": found an adapter, expected a model");
  const pretrained::Config config = pretrained::read_config(folder / "config.json");
  Weights weights = read_weights(folder);
  Pretrained out{.model_type = config.model_type, .model = {}, .end_tokens = config.end_tokens};
  if (const auto* gpt2 = std::get_if<Gpt2Config>(&config.model)) out.model = make_gpt2(weights, *gpt2);
  else if (const auto* llama = std::get_if<LlamaConfig>(&config.model)) out.model = make_llama(weights, *llama);
  else if (const BertConfig& bert = std::get<BertConfig>(config.model); config.classifier)
    out.model = make_bert_classifier(weights, bert, *config.classifier);
  else out.model = make_bert(weights, bert, out.left_out);
  return out;
}

}  // namespace stet::nn
