// The base of all optimizers: parameter groups, masks, freezing, clipping, gradient transforms, quadratic
// penalties, schedules, step counts and state. A concrete optimizer supplies init() and update().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <stet/nn/module.h>
#include <stet/optim/mask.h>
#include <stet/tensor/updates.h>

namespace stet::optim {

/// Parameters that share options. The options are complete: nothing is merged with anything.
template <class Options> struct Group {
  std::vector<nn::Parameter*> parameters;
  Options options;
};

/// A parameter's gradient on its way to the update. Transforms may replace it; they must not write into it.
struct NamedGradient {
  std::string name;
  nn::Parameter* parameter;
  Tensor gradient;
};
/// Sees the gradients of all parameters that take part in this step, between backward and update (GEM,
/// PCGrad).
using GradientTransform = std::function<void(std::vector<NamedGradient>&)>;

/// strength / 2 * sum importance (theta - anchor)^2, by parameter name. Its gradient is added inside the
/// update, after transforms and clipping. A parameter without importance counts 1 everywhere (L2-SP); one
/// without an anchor is left alone.
struct QuadraticPenalty {
  double strength = 1;
  nn::State importance = {}, anchor = {};
};

/// A factor on every group's learning rate, as a function of the steps taken before (0, 1, ...).
using Schedule = std::function<double(std::int64_t)>;

class Optimizer;

/// A parameter of an optimizer with what belongs to it.
struct Entry {
  nn::Parameter* parameter;
  std::weak_ptr<const void> alive;  // the parameter
  std::size_t group;
  std::string name;
  std::int64_t step = 0;
  std::vector<Tensor> state;
};

/// An entry's part of a step. It is made for all entries before the first one changes; what is new becomes the entry's
/// when its update has been done.
struct Planned {
  Entry* entry;
  Tensor gradient;
  bool fresh;                 // the entry has no state yet
  std::vector<Tensor> state;  // where fresh

  std::vector<Tensor>& current_state() { return fresh ? state : entry->state; }
  void done();
};

/// A fused update that waits for the others of its step: a device takes them all in one launch.
struct Pending {
  std::size_t rule;
  Device device;
  Update job;
  Planned* planned;
};

/// One parameter's update, handed to a concrete optimizer.
class Slot {
 public:
  const Tensor& parameter() const { return parameter_; }
  /// After transforms, clipping and penalties. A fused update does not need it materialised.
  Tensor gradient() const;
  Tensor& state(std::size_t i) const { return (*state_)[i]; }
  std::int64_t step() const { return step_; }  ///< 1 at the parameter's first update
  bool fresh() const { return fresh_; }        ///< the state is as init() gave it
  double lr_factor() const { return lr_factor_; }

  /// One pass over memory with a rule of tensor/updates.h; honours mask, clipping and penalty.
  template <class Rule> void fused(UpdateOptions options) const {
    fused(UpdateRules::index<Rule>, Rule::states, options);
  }
  /// For an optimizer written in tensor operations: new values of the same shapes; masked elements keep theirs.
  void assign(const Tensor& parameter, const std::vector<Tensor>& state) const;

 private:
  friend class Optimizer;
  void fused(std::size_t rule, int states, UpdateOptions options) const;

  Planned* planned_ = nullptr;
  std::string_view name_;
  Tensor parameter_, raw_gradient_, grad_scale_, importance_, anchor_;
  std::vector<Tensor>* state_ = nullptr;
  std::vector<Pending>* pending_ = nullptr;
  const Mask* mask_ = nullptr;
  std::int64_t step_ = 0;
  bool fresh_ = false;
  double lr_factor_ = 1, clip_value_ = 0, penalty_ = 0;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Updates every parameter that is trainable and has a gradient; the others are left alone, state included. An Error,
  /// before anything changes, when a gradient has not its parameter's shape, dtype and device, when a transform brings
  /// a parameter that is frozen, unknown or there twice, when an option has become one that the constructor would
  /// refuse, or when there is no memory for a state. Where a rule of one's own throws, parameters before it have had
  /// their step.
  void step();
  void zero_grad();

  /// Only the elements that the mask allows may change from now on. An Error when no parameter has that name.
  void set_mask(const std::string& name, Mask mask);
  void clear_mask(const std::string& name) { masks_.erase(name); }
  const Mask* mask(const std::string& name) const;

