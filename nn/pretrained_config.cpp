// Reading config.json. A field that is passed over in silence could change every result, so each one is accounted for.
#include <stet/nn/pretrained_config.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include <stet/tensor/json_file.h>

namespace stet::nn::pretrained {
namespace {

constexpr std::int64_t kSizeCap = std::int64_t{1} << 24;

// What says how a model was trained, stored or is called, and nothing about its forward pass.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_name_or_path",
                                          "architectures",
                                          "attn_implementation",
                                          "bos_token_id",
                                          "chunk_size_feed_forward",
                                          "classifier_dropout",
                                          "directionality",
                                          "do_sample",
                                          "dtype",
                                          "finetuning_task",
                                          "gradient_checkpointing",
                                          "id2label",
                                          "initializer_range",
                                          "label2id",
                                          "max_length",
                                          "max_window_layers",
                                          "model_type",
                                          "n_ctx",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_past",
                                          "pad_token_id",
                                          "pooler_fc_size",
                                          "pooler_num_attention_heads",
                                          "pooler_num_fc_layers",
                                          "pooler_size_per_head",
                                          "pooler_type",
                                          "pretraining_tp",
                                          "problem_type",
                                          "return_dict",
                                          "summary_activation",
                                          "summary_first_dropout",
                                          "summary_proj_to_labels",
                                          "summary_type",
                                          "summary_use_proj",
                                          "task_specific_params",
                                          "tokenizer_class",
                                          "torch_dtype",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "use_cache",
                                          "is_llama_config",
                                          "torchscript"};

/// An object whose fields are taken one by one; finish() refuses those that nobody took.
class Fields {
 public:
  explicit Fields(JsonFile::Value object) : object_(object) {}

  std::optional<JsonFile::Value> take(std::string_view key) {
    taken_.insert(key);
    return object_.given(key);
  }
  std::int64_t size(std::string_view key, std::int64_t low = 1) {
    taken_.insert(key);
    return object_.at(key).integer(low, kSizeCap);
  }
  std::int64_t size_or(std::string_view key, std::int64_t otherwise) { return take(key) ? size(key) : otherwise; }
  /// A finite number in [low, high].
  double number(std::string_view key, double otherwise, double low, double high) {
    const auto value = take(key);
    if (!value) return otherwise;
    const double number = value->number();
    if (!(number >= low && number <= high)) value->refuse("found ", number, ", expected ", low, " to ", high);
    return number;
  }
  /// The same where the field must be there, and null is no number.
  double required(std::string_view key, double low, double high) {
    object_.at(key).number();
    return number(key, 0, low, high);
  }
  double probability(std::string_view key, double otherwise) { return number(key, otherwise, 0, 1); }
  double probability_below_1(std::string_view key, double otherwise) {
    const double p = probability(key, otherwise);
    if (p == 1) object_.at(key).refuse("found 1, expected a probability below 1");
    return p;
  }
  double norm_eps(std::string_view key, double otherwise) { return number(key, otherwise, 0, 1e6); }
  bool flag(std::string_view key, bool otherwise) {
    const auto value = take(key);
    return value ? value->flag() : otherwise;
  }
  void require_flag(std::string_view key, bool wanted) {
    if (flag(key, wanted) != wanted)
      object_.at(key).refuse("found ", wanted ? "false" : "true", ", which is not supported, expected ",
                             wanted ? "true" : "false");
  }
  void require_text(std::string_view key, std::string_view wanted) {
    const auto value = take(key);
    if (value && value->text() != wanted)
      value->refuse("found ", quoted(value->text()), ", which is not supported, expected ", quoted(wanted));
  }
  void forbid(std::string_view key) {
    if (const auto value = take(key)) value->refuse("found a field that is not supported, expected none");
  }
  MlpKind activation(std::string_view key, MlpKind otherwise) {
    const auto value = take(key);
    if (!value) return otherwise;
    const std::string_view name = value->text();
    if (name == "gelu") return MlpKind::gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return MlpKind::gelu_tanh;
    if (name == "relu") return MlpKind::relu;
    value->refuse("found ", quoted(name), ", expected gelu, gelu_new, gelu_pytorch_tanh or relu");
  }
  void finish() const {
    object_.for_each_member([&](std::string_view key, const JsonFile::Value& value) {
      if (!taken_.contains(key))
        value.refuse("found a field that is not known and might change the result, expected only known ones");
    });
  }
  const JsonFile::Value& object() const { return object_; }

