// Module and Parameter: a tree of named parts. A parameter's address and dotted name are its identity:
// neither can be copied or moved. `trainable` belongs to the parameter and is untouched by train() and
// eval().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <stet/autograd/ops.h>
#include <stet/tensor/tensor.h>

namespace stet::nn {

class Module;

/// A tensor that a model learns. Registers itself with its owner under a name without dots.
class Parameter {
 public:
  Parameter(Module* owner, std::string name, Tensor initial);
  ~Parameter();
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  /// The tensor itself; part of the graph while the parameter is trainable.
  const Tensor& value() const { return value_; }
  /// What a forward pass reads: value(), or that of the parameter that stands in.
  operator const Tensor&() const { return stand_in_ ? stand_in_->value_ : value_; }
  /// Another parameter, read in this one's place until it is taken out with nullptr: an adapter's copy. Not owned.
  /// value(), set(), the model's state and optimizers go on with this one. An Error when the shape is another.
  void set_stand_in(const Parameter* other);
  const Parameter* stand_in() const { return stand_in_; }
  /// Dotted path from the root of the model: "encoder.weight".
  std::string path() const;
  const std::string& name() const { return name_; }
  /// Expires with the parameter: for whoever keeps a pointer to it, as optimizers do.
  std::weak_ptr<const void> alive() const { return alive_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t numel() const { return value_.numel(); }

  bool trainable() const { return trainable_; }
  /// A frozen parameter asks for no gradient, so none is computed for it. Freezing drops the gradient that it has; a
  /// loss computed before gives it none, even if it is trainable again by the time of backward: freeze between steps.
  void set_trainable(bool on);
  Tensor grad() const { return trainable_ ? value_.grad() : Tensor(); }
  void zero_grad();
  /// Copies new values in; shape must be equal, the dtype is converted.
  void set(const Tensor& value);

 private:
  friend class Module;
  void move_to(Device device);

  Module* owner_;
  std::string name_;
  Tensor value_;
  bool trainable_ = true;
  const Parameter* stand_in_ = nullptr;
  std::shared_ptr<const void> alive_ = std::make_shared<char>();
};

/// State that is saved with the model but never optimised.
class Buffer {
 public:
  Buffer(Module* owner, std::string name, Tensor initial);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const Tensor& value() const { return value_; }
  operator const Tensor&() const { return value_; }
  std::string path() const;
  void set(const Tensor& value);

 private:
  friend class Module;
  Module* owner_;
  std::string name_;
  Tensor value_;
};

/// Copies of a model's parameters and buffers by dotted name.
using State = std::map<std::string, Tensor>;
using Shapes = std::map<std::string, Shape>;
Shapes shapes_of(const State& state);

/// The names that `found` has not, has too much or has in another shape than a model wants.
struct Misfits {
  std::vector<std::string> names;
  std::string text;  ///< "2 names do not fit the model:" and a line for each
};
Misfits misfits(const Shapes& found, const Shapes& wanted);

class Module {
 public:
  Module() = default;
  /// A child: `nn::Linear fc1{this, "fc1", 784, 256}` as a member, or attached to a model that exists
  /// already.
  Module(Module* parent, std::string name);
  virtual ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Dotted path from the root; empty for the root itself.
  std::string path() const;
  /// The part of a path below this module: what a name in its state() is.
  std::string relative(const std::string& path) const;
  Module* parent() const { return parent_; }
  /// In the order in which they were constructed, depth first.
  std::vector<Parameter*> parameters() const;
  std::vector<Parameter*> trainable_parameters() const;
  std::vector<Buffer*> buffers() const;
  std::vector<Module*> children() const { return children_; }
  /// This one and all below, each before its children.
  std::vector<Module*> modules();
  /// The modules below this one that were put into it (is_added); not what is inside of them.
  std::vector<Module*> added() const;
  /// parameters() without those of added modules.
  std::vector<Parameter*> parameters_without_added() const;
  /// The parameter of that path relative to this module; an Error that lists the known names.
  Parameter& parameter(std::string_view path) const;
  /// Elements of all (trainable) parameters.
  std::int64_t count() const;
  std::int64_t count_trainable() const;

  /// Freezes (unfreezes) the parameters whose path relative to this module matches a glob: `*` any
  /// characters,
  /// `?` one. Returns how many matched; none is an Error, since the name is then probably misspelt. Between steps, not
  /// between a loss and its backward: see Parameter::set_trainable.
  int freeze(std::string_view glob = "*");
  int unfreeze(std::string_view glob = "*");

  /// Training mode (dropout active) for this module and its children. Does not touch `trainable`.
  void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }

  /// Whether this is no part of the architecture but was put into it, as adapters are: save_pretrained leaves it out.
  virtual bool is_added() const { return false; }
  /// What is plugged in and computes in this module's place, by address: whoever computes a forward pass again
  /// (checkpoint.h) sees by it whether the function is the same.
  virtual std::vector<const void*> plugged() const { return {}; }
  /// Expires with the module.
  std::weak_ptr<const void> alive() const { return alive_; }

  void zero_grad();
  /// Moves the parameters and floating buffers to another device; gradients are dropped. Other buffers stay: a
  /// generator's state is the host's. An optimizer made before has its state where it was: make it afterwards, or
  /// load() it again.
  void to(Device device);
  /// Where the parameters are: that of the first, the CPU when there is none.
  Device device() const;
  /// Copies of all parameters and buffers, paths relative to this module.
  State state() const;
  /// The same without a copy: tensors that share the memory of the parameters and buffers.
  State shared_state() const;
  /// Puts a state back. Strict: an Error lists all missing, unexpected and mismatched names together.
  /// Otherwise what fits is loaded and the names left out are returned.
  std::vector<std::string> load(const State& state, bool strict = true);

 private:
  friend class Parameter;
  friend class Buffer;
  void adopt(std::string_view kind, const std::string& name) const;
  template <class Visit> void visit(const Visit& visit_module) const;

  Module* parent_ = nullptr;
  std::string name_;
  bool training_ = true;
  std::shared_ptr<const void> alive_ = std::make_shared<char>();
  std::vector<Module*> children_;
  std::vector<Parameter*> parameters_;
  std::vector<Buffer*> buffers_;
};

/// "path.name"; the name alone where the path is that of the root.
std::string join_path(const std::string& path, const std::string& name);

/// `*` any run of characters, `?` one character, everything else itself.
bool glob_match(std::string_view pattern, std::string_view text);

/// Puts a module (and its children) into evaluation mode for a scope and restores every module's own mode
/// after.
class EvalScope {
 public:
  explicit EvalScope(Module& module);
  ~EvalScope();
  EvalScope(const EvalScope&) = delete;
  EvalScope& operator=(const EvalScope&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> modes_;
};

/// A table for people: name, shape, count, trainable, and the totals as
/// "Frozen params: 8,320   Trainable params: 258".
std::string summary(const Module& module);
/// 8320 -> "8,320".
std::string with_commas(std::int64_t value);

}  // namespace stet::nn
