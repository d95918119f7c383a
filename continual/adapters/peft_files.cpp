// Adapter files under PEFT's names: adapter_model.safetensors and adapter_config.json.
#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include <stet/continual/adapters/adapters.h>
#include <stet/nn/safetensors.h>
#include <stet/tensor/error.h>
#include <stet/tensor/json_file.h>

namespace stet::continual {
namespace {

using nlohmann::json;
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::int64_t kMostRank = std::int64_t{1} << 24;
constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";
constexpr std::string_view kEmbeddingA = "lora_embedding_A";
constexpr const char* kPlacements[] = {"houlsby", "pfeiffer", "parallel"};
constexpr const char* kActivations[] = {"none", "relu", "gelu", "tanh", "sigmoid"};

constexpr const char* kBiases[] = {"none", "all", "lora_only"};

/// A name of a layer in a file, by the layer's place.
std::string key_of(const std::string& place, const std::string& name) {
  return std::string(kPrefix) + nn::join_path(place, name);
}

/// PEFT holds A and B as layers, so that their keys end in ".weight"; vectors are plain parameters there. The bias of a
/// layer that has LoRA is the wrapped layer's. A table that both ends read is saved at both.
std::vector<std::string> keys_of(const Piece& piece, const nn::Parameter& p) {
  std::string name = p.path().substr(piece.path().size() + 1);
  if (name == "lora_A" || name == "lora_B") name += ".weight";
  if (name == "bias" && dynamic_cast<const Lora*>(&piece)) name = "base_layer.bias";
  std::vector<std::string> keys{key_of(piece.place(), name)};
  if (const auto* table = dynamic_cast<const WholeTable*>(&piece); table && table->tied_place())
    keys.push_back(key_of(*table->tied_place(), name));
  return keys;
}

/// A parameter's value as its file has it, and the other way round: in PEFT GPT-2's linear layers are (in, out), and A
/// of an embedding is (rank, count).
Tensor turned(const AdapterOptions& options, const Piece& piece, const nn::Parameter& p, const Tensor& value) {
  const bool fan_in_fan_out = std::visit(
      [](const auto& o) {
        if constexpr (requires { o.fan_in_fan_out; }) return o.fan_in_fan_out;
        else return false;
      },
      options);
  const bool turn =
      p.name() == kEmbeddingA || (fan_in_fan_out && p.name() == "weight" && dynamic_cast<const WholeModule*>(&piece) &&
                                  dynamic_cast<const nn::Linear*>(piece.parent()) && value.rank() == 2);
  return turn ? contiguous(transpose(value)) : value;
}

/// What a key says after the prefix, with the prefix's dot: then a model that is a layer itself has the place "".
std::string_view dotted(const std::string& key) {
  return key.starts_with(kPrefix) ? std::string_view(key).substr(kPrefix.size() - 1) : std::string_view();
}
std::string without_dot(std::string_view place) { return std::string(place.substr(place.empty() ? 0 : 1)); }

/// The places that a file's keys speak of: what stands between the prefix and one of `endings`.
std::set<std::string> places_in(const nn::State& state, const std::vector<std::string_view>& endings) {
  std::set<std::string> places;
  for (const auto& [key, value] : state)
    for (const std::string_view end : endings)
      if (const std::string_view path = dotted(key); path.ends_with(end))
        places.insert(without_dot(path.substr(0, path.size() - end.size())));
  return places;
}

/// adapter_config.json. A field that is missing or null has PEFT's default.
class Config {
 public:
  explicit Config(const std::filesystem::path& file) : file_(file, "load") {}

