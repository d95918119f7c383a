// The adapters of a model, by name: attached, switched, averaged, merged, saved apart from the model.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <variant>

#include <stet/continual/adapters/bottleneck.h>
#include <stet/continual/adapters/ia3.h>
#include <stet/continual/adapters/lora.h>
#include <stet/continual/adapters/whole.h>
#include <stet/continual/strategy.h>

namespace stet::continual {

/// An embedding and the output layer that has its table, by paths relative to a model.
struct TiedPaths {
  std::string table, head;
};
/// All such pairs of a model; none where the output has a weight of its own.
std::vector<TiedPaths> tied_embeddings(nn::Module& model);

using AdapterOptions = std::variant<LoraOptions, Ia3Options, BottleneckOptions>;

/// What PEFT's configuration says of the model below an adapter; empty: nothing.
struct AdapterOrigin {
  std::string base_model;  ///< base_model_name_or_path
  std::string task_type;   ///< such as CAUSAL_LM: which class of transformers the base is
};

/// An adapter's parameters are children of the layers that it adapts ("fc1.NAME.lora_A"): optimizers, summary() and
/// the model's state see them. None or one adapter is active; only attach() and freeze_base() decide what is trainable,
/// never activate().
class Adapters {
 public:
  explicit Adapters(nn::Module& model) : model_(model) {}
  /// Detaches all.
  ~Adapters();
  Adapters(const Adapters&) = delete;
  Adapters& operator=(const Adapters&) = delete;

  /// Makes an adapter and activates it; the model computes what it did before, to the bit, until the adapter is trained
  /// or loaded. Its parameters are trainable, the base's are left as they are. Returns the number of places. An Error
  /// when a glob matches no layer.
  int attach(const std::string& name, const AdapterOptions& options);
  /// Ends an adapter and its parameters. An optimizer that has them refuses its next step: remove_parameters() first,
  /// or make the optimizer anew. The same holds for the destructor.
  void detach(const std::string& name);
  /// From now on the model computes with this adapter and with no other of this object. What is trainable stays as it
  /// is. An Error while merged, or where another object's adapter has a layer's slot.
  void activate(const std::string& name);
  /// The model as it was.
  void deactivate();
  /// Name of the active adapter; empty: none.
  const std::string& active() const { return active_; }
  /// Of all adapters attached here, in alphabetical order.
  std::vector<std::string> names() const;
  const AdapterOptions& options(const std::string& name) const { return entry(name, "options").options; }
  /// An adapter's parameters, layer by layer, active or not: what an optimizer of it alone takes. They live until
  /// detach().
  std::vector<nn::Parameter*> parameters(const std::string& name) const;

  /// Freezes every parameter of the model that belongs to no adapter, of this object or another. Returns how many there
  /// are.
  int freeze_base();

  /// A new adapter whose parameters are sum_i weight_i theta_i; not activated. An Error unless the adapters have the
  /// same places and compute the same there (rank, alpha, activation, ...; of LoRA's dropout, that of the first by name
  /// is kept), or when a weight is not finite. Of LoRA, A and B are averaged each for itself, which is not the average
  /// of the products B A.
  void average(const std::string& name, const std::map<std::string, double>& weights);

  /// Folds the active adapter into weights that are kept beside the base's: a forward pass costs what the base's does
  /// and changes by rounding alone. The base's parameters keep their bits, also in state() and in files; merging twice
  /// is merging once. Nothing can be attached, detached or switched, and nothing may be written while merged.
  void merge();
  /// The same; returns the largest |change of an output| that merging makes for this input, in evaluation mode.
  double merge(const Forward& forward, const Tensor& probe);
  /// Goes back to the adapter beside the base, to the bit; nothing where it is not merged.
  void unmerge();
  bool merged() const { return merged_; }
  /// The model without its adapters, and with the active one folded in: names and shapes are the base's. An Error where
  /// the active one unties embeddings that the base has tied, or is a bottleneck.
  nn::State base_state() const;
  nn::State merged_state() const;

  /// adapter_model.safetensors and adapter_config.json as PEFT writes them (of (IA)^3, LoRA and its kin; bottleneck
  /// adapters, which PEFT has not, under keys of the same form). The base is not saved.
  void save(const std::string& name, const std::filesystem::path& folder, const AdapterOrigin& origin = {}) const;
  /// Attaches what such a folder holds, under `name`, and activates it. An Error lists every key that does not fit.
  void load(const std::string& name, const std::filesystem::path& folder);

 private:
  using Pieces = std::vector<std::unique_ptr<Piece>>;
  struct Entry {
    AdapterOptions options;
    Pieces pieces;
  };
  const Entry& entry(const std::string& name, std::string_view op) const;
  void check_free(const std::string& name, std::string_view op) const;
  void check_unmerged(std::string_view op) const;
  Pieces make(const std::string& name, const AdapterOptions& options) const;
  void adopt(const std::string& name, Entry made);
  void plug(const std::string& name, bool on);
  const Pieces& active_pieces() const;

  nn::Module& model_;
  std::map<std::string, Entry> entries_;
  std::string active_;
  bool merged_ = false;
};

}  // namespace stet::continual