 private:
  JsonFile::Value object_;
  std::set<std::string_view> taken_;
};

/// id2label {"0": "a", "1": "b"}: a name for each of 0 .. n - 1.
std::vector<std::string> labels_of(const JsonFile::Value& object) {
  std::vector<std::optional<std::string>> found(object.count());
  object.for_each_member([&](std::string_view key, const JsonFile::Value& label) {
    std::size_t id = found.size();
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id >= found.size() || found[id])
      label.refuse("found ", quoted(key), ", expected the numbers 0 to ", std::ssize(found) - 1, ", each once");
    found[id] = std::string(label.text());
  });
  std::vector<std::string> out;
  for (auto& label : found) out.push_back(*std::move(label));  // n different numbers below n are all of them
  return out;
}

std::optional<ProblemType> problem_type(Fields& f) {
  const auto value = f.take("problem_type");
  if (!value) return {};
  if (value->text() == "single_label_classification") return ProblemType::single_label;
  if (value->text() == "multi_label_classification") return ProblemType::multi_label;
  if (value->text() == "regression") return ProblemType::regression;
  value->refuse("found ", quoted(value->text()),
                ", expected single_label_classification, multi_label_classification or regression");
}

/// Nothing where the folder is no BertForSequenceClassification: then these fields say nothing about the model.
std::optional<BertClassifierOptions> classifier(Fields& f) {
  bool wanted = false;
  if (const auto names = f.take("architectures"))
    names->for_each_item([&](const JsonFile::Value& v) { wanted |= v.text() == "BertForSequenceClassification"; });
  const std::int64_t count = f.size_or("num_labels", 2);
  if (!wanted) return {};
  BertClassifierOptions out{.num_labels = count, .problem_type = problem_type(f)};
  if (f.take("classifier_dropout")) out.classifier_dropout = f.probability("classifier_dropout", 0);
  if (const auto ids = f.take("id2label")) {
    out.labels = labels_of(*ids);
    if (out.labels.empty()) ids->refuse("found no labels, expected one at least");
    if (f.take("num_labels") && std::ssize(out.labels) != count)
      ids->refuse("found ", out.labels.size(), " labels, expected num_labels ", count);
    out.num_labels = std::ssize(out.labels);
  }
  if (const auto names = f.take("label2id"); names && !out.labels.empty())
    names->for_each_member([&](std::string_view label, const JsonFile::Value& id) {
      if (out.labels[static_cast<std::size_t>(id.integer(0, out.num_labels - 1))] != label)
        id.refuse("found ", quoted(label), ", expected the name that id2label has for this number");
    });
  return out;
}

/// One number or a list of them.
std::vector<std::int64_t> end_tokens_of(const JsonFile::Value& value) {
  std::vector<std::int64_t> out;
  const auto add = [&](const JsonFile::Value& id) { out.push_back(id.integer(0, kSizeCap)); };
  if (value.type() == JsonType::array) value.for_each_item(add);
  else add(value);
  return out;
}

/// Where a text ends if config.json does not say: the default of the family's class. null is none.
std::vector<std::int64_t> default_end_tokens(std::string_view model_type) {
  if (model_type == "gpt2") return {50256};
  if (model_type == "llama" || model_type == "mistral") return {2};
  return {};
}