  JsonFile::Value root() const { return file_.root(); }
  std::optional<JsonFile::Value> find(std::string_view key) const { return root().given(key); }
  std::int64_t integer(std::string_view key, std::int64_t otherwise) const {
    const auto value = find(key);
    return value ? value->integer(1, kMostRank) : otherwise;
  }
  double number(std::string_view key, double otherwise) const {
    const auto value = find(key);
    return value ? value->number() : otherwise;
  }
  bool flag(std::string_view key) const {
    const auto value = find(key);
    return value && value->flag();
  }
  /// Place of a text in `names`.
  int index(std::string_view key, std::span<const char* const> names) const { return index(root().at(key), names); }
  static int index(const JsonFile::Value& value, std::span<const char* const> names) {
    for (std::size_t i = 0; i < names.size(); ++i)
      if (value.text() == names[i]) return static_cast<int>(i);
    value.refuse("found ", quoted(value.text()), ", which is none of those that are known");
  }
  std::vector<std::string> texts(std::string_view key) const {
    std::vector<std::string> out;
    if (const auto listed = find(key))
      listed->for_each_item([&](const JsonFile::Value& text) { out.emplace_back(text.text()); });
    return out;
  }
  /// A field that changes what is computed and that stet has not: only its neutral values are read.
  void refuse(std::string_view key) const {
    const auto value = find(key);
    if (!value) return;
    const JsonType type = value->type();
    const bool neutral = (type == JsonType::flag && !value->flag()) ||
                         (type == JsonType::text && value->text() == "none") ||
                         ((type == JsonType::array || type == JsonType::object) && value->count() == 0);
    if (!neutral)
      value->refuse("found ", type == JsonType::text ? quoted(value->text()) : "a value",
                    ", which is not supported, expected none");
  }

 private:
  JsonFile file_;
};

/// Whether a path is one of `names`, or ends in one: PEFT's rule for lists of modules.
bool is_named(const std::string& place, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return place == name || place.ends_with("." + name); });
}

/// Of a bias that is trained with its module, PEFT's "all" saves the original and the copy once more.
bool is_repeated(const std::string& key) {
  return key.ends_with(".original_module.bias") || key.ends_with(".modules_to_save.bias");
}

/// The modules that were trained whole, by the file's keys. Names in modules_to_save are ends of paths, within a path's
/// part as well ("norm" is input_layernorm, too), and stand for all that a module contains.
std::vector<std::string> whole_modules(const Config& config, const nn::State& state) {
  const auto names = config.texts("modules_to_save");
  const auto is_whole = [&](std::string_view path) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.empty() ? path.empty() : path.ends_with(name); });
  };
  std::set<std::string> out;
  for (const auto& [key, value] : state) {
    std::string_view path = dotted(key);
    if (path.empty() || path.ends_with(".ia3_l") || is_repeated(key)) continue;
    const std::string_view place = path = path.substr(0, path.rfind('.'));
    if (place.ends_with(".lora_A") || place.ends_with(".lora_B") || place.ends_with(".base_layer")) continue;
    bool whole = is_whole(path);
    for (auto dot = path.rfind('.'); !whole && dot != 0 && dot != path.npos; dot = path.rfind('.')) {
      path = path.substr(0, dot);
      whole = is_whole(path);
    }
    if (whole) out.insert(without_dot(place));
  }
  return {out.begin(), out.end()};
}

/// Whether PEFT tied the embeddings that were trained whole: it then saves them at both ends. With the flag alone it
/// has not, where it does not know the embedding's name (GPT-2's wte).
bool are_tied(const nn::State& state, const std::vector<TiedPaths>& tied) {
  return std::any_of(tied.begin(), tied.end(), [&](const TiedPaths& t) {
    return state.contains(key_of(t.table, "weight")) && state.contains(key_of(t.head, "weight"));
  });
}