  /// Scales all gradients so that their joint 2-norm is at most `norm`; masked elements do not count. A norm that is
  /// NaN makes all gradients NaN, an infinite one makes the finite elements 0, as torch's clip_grad_norm_ does. 0: off;
  /// infinity: the norm is measured (last_grad_norm) and nothing is scaled.
  void clip_norm(double norm);
  /// Clamps every gradient element to [-value, value]. 0: off.
  void clip_value(double value);
  void set_schedule(Schedule schedule) { schedule_ = std::move(schedule); }
  /// A transform under a name of its own; setting it again replaces it in its place. They act in the order in which
  /// they were first set.
  void set_transform(const std::string& id, GradientTransform transform);
  /// An Error when there is none of that name.
  void remove_transform(const std::string& id);

  /// A penalty under a name of its own; setting it again replaces it. Importance and anchor may have any dtype; what
  /// shares the parameter's memory is copied.
  void set_penalty(const std::string& id, QuadraticPenalty penalty);
  void remove_penalty(const std::string& id);
  /// All penalties and transforms, to be put back later in the place of those that are there then. An Error, before
  /// anything changes, where a penalty no longer fits its parameter.
  struct Additions {
    std::map<std::string, QuadraticPenalty> penalties;
    std::vector<std::pair<std::string, GradientTransform>> transforms;
  };
  const Additions& additions() const { return additions_; }
  void set_additions(Additions additions);
  /// Value of all penalties at the present parameters.
  double penalty_value() const;

  std::int64_t steps() const { return steps_; }
  /// Before clipping; 0 until a step with clip_norm on. Waits for the device.
  double last_grad_norm() const { return last_norm_.defined() ? last_norm_.item() : 0; }
  std::vector<nn::Parameter*> parameters() const;
  /// Adds parameters to an existing group, for heads that grow. An Error, before anything changes, when one is there
  /// already or a penalty's importance or anchor has another shape.
  void add_parameters(const std::vector<nn::Parameter*>& parameters, std::size_t group = 0);
  /// Forgets parameters with their state and masks, before their module goes: an optimizer refuses to go on with one
  /// that is gone. An Error when one is not in it.
  void remove_parameters(const std::vector<nn::Parameter*>& parameters);

  /// Forgets moments and step counts, as if no step had been taken: a schedule starts again, too. Masks and penalties
  /// stay.
  void reset_state();
  /// Everything a resumed run needs, keyed by parameter name: "fc1.weight/m", "fc1.weight/step", masks,
  /// "steps". An Error, as step() would throw, when an option has changed what a parameter's state consists of.
  nn::State state() const;
  /// Strict about names and shapes: an Error lists what does not fit and changes nothing.
  void load(const nn::State& state);

 protected:
  explicit Optimizer(std::size_t groups) : group_count_(groups) {}
  void add_group(std::size_t group, const std::vector<nn::Parameter*>& parameters);
  /// The same number; an Error when there is no such group.
  std::size_t checked_group(std::string_view op, std::size_t group) const;

  /// Names of the state tensors of a parameter in that group.
  virtual std::vector<std::string> state_names(std::size_t group) const = 0;
  /// Fresh state for a parameter; zeros unless overridden. Shapes, dtypes and devices are the parameter's: step()
  /// throws an Error otherwise.
  virtual std::vector<Tensor> init(const Tensor& parameter, std::size_t group) const;
  virtual void update(const Slot& slot, std::size_t group) const = 0;
  /// Throws where an option has become one that step() must not take: they can be changed at any time.
  virtual void check_options() const {}

 private:
  struct Combined {
    double strength = 0;
    Tensor importance, anchor;
  };
  using Penalties = std::map<std::string, QuadraticPenalty>;

  void check_alive(std::string_view op) const;
  void check_penalty(std::string_view op, const std::string& id, const QuadraticPenalty& penalty) const;
  std::vector<NamedGradient> gather() const;
  std::size_t find_entry(const NamedGradient& gradient, std::size_t& place) const;
  void check_transformed(const std::vector<NamedGradient>& gradients) const;
  Tensor clip_scale(const std::vector<NamedGradient>& gradients);
  void put_penalties(Penalties penalties);
  std::map<std::string, Combined> combine(const Penalties& penalties) const;
  std::vector<Tensor> fresh_state(const Entry& entry) const;
  void check_kept(std::string_view op, const Entry& entry) const;
  Planned plan(Entry& entry, const Tensor& gradient) const;
  void update_entry(Planned& planned, const Tensor& scale, double lr_factor);
  void update_all(const std::vector<NamedGradient>& gradients, const Tensor& scale);
  void flush();

  std::size_t group_count_;
  std::vector<Entry> entries_;
  std::map<std::string, Mask> masks_;
  Additions additions_;
  std::map<std::string, Combined> combined_;  // additions_.penalties
  Schedule schedule_;
  double clip_norm_ = 0, clip_value_ = 0;
  Tensor last_norm_;
  std::vector<Pending> pending_;
  std::int64_t steps_ = 0;
};

}  // namespace stet::optim