/// What no family may have, and what all may.
void common(Fields& f, Config& config) {
  for (const std::string_view key : kHarmless) f.take(key);
  for (const std::string_view key : {"is_encoder_decoder", "is_decoder", "add_cross_attention"})
    f.require_flag(key, false);
  f.forbid("quantization_config");
  if (const auto pruned = f.take("pruned_heads"); pruned && pruned->count() > 0)
    pruned->refuse("found pruned heads, which are not supported, expected none");
  if (const auto end = f.take("eos_token_id")) config.end_tokens = end_tokens_of(*end);
  else if (!f.object().find("eos_token_id")) config.end_tokens = default_end_tokens(config.model_type);
}

void expect_divides(Fields& f, std::string_view key, std::int64_t heads, std::int64_t width) {
  if (width % heads != 0) f.object().at(key).refuse("found ", heads, " heads, expected a divisor of ", width);
}

Gpt2Config gpt2(Fields& f) {
  f.require_flag("scale_attn_weights", true);
  f.require_flag("scale_attn_by_inverse_layer_idx", false);
  f.require_flag("reorder_and_upcast_attn", false);
  f.require_flag("tie_word_embeddings", true);
  Gpt2Config c{.vocab_size = f.size("vocab_size"),
               .n_positions = f.size("n_positions"),
               .n_embd = f.size("n_embd"),
               .n_layer = f.size("n_layer"),
               .n_head = f.size("n_head"),
               .n_inner = f.size_or("n_inner", 0),
               .activation_function = f.activation("activation_function", MlpKind::gelu_tanh),
               .resid_pdrop = f.probability("resid_pdrop", 0.1),
               .embd_pdrop = f.probability("embd_pdrop", 0.1),
               .attn_pdrop = f.probability_below_1("attn_pdrop", 0.1),
               .layer_norm_epsilon = f.norm_eps("layer_norm_epsilon", 1e-5),
               .initializer_range = f.number("initializer_range", 0.02, 0, 100)};
  expect_divides(f, "n_head", c.n_head, c.n_embd);
  return c;
}

void read_yarn(Fields& f, std::int64_t positions, RopeScaling& out) {
  out.original_max_position_embeddings = f.size_or("original_max_position_embeddings", positions);
  if (const auto factor = f.object().find("factor"); factor && factor->is_null()) {
    f.take("factor");
    out.factor = static_cast<double>(positions) / static_cast<double>(out.original_max_position_embeddings);
  } else {
    out.factor = f.required("factor", 1, 1e6);
  }
  out.beta_fast = f.number("beta_fast", 32, 1e-6, 1e6);
  out.beta_slow = f.number("beta_slow", 1, 1e-6, 1e6);
  out.truncate = f.flag("truncate", true);
  const double scale = f.number("mscale", 0, 0, 1e6), scale_of_all = f.number("mscale_all_dim", 0, 0, 1e6);
  const auto magnitude = [&](double times) { return out.factor > 1 ? 0.1 * times * std::log(out.factor) + 1 : 1; };
  if (f.take("attention_factor")) out.attention_factor = f.number("attention_factor", 1, 1e-6, 1e6);
  else if (scale > 0 && scale_of_all > 0) out.attention_factor = magnitude(scale) / magnitude(scale_of_all);
}

/// rope_type and what belongs to it; false where the object says nothing about it. `positions`: the model's.
bool read_scaling(Fields& f, std::int64_t positions, RopeScaling& out) {
  const auto type = f.take("rope_type"), older = f.take("type");
  if (!type && !older) return false;
  const auto name = type ? *type : *older;
  if (type && older && type->text() != older->text())
    older->refuse("found ", quoted(older->text()), ", expected ", quoted(type->text()), " as in rope_type");
  if (name.text() == "default") return true;
  if (name.text() == "linear") out.kind = RopeScaling::Kind::linear;
  else if (name.text() == "llama3") out.kind = RopeScaling::Kind::llama3;
  else if (name.text() == "yarn") out.kind = RopeScaling::Kind::yarn;
  else if (name.text() == "dynamic") out.kind = RopeScaling::Kind::dynamic;
  else
    name.refuse("found ", quoted(name.text()),
                ", which is not supported, expected default, linear, dynamic, llama3 or yarn");
  if (out.kind == RopeScaling::Kind::yarn) return read_yarn(f, positions, out), true;
  out.factor = f.required("factor", 1, 1e6);
  if (out.kind == RopeScaling::Kind::linear || out.kind == RopeScaling::Kind::dynamic) return true;
  out.low_freq_factor = f.required("low_freq_factor", 0, 1e6);
  out.high_freq_factor = f.required("high_freq_factor", 0, 1e6);
  out.original_max_position_embeddings = f.size("original_max_position_embeddings");
  if (!(out.high_freq_factor > out.low_freq_factor))
    f.object().at("high_freq_factor").refuse("found ", out.high_freq_factor, ", expected more than low_freq_factor");
  return true;
}

