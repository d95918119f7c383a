// Which layers get a piece, and which pieces are plugged in.
#include <stet/continual/adapters/adapters.h>

#include <algorithm>
#include <cmath>
#include <set>

#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

/// Layers of one kind below a module, outside of adapters, by path relative to it.
template <class Layer> void collect(nn::Module& at, std::size_t skip, std::map<std::string, Layer*>& found) {
  if (dynamic_cast<Piece*>(&at)) return;
  const std::string path = at.path();
  if (auto* layer = dynamic_cast<Layer*>(&at)) found[path.substr(std::min(skip, path.size()))] = layer;
  for (nn::Module* child : at.children()) collect(*child, skip, found);
}

template <class Layer> std::map<std::string, Layer*> layers_of(nn::Module& model) {
  std::map<std::string, Layer*> found;
  const std::string prefix = model.path();
  collect(model, prefix.empty() ? 0 : prefix.size() + 1, found);
  return found;
}

/// What can be trained whole.
std::map<std::string, nn::Module*> modules_with_parameters(nn::Module& model) {
  auto found = layers_of<nn::Module>(model);
  std::erase_if(found, [](const auto& m) {
    return own_parameters(*m.second).empty() && !dynamic_cast<nn::TiedLinear*>(m.second);
  });
  return found;
}

/// Those that a glob matches; each glob has to match one.
template <class Layer> std::set<std::string> matching(const std::map<std::string, Layer*>& layers,
                                                      const std::vector<std::string>& globs, std::string_view kind) {
  std::set<std::string> matched;
  for (const std::string& glob : globs) {
    bool any = false;
    for (const auto& [path, layer] : layers)
      if (nn::glob_match(glob, path)) {
        matched.insert(path);
        any = true;
      }
    if (any) continue;
    std::string known;
    for (const auto& [path, layer] : layers) known += (known.empty() ? "" : ", ") + path;
    fail("attach", "no ", kind, " matches '", glob, "'; known: ", known);
  }
  return matched;
}

/// Makes the pieces that each kind of options asks for, one for a layer: trained whole goes before adapted.
struct Maker {
  nn::Module& model;
  const std::string& name;
  std::vector<std::unique_ptr<Piece>> pieces = {};

  std::set<std::string> train_whole(const std::vector<std::string>& globs, bool tie) {
    const auto modules = modules_with_parameters(model);
    auto paths = matching(modules, globs, "module with parameters");
    std::map<std::string, std::string> heads;  // by table
    for (const TiedPaths& tied : tied_embeddings(model)) {
      heads[tied.table] = tied.head;
      if (tie && paths.erase(tied.head)) paths.insert(tied.table);
    }
    for (const std::string& path : paths) {
      nn::Module& module = *modules.at(path);
      if (auto* output = dynamic_cast<nn::TiedLinear*>(&module)) {
        pieces.push_back(std::make_unique<WholeHead>(*output, name, path));
      } else if (const auto found = heads.find(path); found != heads.end()) {
        auto& head = dynamic_cast<nn::TiedLinear&>(*modules.at(found->second));
        const auto tied_place = tie ? std::optional(found->second) : std::nullopt;
        pieces.push_back(std::make_unique<WholeTable>(head.table(), name, path, head, tied_place));
      } else {
        pieces.push_back(std::make_unique<WholeModule>(module, name, path));
      }
    }
    return paths;
  }
  /// Copies of all biases but those of modules that have a piece already.
  void train_biases(const std::set<std::string>& taken) {
    for (const auto& [path, module] : modules_with_parameters(model))
      for (nn::Parameter* p : own_parameters(*module))
        if (p->name() == "bias" && !taken.contains(path))
          pieces.push_back(std::make_unique<BiasPiece>(*p, *module, name, path));
  }
  void adapt_embeddings(const LoraOptions& options, std::set<std::string>& taken) {
    const auto tables = layers_of<nn::Embedding>(model);
    const auto heads = layers_of<nn::TiedLinear>(model);
    for (const std::string& path : matching(tables, options.embeddings, "embedding")) {
      if (!taken.insert(path).second) continue;
      nn::Embedding& table = *tables.at(path);
      const auto tied =
          std::find_if(heads.begin(), heads.end(), [&](const auto& h) { return &h.second->table() == &table; });
      pieces.push_back(
          std::make_unique<LoraEmbedding>(table, name, path, options, tied == heads.end() ? nullptr : tied->second));
    }
  }
  void operator()(const LoraOptions& options) {
    const auto layers = layers_of<nn::Linear>(model);
    auto taken = train_whole(options.modules_to_save, options.ensure_weight_tying);
    for (const std::string& path : matching(layers, options.targets, "linear layer"))
      if (taken.insert(path).second) pieces.push_back(std::make_unique<Lora>(*layers.at(path), name, path, options));
    adapt_embeddings(options, taken);
    if (options.bias == LoraBias::all) train_biases(taken);
  }
  void operator()(const Ia3Options& options) {
    const auto layers = layers_of<nn::Linear>(model);
    auto taken = train_whole(options.modules_to_save, false);
    for (const bool feedforward : {true, false})
      for (const std::string& path :
           matching(layers, feedforward ? options.feedforward : options.targets, "linear layer"))
        if (taken.insert(path).second)
          pieces.push_back(std::make_unique<Ia3>(*layers.at(path), name, path, feedforward));
  }
  void operator()(const BottleneckOptions& options) {
    const auto blocks = layers_of<nn::TransformerBlock>(model);
    for (const std::string& path : matching(blocks, options.targets, "Transformer block"))
      for (const bool behind_attention : {true, false}) {
        if (behind_attention && options.placement != Bottleneck::houlsby) continue;
        const std::string part = behind_attention ? "attention_adapter" : "mlp_adapter";
        pieces.push_back(std::make_unique<BottleneckPiece>(*blocks.at(path), name + "_" + part,
                                                           nn::join_path(path, part), behind_attention, options));
      }
  }
};

