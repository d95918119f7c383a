// save_pretrained: a model as a folder that transformers reads.
#include <fstream>

#include <nlohmann/json.hpp>

#include <stet/nn/pretrained_config.h>
#include <stet/nn/safetensors.h>
#include <stet/tensor/error.h>
#include <stet/tensor/json_file.h>

namespace stet::nn {
namespace pretrained {
namespace {

using json = nlohmann::ordered_json;

/// One number or a list, as transformers has it. None is null: where the field is missing, transformers takes the
/// default of the family.
json end_token_field(const std::vector<std::int64_t>& tokens) {
  for (const std::int64_t token : tokens) check(token >= 0, kSave, "end token ", token, ": expected at least 0");
  if (tokens.empty()) return nullptr;
  return tokens.size() == 1 ? json(tokens[0]) : json(tokens);
}

std::string text_of(const json& config) { return config.dump(2) + "\n"; }

const char* name_of(MlpKind kind) {
  switch (kind) {
    case MlpKind::relu: return "relu";
    case MlpKind::gelu: return "gelu";
    case MlpKind::gelu_tanh: return "gelu_new";
    case MlpKind::swiglu: break;
  }
  fail(kSave, "found SwiGLU in a model of two linear layers, expected relu, gelu or gelu_tanh");
}

json head(const char* model_type, const char* model) {
  return {{"architectures", {model}}, {"model_type", model_type}, {"torch_dtype", "float32"}};
}

}  // namespace

std::string config_text(const Gpt2Config& c, const std::vector<std::int64_t>& end_tokens) {
  json out = head("gpt2", "GPT2LMHeadModel");
  out.update({{"vocab_size", c.vocab_size},
              {"n_positions", c.n_positions},
              {"n_embd", c.n_embd},
              {"n_layer", c.n_layer},
              {"n_head", c.n_head},
              {"n_inner", c.n_inner ? json(c.n_inner) : json(nullptr)},
              {"activation_function", name_of(c.activation_function)},
              {"resid_pdrop", c.resid_pdrop},
              {"embd_pdrop", c.embd_pdrop},
              {"attn_pdrop", c.attn_pdrop},
              {"layer_norm_epsilon", c.layer_norm_epsilon},
              {"initializer_range", c.initializer_range},
              {"tie_word_embeddings", true}});
  out["eos_token_id"] = end_token_field(end_tokens);
  return text_of(out);
}

namespace {
json rope_scaling(const RopeScaling& s) {
  if (s.kind == RopeScaling::Kind::none) return nullptr;
  if (s.kind == RopeScaling::Kind::linear || s.kind == RopeScaling::Kind::dynamic)
    return {{"rope_type", s.kind == RopeScaling::Kind::linear ? "linear" : "dynamic"}, {"factor", s.factor}};
  if (s.kind == RopeScaling::Kind::yarn) {
    json out{{"rope_type", "yarn"},      {"factor", s.factor},
             {"beta_fast", s.beta_fast}, {"beta_slow", s.beta_slow},
             {"truncate", s.truncate},   {"original_max_position_embeddings", s.original_max_position_embeddings}};
    if (s.attention_factor) out["attention_factor"] = *s.attention_factor;
    return out;
  }
  return {{"rope_type", "llama3"},
          {"factor", s.factor},
          {"low_freq_factor", s.low_freq_factor},
          {"high_freq_factor", s.high_freq_factor},
          {"original_max_position_embeddings", s.original_max_position_embeddings}};
}
}  // namespace

std::string config_text(const LlamaConfig& c, const std::vector<std::int64_t>& end_tokens) {
  const bool same_bias = c.output_bias.value_or(c.attention_bias) == c.attention_bias;
  const bool qwen = !same_bias && c.attention_bias && !c.mlp_bias;
  check(same_bias || qwen, kSave, "output_bias differs from attention_bias: transformers' models have that only as ",
        "Qwen2, with biases on q, k and v alone");
  const bool slides = c.sliding_window > 0 && c.sliding_window < c.max_position_embeddings;
  const bool mistral = slides && !qwen;
  check(!mistral || (!c.attention_bias && !c.mlp_bias && c.max_window_layers == 0), kSave,
        "a sliding window with biases or blocks that have none: transformers' models have that only as Qwen2");
  json out = qwen      ? head("qwen2", "Qwen2ForCausalLM")
             : mistral ? head("mistral", "MistralForCausalLM")
                       : head("llama", "LlamaForCausalLM");
  out.update({{"vocab_size", c.vocab_size},
              {"hidden_size", c.hidden_size},
              {"intermediate_size", c.intermediate_size},
              {"num_hidden_layers", c.num_hidden_layers},
              {"num_attention_heads", c.num_attention_heads},
              {"num_key_value_heads", c.num_key_value_heads ? c.num_key_value_heads : c.num_attention_heads},
              {"head_dim", head_width(c)},
              {"hidden_act", "silu"},
              {"max_position_embeddings", c.max_position_embeddings},
              {"rms_norm_eps", c.rms_norm_eps},
              {"rope_theta", c.rope_theta},
              {"rope_scaling", rope_scaling(c.rope_scaling)},
              {"attention_dropout", c.attention_dropout},
              {"initializer_range", c.initializer_range},
              {"tie_word_embeddings", c.tie_word_embeddings}});
  if (!qwen && !mistral) out.update({{"attention_bias", c.attention_bias}, {"mlp_bias", c.mlp_bias}});
  if (slides) out["sliding_window"] = c.sliding_window;
  if (slides && qwen) out.update({{"use_sliding_window", true}, {"max_window_layers", c.max_window_layers}});
  out["eos_token_id"] = end_token_field(end_tokens);
  return text_of(out);
}

namespace {

json bert_config(const BertConfig& c, const char* architecture) {
  json out = head("bert", architecture);
  out.update({{"vocab_size", c.vocab_size},
              {"hidden_size", c.hidden_size},
              {"num_hidden_layers", c.num_hidden_layers},
              {"num_attention_heads", c.num_attention_heads},
              {"intermediate_size", c.intermediate_size},
              {"max_position_embeddings", c.max_position_embeddings},
              {"type_vocab_size", c.type_vocab_size},
              {"hidden_act", name_of(c.hidden_act)},
              {"hidden_dropout_prob", c.hidden_dropout_prob},
              {"attention_probs_dropout_prob", c.attention_probs_dropout_prob},
              {"layer_norm_eps", c.layer_norm_eps},
              {"initializer_range", c.initializer_range}});
  return out;
}

const char* name_of(ProblemType type) {
  switch (type) {
    case ProblemType::single_label: return "single_label_classification";
    case ProblemType::multi_label: return "multi_label_classification";
    case ProblemType::regression: break;
  }
  return "regression";
}

}  // namespace

std::string config_text(const BertConfig& c) { return text_of(bert_config(c, "BertModel")); }

namespace {
void check_utf8(const std::string& label, std::int64_t number) {
  try {
    json(label).dump();
  } catch (const json::exception&) {
    fail(kSave, "label ", number, ": found ", quoted(label), ", expected UTF-8");
  }
}
}  // namespace

/// transformers counts the labels of id2label, so they are named even where they have no names.
std::string config_text(const BertConfig& c, const BertClassifierOptions& o) {
  json out = bert_config(c, "BertForSequenceClassification"), ids = json::object(), names = json::object();
  for (std::int64_t i = 0; i < o.num_labels; ++i) {
    const std::string number = std::to_string(i);
    const std::string label = o.labels.empty() ? "LABEL_" + number : o.labels[static_cast<std::size_t>(i)];
    check_utf8(label, i);
    check(!names.contains(label), kSave, "found two labels ", quoted(label), ", expected different ones");
    ids[number] = label;
    names[label] = i;
  }
  out.update({{"id2label", ids}, {"label2id", names}});
  if (o.classifier_dropout) out["classifier_dropout"] = *o.classifier_dropout;
  if (o.problem_type) out["problem_type"] = name_of(*o.problem_type);
  return text_of(out);
}

std::optional<std::string> generation_text(const std::filesystem::path& file,
                                           const std::vector<std::int64_t>& end_tokens) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return {};
  std::ifstream in(file, std::ios::binary);
  json settings = json::parse(in, nullptr, false);
  check(in.good() || in.eof(), kSave, file.string(), ": could not be read");
  check(settings.is_object(), kSave, file.string(),
        ": found no JSON object, expected settings to write end tokens into");
  settings["eos_token_id"] = end_token_field(end_tokens);
  return text_of(settings);
}

}  // namespace pretrained