/// Angles: rope_theta stands at the top, or in rope_parameters (transformers 5), scaling in that or in rope_scaling.
void read_rope(Fields& f, LlamaConfig& c) {
  std::optional<double> theta;
  bool scaled = false;
  const auto see = [&](Fields& in) {
    if (in.number("partial_rotary_factor", 1, 0, 1) != 1)
      in.object().at("partial_rotary_factor").refuse("found a part, which is not supported, expected 1");
    if (!in.take("rope_theta")) return;
    const double found = in.number("rope_theta", 0, 1, 1e12);
    if (theta && *theta != found)
      in.object().at("rope_theta").refuse("found ", found, ", expected ", *theta, " as elsewhere in the file");
    theta = found;
  };
  see(f);
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const auto object = f.take(key);
    if (!object) continue;
    Fields rope(*object);
    see(rope);
    RopeScaling found;
    if (read_scaling(rope, c.max_position_embeddings, found)) {
      if (scaled && !(found == c.rope_scaling))
        object->refuse("found another scaling than in rope_parameters, expected the same");
      c.rope_scaling = found;
      scaled = true;
    }
    rope.finish();
  }
  c.rope_theta = theta.value_or(10000);
}

/// Sliding windows; null is none, and so is one that reaches over every position. transformers 4 names the first of
/// Qwen2's blocks that has one, 5 the kind of each block; every block of Mistral has one.
void read_window(Fields& f, const Config& config, LlamaConfig& c) {
  constexpr std::int64_t kWhereMissing = 4096;
  const bool qwen = config.model_type == "qwen2", used = !qwen || f.flag("use_sliding_window", false);
  const auto given = f.take("sliding_window");
  std::int64_t window = 0;
  if (used && given) window = given->integer(1, INT64_MAX);
  else if (used && !f.object().find("sliding_window")) window = kWhereMissing;
  if (window < c.max_position_embeddings) c.sliding_window = window;
  if (c.sliding_window && qwen) c.max_window_layers = f.take("max_window_layers") ? f.size("max_window_layers", 0) : 28;
  c.max_window_layers = std::min(c.max_window_layers, c.num_hidden_layers);
  const auto types = f.take("layer_types");
  if (!types) return;
  std::int64_t layer = 0, full = 0;
  types->for_each_item([&](const JsonFile::Value& type) {
    const bool slides = type.text() == "sliding_attention";
    if (!slides && (type.text() != "full_attention" || full < layer))
      type.refuse("found ", quoted(type.text()),
                  ", which is not supported, expected full_attention, then sliding ones");
    if (slides && !window) type.refuse("found \"sliding_attention\", expected a window for it");
    if (!slides && !qwen && window)
      type.refuse("found ", quoted(type.text()), ", expected sliding_attention: every block of Mistral has the window");
    full += !slides;
    ++layer;
  });
  if (layer != c.num_hidden_layers) types->refuse("found ", layer, " blocks, expected ", c.num_hidden_layers);
  if (c.sliding_window) c.max_window_layers = full;
}