/// Adapters can be averaged where equal parameters mean the same in both.
void check_alike(const std::string& first, const std::vector<std::unique_ptr<Piece>>& ones, const std::string& second,
                 const std::vector<std::unique_ptr<Piece>>& others) {
  const auto same_kind = [](const auto& one, const auto& other) {
    return one->place() == other->place() && one->settings().size() == other->settings().size() &&
           one->parameters().size() == other->parameters().size();
  };
  check(std::equal(ones.begin(), ones.end(), others.begin(), others.end(), same_kind), "average", "adapters '", first,
        "' and '", second, "' are of different kinds or have different places");
  for (std::size_t i = 0; i < ones.size(); ++i) {
    const Piece::Settings one = ones[i]->settings(), other = others[i]->settings();
    for (std::size_t k = 0; k < one.size(); ++k)
      check(one[k] == other[k], "average", "adapters '", first, "' and '", second, "' differ in ", one[k].first,
            " at '", ones[i]->place(), "': ", one[k].second, " and ", other[k].second, ", expected the same");
  }
}

}  // namespace

std::vector<TiedPaths> tied_embeddings(nn::Module& model) {
  std::vector<TiedPaths> all;
  const auto tables = layers_of<nn::Embedding>(model);
  for (const auto& [path, head] : layers_of<nn::TiedLinear>(model))
    for (const auto& [table, embedding] : tables)
      if (embedding == &head->table()) all.push_back({table, path});
  return all;
}

Adapters::~Adapters() {
  if (!active_.empty()) plug(active_, false);
}

const Adapters::Entry& Adapters::entry(const std::string& name, std::string_view op) const {
  const auto found = entries_.find(name);
  if (found != entries_.end()) return found->second;
  std::string known;
  for (const auto& [other, unused] : entries_) known += (known.empty() ? "" : ", ") + other;
  fail(op, "no adapter '", name, "'; known: ", known);
}

void Adapters::check_free(const std::string& name, std::string_view op) const {
  check(!name.empty(), op, "an adapter needs a name");
  check(!entries_.contains(name), op, "there is an adapter '", name, "' already");
}

void Adapters::check_unmerged(std::string_view op) const {
  check(!merged_, op, "adapter '", active_, "' is merged: unmerge it first");
}

Adapters::Pieces Adapters::make(const std::string& name, const AdapterOptions& options) const {
  Maker maker{model_, name};
  std::visit(maker, options);
  check(!maker.pieces.empty(), "attach", "adapter '", name, "' has no targets");
  for (const auto& piece : maker.pieces) piece->train(model_.is_training());
  return std::move(maker.pieces);
}

void Adapters::plug(const std::string& name, bool on) {
  for (const auto& piece : entries_.at(name).pieces) piece->plug(on);
}