namespace {

/// The model's own parameters alone: buffers are the state of dropout's draws, which no other reader knows.
void save_folder(const Module& model, const std::string& config, const std::filesystem::path& folder,
                 const std::vector<std::int64_t>* end_tokens = nullptr, bool turn = false) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, pretrained::kSave, folder.string(), ": making the folder: ", error.message());
  const std::filesystem::path generation = folder / "generation_config.json";
  const auto settings = end_tokens ? pretrained::generation_text(generation, *end_tokens) : std::nullopt;
  const NoGrad no_grad;
  State state;
  for (const Parameter* p : model.parameters_without_added()) state[model.relative(p->path())] = p->value().detach();
  save_safetensors(folder / "model.safetensors", turn ? Gpt2::transposed(state) : state, {{"format", "pt"}});
  replace_file(folder / "config.json", config, pretrained::kSave);
  if (settings) replace_file(generation, *settings, pretrained::kSave);
}

}  // namespace

void save_pretrained(const Pretrained& model, const std::filesystem::path& folder) {
  if (const auto* gpt2 = std::get_if<std::unique_ptr<Gpt2>>(&model.model))
    return save_pretrained(**gpt2, folder, model.end_tokens);
  if (const auto* llama = std::get_if<std::unique_ptr<Llama>>(&model.model))
    return save_pretrained(**llama, folder, model.end_tokens);
  if (const auto* bert = std::get_if<std::unique_ptr<Bert>>(&model.model)) return save_pretrained(**bert, folder);
  save_pretrained(*std::get<std::unique_ptr<BertClassifier>>(model.model), folder);
}
void save_pretrained(const Gpt2& model, const std::filesystem::path& folder,
                     const std::vector<std::int64_t>& end_tokens) {
  save_folder(model, pretrained::config_text(model.config(), end_tokens), folder, &end_tokens, true);
}
void save_pretrained(const Llama& model, const std::filesystem::path& folder,
                     const std::vector<std::int64_t>& end_tokens) {
  save_folder(model, pretrained::config_text(model.config(), end_tokens), folder, &end_tokens);
}
void save_pretrained(const Bert& model, const std::filesystem::path& folder) {
  save_folder(model, pretrained::config_text(model.config()), folder);
}
void save_pretrained(const BertClassifier& model, const std::filesystem::path& folder) {
  save_folder(model, pretrained::config_text(model.bert.config(), model.options()), folder);
}

}  // namespace stet::nn