LlamaConfig llama(Fields& f, const Config& config) {
  const bool qwen = config.model_type == "qwen2", is_llama = config.model_type == "llama";
  f.require_text("hidden_act", "silu");
  f.require_flag("rope_interleaved", false);
  f.require_flag("use_mrope", false);
  LlamaConfig c{.vocab_size = f.size("vocab_size"),
                .hidden_size = f.size("hidden_size"),
                .intermediate_size = f.size("intermediate_size"),
                .num_hidden_layers = f.size("num_hidden_layers"),
                .num_attention_heads = f.size("num_attention_heads"),
                .num_key_value_heads = is_llama ? f.size_or("num_key_value_heads", 0) : f.size("num_key_value_heads"),
                .head_dim = f.size_or("head_dim", 0),
                .max_position_embeddings = f.size("max_position_embeddings"),
                .rms_norm_eps = f.norm_eps("rms_norm_eps", 1e-6),
                .attention_dropout = f.probability_below_1("attention_dropout", 0),
                .initializer_range = f.number("initializer_range", 0.02, 0, 100),
                .tie_word_embeddings = f.flag("tie_word_embeddings", false)};
  read_rope(f, c);
  if (is_llama) {
    c.attention_bias = f.flag("attention_bias", false);
    c.mlp_bias = f.flag("mlp_bias", false);
  } else {
    f.require_flag("attention_bias", qwen);
    f.require_flag("mlp_bias", false);
    read_window(f, config, c);
  }
  if (qwen) {
    c.attention_bias = true;
    c.output_bias = false;
  }
  if (!c.head_dim) expect_divides(f, "num_attention_heads", c.num_attention_heads, c.hidden_size);
  if (c.num_key_value_heads) expect_divides(f, "num_key_value_heads", c.num_key_value_heads, c.num_attention_heads);
  const std::int64_t width = head_width(c);
  if (width % 2) f.object().refuse("found heads of width ", width, ", expected an even width to rotate");
  return c;
}

BertConfig bert(Fields& f) {
  f.require_text("position_embedding_type", "absolute");
  f.take("tie_word_embeddings");  // of a head that is not read
  BertConfig c{.vocab_size = f.size("vocab_size"),
               .hidden_size = f.size("hidden_size"),
               .num_hidden_layers = f.size("num_hidden_layers"),
               .num_attention_heads = f.size("num_attention_heads"),
               .intermediate_size = f.size("intermediate_size"),
               .max_position_embeddings = f.size("max_position_embeddings"),
               .type_vocab_size = f.size("type_vocab_size"),
               .hidden_act = f.activation("hidden_act", MlpKind::gelu),
               .hidden_dropout_prob = f.probability("hidden_dropout_prob", 0.1),
               .attention_probs_dropout_prob = f.probability_below_1("attention_probs_dropout_prob", 0.1),
               .layer_norm_eps = f.norm_eps("layer_norm_eps", 1e-12),
               .initializer_range = f.number("initializer_range", 0.02, 0, 100)};
  expect_divides(f, "num_attention_heads", c.num_attention_heads, c.hidden_size);
  return c;
}

}  // namespace

Config read_config(const std::filesystem::path& path) {
  const JsonFile file(path, kLoad);
  Config config;
  const auto type = file.root().at("model_type");
  config.model_type = type.text();
  Fields fields(file.root());
  common(fields, config);
  const std::string& name = config.model_type;
  if (name == "gpt2") config.model = gpt2(fields);
  else if (name == "llama" || name == "mistral" || name == "qwen2") config.model = llama(fields, config);
  else if (name == "bert") {
    config.model = bert(fields);
    config.classifier = classifier(fields);
  } else type.refuse("found ", quoted(name), ", expected gpt2, llama, mistral, qwen2 or bert");
  fields.finish();
  // Chat models often have further end tokens there alone. The rest of it is how to draw tokens, which the caller says.
  std::error_code ignored;
  const std::filesystem::path generation = path.parent_path() / "generation_config.json";
  if (std::filesystem::exists(generation, ignored)) {
    const JsonFile settings(generation, kLoad);
    if (const auto end = settings.root().given("eos_token_id")) config.end_tokens = end_tokens_of(*end);
  }
  return config;
}

}  // namespace stet::nn::pretrained