int Adapters::attach(const std::string& name, const AdapterOptions& options) {
  check_unmerged("attach");
  check_free(name, "attach");
  adopt(name, {options, make(name, options)});
  return static_cast<int>(entries_.at(name).pieces.size());
}

void Adapters::adopt(const std::string& name, Entry made) {
  entries_[name] = std::move(made);
  try {
    activate(name);
  } catch (...) {
    entries_.erase(name);
    throw;
  }
}

void Adapters::detach(const std::string& name) {
  check_unmerged("detach");
  entry(name, "detach");
  if (active_ == name) deactivate();
  entries_.erase(name);
}

void Adapters::activate(const std::string& name) {
  check_unmerged("activate");
  entry(name, "activate");
  deactivate();
  try {
    plug(name, true);
  } catch (...) {
    plug(name, false);
    throw;
  }
  active_ = name;
}

void Adapters::deactivate() {
  check_unmerged("deactivate");
  if (!active_.empty()) plug(active_, false);
  active_.clear();
}

std::vector<std::string> Adapters::names() const {
  std::vector<std::string> all;
  for (const auto& [name, unused] : entries_) all.push_back(name);
  return all;
}

std::vector<nn::Parameter*> Adapters::parameters(const std::string& name) const {
  std::vector<nn::Parameter*> all;
  for (const auto& piece : entry(name, "parameters").pieces)
    for (nn::Parameter* p : piece->parameters()) all.push_back(p);
  return all;
}

int Adapters::freeze_base() {
  const auto base = model_.parameters_without_added();
  for (nn::Parameter* p : base) p->set_trainable(false);
  return static_cast<int>(base.size());
}

void Adapters::average(const std::string& name, const std::map<std::string, double>& weights) {
  check_free(name, "average");
  check(!weights.empty(), "average", "adapter '", name, "' of no adapters");
  for (const auto& [other, weight] : weights)
    check(std::isfinite(weight), "average", "weight ", weight, " of adapter '", other, "': expected a finite number");
  const std::string& first = weights.begin()->first;
  Entry made{entry(first, "average").options, make(name, entry(first, "average").options)};
  for (const auto& [other, weight] : weights) check_alike(first, made.pieces, other, entry(other, "average").pieces);
  const NoGrad no_grad;
  for (std::size_t i = 0; i < made.pieces.size(); ++i) {
    const auto targets = made.pieces[i]->parameters();
    std::vector<Tensor> total(targets.size());
    for (const auto& [other, weight] : weights) {
      const auto sources = entries_.at(other).pieces[i]->parameters();
      for (std::size_t k = 0; k < targets.size(); ++k) {
        check(sources[k]->shape() == targets[k]->shape(), "average", "'", sources[k]->path(), "' has shape ",
              sources[k]->shape(), ", that of '", first, "' has ", targets[k]->shape());
        const Tensor term = sources[k]->value().detach() * weight;
        total[k] = total[k].defined() ? total[k] + term : term;
      }
    }
    for (std::size_t k = 0; k < targets.size(); ++k) targets[k]->set(total[k]);
  }
  entries_[name] = std::move(made);
}

const Adapters::Pieces& Adapters::active_pieces() const {
  check(!active_.empty(), "merge", "no adapter is active");
  return entries_.at(active_).pieces;
}

void Adapters::merge() {
  if (merged_) return;
  for (const auto& piece : active_pieces()) piece->merge(true);
  merged_ = true;
}

double Adapters::merge(const Forward& forward, const Tensor& probe) {
  unmerge();
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model_);
  const Tensor before = forward(probe);
  merge();
  return before.numel() == 0 ? 0 : max(abs(forward(probe) - before)).item();
}

void Adapters::unmerge() {
  if (!merged_) return;
  for (const auto& piece : active_pieces()) piece->merge(false);
  merged_ = false;
}

nn::State Adapters::base_state() const {
  nn::State state = model_.state();
  for (const nn::Module* module : model_.added()) {
    for (const nn::Parameter* p : module->parameters()) state.erase(model_.relative(p->path()));
    for (const nn::Buffer* b : module->buffers()) state.erase(model_.relative(b->path()));
  }
  return state;
}

nn::State Adapters::merged_state() const {
  nn::State state = base_state();
  for (const auto& piece : active_pieces()) piece->fold(state);
  return state;
}

}  // namespace stet::continual