/// A key of PEFT's patterns: a regular expression for the end of a path. A long or unusual one is refused, since a
/// matcher can need much memory and time for it.
std::regex path_end(std::string_view pattern, const JsonFile::Value& at) {
  constexpr std::size_t kLongest = 256;
  try {
    if (pattern.size() <= kLongest)
      return std::regex("(.*\\.)?(" + std::string(pattern) + ")",
                        std::regex::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error&) {
  }
  at.refuse("the pattern ", quoted(pattern), " is not one that can be matched here");
}

LoraOptions lora_options(const Config& config, const nn::State& state, const std::vector<TiedPaths>& tied) {
  for (const char* key :
       {"lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens",
        "use_qalora", "use_bdlora", "kasa_config", "arrow_config", "velora_config", "monteclora_config"})
    config.refuse(key);
  // PiSSA, OLoRA, CorDA and LoftQ change the base as well.
  if (const auto start = config.find("init_lora_weights"); start && start->type() != JsonType::flag)
    if (start->text() != "gaussian" && start->text() != "orthogonal")
      start->refuse("found ", quoted(start->text()), ", which is not supported, expected true, gaussian or orthogonal");
  LoraOptions options{.rank = config.integer("r", 8),
                      .alpha = config.number("lora_alpha", 8),
                      .dropout = config.number("lora_dropout", 0),
                      .rslora = config.flag("use_rslora"),
                      .dora = config.flag("use_dora"),
                      .fan_in_fan_out = config.flag("fan_in_fan_out")};
  auto places = places_in(state, {".lora_A.weight", ".lora_B.weight"});
  options.targets.assign(places.begin(), places.end());
  const auto tables = places_in(state, {".lora_embedding_A", ".lora_embedding_B"});
  options.embeddings.assign(tables.begin(), tables.end());
  places.insert(tables.begin(), tables.end());
  const auto read_patterns = [&](std::string_view key, auto& out, auto value_of) {
    const auto patterns = config.find(key);
    if (!patterns) return;
    patterns->for_each_member([&](std::string_view pattern, const JsonFile::Value& value) {
      const std::regex end = path_end(pattern, value);
      for (const std::string& place : places)
        if (std::regex_match(place, end)) out.emplace_back(place, value_of(value));
    });
  };
  // Of several patterns that match, the first counts, and PEFT sorts them when it writes: which rank it was, A tells.
  read_patterns("rank_pattern", options.rank_pattern, [](const JsonFile::Value& v) { return v.integer(1, kMostRank); });
  std::erase_if(options.rank_pattern, [&](const auto& pattern) {
    auto a = state.find(key_of(pattern.first, "lora_A.weight"));
    if (a == state.end()) a = state.find(key_of(pattern.first, std::string(kEmbeddingA)));
    return a == state.end() || a->second.rank() != 2 || a->second.shape()[0] != pattern.second;
  });
  read_patterns("alpha_pattern", options.alpha_pattern, [](const JsonFile::Value& v) { return v.number(); });
  options.modules_to_save = whole_modules(config, state);
  if (const auto bias = config.find("bias")) options.bias = static_cast<LoraBias>(Config::index(*bias, kBiases));
  options.ensure_weight_tying = config.flag("ensure_weight_tying") && are_tied(state, tied);
  return options;
}

Ia3Options ia3_options(const Config& config, const nn::State& state) {
  Ia3Options options{.fan_in_fan_out = config.flag("fan_in_fan_out")};
  const auto names = config.texts("feedforward_modules");
  for (const std::string& place : places_in(state, {".ia3_l"}))
    (is_named(place, names) ? options.feedforward : options.targets).push_back(place);
  options.modules_to_save = whole_modules(config, state);
  return options;
}

BottleneckOptions bottleneck_options(const Config& config, const nn::State& state) {
  BottleneckOptions options{.placement = static_cast<Bottleneck>(config.index("placement", kPlacements)),
                            .width = config.integer("width", 16),
                            .activation = static_cast<Activation>(config.index("activation", kActivations)),
                            .scale = config.number("scale", 1)};
  const auto places = places_in(state, {".mlp_adapter.down.weight"});
  options.targets.assign(places.begin(), places.end());
  return options;
}

AdapterOptions read_options(const Config& config, const nn::State& state, const std::vector<TiedPaths>& tied) {
  const auto type = config.root().at("peft_type");
  if (type.text() == "LORA") return lora_options(config, state, tied);
  if (type.text() == "IA3") return ia3_options(config, state);
  if (type.text() == "BOTTLENECK") return bottleneck_options(config, state);
  type.refuse("found ", quoted(type.text()), ", expected LORA, IA3 or BOTTLENECK");
}

/// PEFT reads whole numbers, and any number besides.
json whole_if_possible(double value) {
  return value == std::trunc(value) && std::abs(value) < 1e15 ? json(static_cast<std::int64_t>(value)) : json(value);
}

struct Fields {
  json& config;
  void operator()(const LoraOptions& o) const {
    config["peft_type"] = "LORA";
    config["r"] = o.rank;
    config["lora_alpha"] = whole_if_possible(o.alpha);
    config["lora_dropout"] = o.dropout;
    config["use_rslora"] = o.rslora;
    config["use_dora"] = o.dora;
    config["fan_in_fan_out"] = o.fan_in_fan_out;
    config["rank_pattern"] = config["alpha_pattern"] = json::object();
    config["bias"] = kBiases[static_cast<int>(o.bias)];
    config["ensure_weight_tying"] = o.ensure_weight_tying;
    config["init_lora_weights"] = true;
  }
  void operator()(const Ia3Options& o) const {
    config["peft_type"] = "IA3";
    config["fan_in_fan_out"] = o.fan_in_fan_out;
    config["init_ia3_weights"] = true;
    config["feedforward_modules"] = json::array();
  }
  void operator()(const BottleneckOptions& o) const {
    config["peft_type"] = "BOTTLENECK";
    config["placement"] = kPlacements[static_cast<int>(o.placement)];
    config["activation"] = kActivations[static_cast<int>(o.activation)];
    config["width"] = o.width;
    config["scale"] = o.scale;
  }
};

/// Names a piece's place in the lists of the configuration.
void list_place(json& config, const Piece& piece) {
  if (dynamic_cast<const BiasPiece*>(&piece)) return;  // "all" names none
  if (dynamic_cast<const WholeModule*>(&piece) || dynamic_cast<const WholeHead*>(&piece)) {
    config["modules_to_save"].push_back(piece.place());
    // PEFT ties by this name where it does not know the embedding's.
    if (const auto* table = dynamic_cast<const WholeTable*>(&piece); table && table->tied_place())
      config["modules_to_save"].push_back(*table->tied_place());
    return;
  }
  config["target_modules"].push_back(piece.place());
  if (const auto* ia3 = dynamic_cast<const Ia3*>(&piece); ia3 && ia3->feedforward())
    config["feedforward_modules"].push_back(piece.place());
  const std::string path = "^" + piece.place();  // PEFT matches ends of paths otherwise
  for (const auto& [name, value] : piece.settings()) {
    if (name == "rank" && value != config["r"]) config["rank_pattern"][path] = whole_if_possible(value);
    if (name == "alpha" && value != config["lora_alpha"]) config["alpha_pattern"][path] = whole_if_possible(value);
  }
}

/// Whether a file's tensor fits a parameter; what does not is written to `problems`.
bool fits(const nn::State& state, const std::string& key, const Shape& wanted, std::ostream& problems) {
  const auto found = state.find(key);
  if (found == state.end()) problems << "\n  missing: " << key << ' ' << wanted;
  else if (!(found->second.shape() == wanted))
    problems << "\n  mismatched: " << key << " is " << found->second.shape() << ", the adapter has " << wanted;
  else return true;
  return false;
}

/// PEFT saves the table below an embedding's LoRA as well, which is the base's: it must be this model's.
void check_tables(const std::vector<std::unique_ptr<Piece>>& pieces, const nn::State& state,
                  std::set<std::string>& wanted, std::ostream& problems) {
  for (const auto& piece : pieces) {
    const auto* lora = dynamic_cast<const LoraEmbedding*>(piece.get());
    const std::string key = key_of(piece->place(), "base_layer.weight");
    if (!lora || !state.contains(key)) continue;
    wanted.insert(key);
    const Tensor table = lora->base().weight.value().detach();
    if (fits(state, key, table.shape(), problems) && table.numel() > 0 &&
        max(abs(to(cast(state.at(key), table.dtype()), table.device()) - table)).item() != 0)
      problems << "\n  different: " << key << " is not this model's: the adapter was trained on another base";
  }
}

/// Copies a file's tensors into the pieces; an Error lists all that do not fit before anything is written.
void fill(const AdapterOptions& options, const std::vector<std::unique_ptr<Piece>>& pieces, const nn::State& state,
          const std::filesystem::path& file) {
  std::ostringstream problems;
  std::set<std::string> wanted;
  std::vector<std::pair<nn::Parameter*, Tensor>> values;
  for (const auto& piece : pieces)
    for (nn::Parameter* p : piece->parameters()) {
      const Shape shape = turned(options, *piece, *p, p->value().detach()).shape();
      const auto keys = keys_of(*piece, *p);
      wanted.insert(keys.begin(), keys.end());
      bool fit = true;
      for (const std::string& key : keys) fit = fits(state, key, shape, problems) && fit;
      if (!fit) continue;
      const Tensor& value = state.at(keys.front());
      if (keys.size() > 1 && !(value.numel() == 0 || max(abs(value - state.at(keys.back()))).item() == 0))
        problems << "\n  untied: " << keys.front() << " and " << keys.back() << " differ, and one weight is both";
      values.emplace_back(p, turned(options, *piece, *p, value));
    }
  const auto* lora = std::get_if<LoraOptions>(&options);
  check_tables(pieces, state, wanted, problems);
  for (const auto& [key, value] : state)
    if (!wanted.contains(key) && !(lora && lora->bias == LoraBias::all && is_repeated(key)))
      problems << "\n  unexpected: " << key << ' ' << value.shape();
  check(problems.str().empty(), "load", file.string(), " does not fit its adapter:", problems.str());
  for (const auto& [p, value] : values) p->set(to(value, p->value().device()));
}

}  // namespace

void Adapters::save(const std::string& name, const std::filesystem::path& folder, const AdapterOrigin& origin) const {
  const Entry& saved = entry(name, "save");
  nn::State state;
  const auto given = [](const std::string& text) { return text.empty() ? json(nullptr) : json(text); };
  json config{{"task_type", given(origin.task_type)},
              {"base_model_name_or_path", given(origin.base_model)},
              {"inference_mode", true},
              {"target_modules", json::array()},
              {"modules_to_save", nullptr}};
  std::visit(Fields{config}, saved.options);
  for (const auto& piece : saved.pieces) {
    list_place(config, *piece);
    for (const nn::Parameter* p : piece->parameters())
      for (const std::string& key : keys_of(*piece, *p))
        state[key] = turned(saved.options, *piece, *p, p->value().detach());
  }
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  check(!problem, "save", folder.string(), ": making the folder: ", problem.message());
  nn::save_safetensors(folder / kWeights, state, {{"format", "pt"}});
  nn::replace_file(folder / kConfig, config.dump(2) + '\n', "save");
}

void Adapters::load(const std::string& name, const std::filesystem::path& folder) {
  check_unmerged("load");
  check_free(name, "load");
  const Config config(folder / kConfig);
  const nn::State state = nn::load_safetensors(folder / kWeights);
  Entry made{read_options(config, state, tied_embeddings(model_)), {}};
  try {
    made.pieces = make(name, made.options);
  } catch (const Error& error) {
    fail("load", (folder / kWeights).string(), ": ", error.what());
  }
  fill(made.options, made.pieces, state, folder / kWeights);
  adopt(name, std::move(made));
}

}  // namespace stet::continual
