// The optimizer base: one step in order, penalties, masks, state.
#include <stet/optim/optimizer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

#include <stet/autograd/node.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::optim {
namespace {

template <class List> auto find_id(List& list, const std::string& id) {
  return std::find_if(list.begin(), list.end(), [&](const auto& item) { return item.first == id; });
}

Tensor find(const nn::State& state, const std::string& name) {
  const auto it = state.find(name);
  return it == state.end() ? Tensor() : it->second;
}

void check_fits(std::string_view op, const QuadraticPenalty& penalty, const std::string& name, const nn::Parameter& p) {
  const auto check_shape = [&](std::string_view what, const Tensor& value) {
    check(!value.defined() || value.shape() == p.shape(), op, what, " of '", name, "' has shape ",
          value.defined() ? value.shape() : Shape{}, ", the parameter ", p.shape());
  };
  check_shape("importance", find(penalty.importance, name));
  check_shape("anchor", find(penalty.anchor, name));
}

/// The update reads a gradient's memory as its parameter's type.
void check_gradient(std::string_view source, const NamedGradient& g) {
  const Tensor& p = g.parameter->value();
  check(g.gradient.shape() == p.shape() && g.gradient.dtype() == p.dtype(), "step", source, " gave '", g.name,
        "' a gradient ", g.gradient.shape(), ' ', g.gradient.dtype(), ", expected ", p.shape(), ' ', p.dtype());
  check(g.gradient.device() == p.device(), "step", source, " gave '", g.name, "' a gradient on ", g.gradient.device(),
        ", the parameter is on ", p.device());
}

}  // namespace

Tensor Slot::gradient() const {
  Tensor g = grad_scale_.defined() ? raw_gradient_ * cast(grad_scale_, raw_gradient_.dtype()) : raw_gradient_;
  if (clip_value_ > 0) g = clamp(g, -clip_value_, clip_value_);
  if (!anchor_.defined()) return g;
  const Tensor pull = (parameter_ - anchor_) * penalty_;
  return g + (importance_.defined() ? pull * importance_ : pull);
}

void Slot::fused(std::size_t rule, int states, UpdateOptions options) const {
  check(std::cmp_equal(state_->size(), states), "step", "the update rule of '", name_, "' keeps ", states,
        " state tensors: expected ", state_->size(), ", as many as state_names()");
  Pending pending{rule, parameter_.device(), {}, compute::contiguous(raw_gradient_)};
  Update& job = pending.job;
  job.dtype = parameter_.dtype();
  job.count = parameter_.numel();
  job.parameter = parameter_.raw_mutable();
  job.gradient = pending.gradient.raw();
  job.grad_scale = grad_scale_.defined() ? static_cast<const double*>(grad_scale_.raw()) : nullptr;
  for (int i = 0; i < states; ++i) {
    const Tensor& s = state(static_cast<std::size_t>(i));
    check(s.device() == pending.device, "step", "'", name_, "' is on ", pending.device, ", its state on ", s.device(),
          ": make the optimizer after moving the model, or load its state again");
    job.state[i] = s.raw_mutable();
  }
  job.importance = importance_.defined() ? importance_.raw() : nullptr;
  job.anchor = anchor_.defined() ? anchor_.raw() : nullptr;
  if (mask_) job.mask = mask_->view(pending.device);
  job.options = options;
  job.options.clip_value = clip_value_;
  job.options.penalty = penalty_;
  parameter_.impl().storage->bump_version();
  if (job.count) pending_->push_back(std::move(pending));
}

void Slot::assign(const Tensor& parameter, const std::vector<Tensor>& state) const {
  check(state.size() == state_->size(), "assign", state.size(), " state tensors for ", state_->size());
  const Tensor may_change = mask_ ? mask_->to_tensor(parameter_.device()) : Tensor();
  const auto put = [&](const Tensor& target, const Tensor& value) {
    target.copy_(may_change.defined() ? where(may_change, value, target) : value);
  };
  put(parameter_, parameter);
  for (std::size_t i = 0; i < state.size(); ++i) put(this->state(i), state[i]);
}

std::size_t Optimizer::checked_group(std::string_view op, std::size_t group) const {
  check(group < group_count_, op, "group ", group, " of ", group_count_);
  return group;
}

void Optimizer::add_group(std::size_t group, const std::vector<nn::Parameter*>& parameters) {
  checked_group("add_parameters", group);
  std::vector<Entry> all = entries_;
  for (nn::Parameter* p : parameters) {
    const std::string name = p->path();
    for (const Entry& e : all) {
      check(e.parameter != p, "optimizer", "parameter '", name, "' is in it already");
      check(e.name != name, "optimizer", "another parameter named '", name,
            "' is in it already: state, masks and penalties go by names");
    }
    check(p->value().dtype() == DType::f32 || p->value().dtype() == DType::f64, "optimizer", "parameter '", name,
          "' holds ", p->value().dtype(), ", expected f32 or f64");
    for (const auto& [id, penalty] : additions_.penalties) check_fits("add_parameters", penalty, name, *p);
    all.push_back({p, p->alive(), group, name, 0, {}});
  }
  entries_ = std::move(all);
}

/// What belongs to a model may go before its optimizer does, adapters above all.
void Optimizer::check_alive(std::string_view op) const {
  for (const Entry& e : entries_)
    check(!e.alive.expired(), op, "parameter '", e.name,
          "' is gone: expected remove_parameters() before its module went");
}

void Optimizer::add_parameters(const std::vector<nn::Parameter*>& parameters, std::size_t group) {
  check_alive("add_parameters");
  add_group(group, parameters);
  combine_penalties();
}

void Optimizer::remove_parameters(const std::vector<nn::Parameter*>& parameters) {
  check_alive("remove_parameters");
  for (const nn::Parameter* p : parameters)
    check(std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.parameter == p; }),
          "remove_parameters", "no parameter '", p->path(), "' in this optimizer");
  std::erase_if(entries_, [&](const Entry& e) {
    if (std::find(parameters.begin(), parameters.end(), e.parameter) == parameters.end()) return false;
    masks_.erase(e.name);
    combined_.erase(e.name);
    return true;
  });
}

std::vector<nn::Parameter*> Optimizer::parameters() const {
  check_alive("parameters");
  std::vector<nn::Parameter*> out;
  for (const Entry& e : entries_) out.push_back(e.parameter);
  return out;
}

void Optimizer::zero_grad() {
  check_alive("zero_grad");
  for (Entry& e : entries_) e.parameter->zero_grad();
}

void Optimizer::set_mask(const std::string& name, Mask mask) {
  check_alive("set_mask");
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  check(it != entries_.end(), "set_mask", "no parameter '", name, "' in this optimizer");
  check(mask.shape() == it->parameter->shape(), "set_mask", "mask ", mask.shape(), " for parameter '", name, "' ",
        it->parameter->shape());
  masks_.insert_or_assign(name, std::move(mask));
}

const Mask* Optimizer::mask(const std::string& name) const {
  const auto it = masks_.find(name);
  return it == masks_.end() ? nullptr : &it->second;
}

void Optimizer::clip_norm(double norm) {
  check(norm >= 0, "clip_norm", "norm ", norm, ": expected 0 (off) or more");
  clip_norm_ = norm;
}
void Optimizer::clip_value(double value) {
  check(value >= 0, "clip_value", "value ", value, ": expected 0 (off) or more");
  clip_value_ = value;
}

void Optimizer::set_transform(const std::string& id, GradientTransform transform) {
  check(transform != nullptr, "set_transform", "'", id, "' is an empty function");
  auto& all = additions_.transforms;
  if (const auto it = find_id(all, id); it != all.end()) it->second = std::move(transform);
  else all.emplace_back(id, std::move(transform));
}
void Optimizer::remove_transform(const std::string& id) {
  const auto it = find_id(additions_.transforms, id);
  check(it != additions_.transforms.end(), "remove_transform", "no transform '", id, "'");
  additions_.transforms.erase(it);
}

void Optimizer::check_penalty(std::string_view op, const std::string& id, const QuadraticPenalty& penalty) const {
  check(penalty.strength >= 0 && std::isfinite(penalty.strength), op, "strength ", penalty.strength, " of '", id,
        "': expected a finite number, 0 or more");
  for (const Entry& e : entries_)
    if (!e.alive.expired()) check_fits(op, penalty, e.name, *e.parameter);
}

void Optimizer::set_penalty(const std::string& id, QuadraticPenalty penalty) {
  check_alive("set_penalty");
  check_penalty("set_penalty", id, penalty);
  additions_.penalties.insert_or_assign(id, std::move(penalty));
  combine_penalties();
}

void Optimizer::remove_penalty(const std::string& id) {
  check_alive("remove_penalty");
  check(additions_.penalties.erase(id) == 1, "remove_penalty", "no penalty '", id, "'");
  combine_penalties();
}

void Optimizer::set_additions(Additions additions) {
  for (const auto& [id, penalty] : additions.penalties) check_penalty("set_additions", id, penalty);
  additions_ = std::move(additions);
  combine_penalties();
}

/// Several penalties on one parameter act like one: sum_k l_k O_k (t - t_k) = A (t - C) with A = sum l_k O_k
/// and C = sum l_k O_k t_k / A. The update then reads two tensors, however many tasks there were.
void Optimizer::combine_penalties() {
  const NoGrad no_grad;
  combined_.clear();
  for (const Entry& e : entries_) {
    if (e.alive.expired()) continue;  // a run that failed ends here, too; step() names the parameter
    Combined sum;
    int parts = 0;
    const Options options = e.parameter->value().options();
    Tensor weighted;  // sum l_k O_k t_k
    for (const auto& [id, p] : additions_.penalties) {
      Tensor anchor = find(p.anchor, e.name);
      if (!anchor.defined() || p.strength == 0) continue;
      anchor = to(anchor, options.device);
      const Tensor importance = find(p.importance, e.name);
      const Tensor scale = importance.defined() ? cast(to(importance, options.device), options.dtype)
                                                : full(e.parameter->shape(), 1, options);
      if (++parts == 1) {
        sum = {p.strength, importance.defined() ? contiguous(scale) : Tensor(),
               contiguous(cast(anchor, options.dtype))};
        weighted = scale * anchor * p.strength;
        continue;
      }
      const Tensor before = sum.importance.defined() ? sum.importance : full(e.parameter->shape(), 1, options);
      sum.importance = before * sum.strength + scale * p.strength;
      sum.strength = 1;
      weighted = weighted + scale * anchor * p.strength;
      const Tensor zero = sum.importance * 0.0;
      sum.anchor = where(equal(sum.importance, zero), zero, weighted / sum.importance);
    }
    if (parts) combined_.insert_or_assign(e.name, std::move(sum));
  }
}

double Optimizer::penalty_value() const {
  check_alive("penalty_value");
  const NoGrad no_grad;
  double total = 0;
  for (const Entry& e : entries_)
    for (const auto& [id, p] : additions_.penalties) {
      const Tensor anchor = find(p.anchor, e.name), importance = find(p.importance, e.name);
      if (!anchor.defined()) continue;
      const Device device = e.parameter->value().device();
      const Tensor squares = square(e.parameter->value() - to(anchor, device));
      total += p.strength / 2 * sum(importance.defined() ? squares * to(importance, device) : squares).item();
    }
  return total;
}

std::vector<NamedGradient> Optimizer::gather() const {
  std::vector<NamedGradient> out;
  for (const Entry& e : entries_) {
    if (!e.parameter->trainable()) continue;
    const Mask* m = mask(e.name);
    if (m && m->is_none()) continue;
    Tensor g = e.parameter->grad();
    if (!g.defined()) continue;
    out.push_back({e.name, e.parameter, std::move(g)});
    check_gradient("backward or set_grad", out.back());
  }
  return out;
}

/// What clipping by norm multiplies the gradients with, one f64 where they are: nobody waits for it.
Tensor Optimizer::clip_scale(const std::vector<NamedGradient>& gradients) {
  if (clip_norm_ == 0 || gradients.empty()) return {};
  const Device device = gradients.front().gradient.device();
  std::vector<Tensor> alive;
  std::vector<Squares> jobs;
  for (const NamedGradient& g : gradients) {
    check(g.gradient.device() == device, "clip_norm", "gradients on ", device, " and ", g.gradient.device(), " ('",
          g.name, "'): one norm is taken of all");
    alive.push_back(compute::contiguous(g.gradient));
    const Mask* m = mask(g.name);
    jobs.push_back({g.gradient.dtype(), g.gradient.numel(), alive.back().raw(),
                    m && !m->is_all() ? m->view(device) : UpdateMask{}});
  }
  const Tensor squares = empty({}, {DType::f64, device});
  kernels(device).sum_of_squares(jobs.data(), static_cast<std::int64_t>(jobs.size()),
                                 static_cast<double*>(squares.raw_mutable()));
  last_norm_ = sqrt(squares);
  const Tensor one = scalar(1, {DType::f64, Device::cpu()});
  return where(last_norm_ > clip_norm_, clip_norm_ / (last_norm_ + 1e-6), one);
}

/// What init() gives, as memory that the update may write into.
std::vector<Tensor> Optimizer::fresh_state(const Entry& entry) const {
  const Tensor& p = entry.parameter->value();
  const auto names = state_names(entry.group);
  std::vector<Tensor> state = init(p, entry.group);
  check(state.size() == names.size(), "step", "init() gave '", entry.name, "' ", state.size(),
        " state tensors: expected ", names.size());
  for (std::size_t i = 0; i < state.size(); ++i) {
    Tensor& s = state[i];
    check(s.defined(), "step", "init() left the state '", names[i], "' of '", entry.name, "' undefined");
    check(s.shape() == p.shape() && s.dtype() == p.dtype() && s.device() == p.device(), "step",
          "init() gave the state '", names[i], "' of '", entry.name, "' as ", s.shape(), ' ', s.dtype(), " on ",
          s.device(), ": expected ", p.shape(), ' ', p.dtype(), " on ", p.device());
    if (!owned(s)) s = s.clone();
  }
  return state;
}

/// An option that has changed may ask for other tensors than an entry has kept.
void Optimizer::check_kept(std::string_view op, const Entry& entry) const {
  const std::size_t wanted = state_names(entry.group).size();
  check(entry.state.size() == wanted, op, "the state of '", entry.name, "' has ", entry.state.size(),
        " tensors, its options now need ", wanted, ": reset_state() after such a change");
}

void Optimizer::update_entry(Entry& entry, const Tensor& gradient, const Tensor& scale, double lr_factor) {
  check(entry.step > 0 || !recording(gradient.device()), "step", "the first update of '", entry.name,
        "' inside a recorded step: do the step once before recording it");
  if (entry.state.empty()) entry.state = fresh_state(entry);
  check_kept("step", entry);
  Slot slot;
  slot.name_ = entry.name;
  slot.parameter_ = entry.parameter->value();
  slot.pending_ = &pending_;
  slot.raw_gradient_ = gradient;
  slot.state_ = &entry.state;
  slot.step_ = ++entry.step;
  slot.lr_factor_ = lr_factor;
  slot.grad_scale_ = scale;
  slot.clip_value_ = clip_value_;
  const Mask* m = mask(entry.name);
  slot.mask_ = m && !m->is_all() ? m : nullptr;
  if (const auto it = combined_.find(entry.name); it != combined_.end()) {
    slot.penalty_ = it->second.strength;
    slot.importance_ = it->second.importance;
    slot.anchor_ = it->second.anchor;
  }
  update(slot, entry.group);
}

/// Neighbours with one rule on one device go together.
void Optimizer::flush() {
  std::vector<Update> jobs;
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const Pending& p = pending_[i];
    jobs.push_back(p.job);
    const bool last =
        i + 1 == pending_.size() || pending_[i + 1].rule != p.rule || !(pending_[i + 1].device == p.device);
    if (!last) continue;
    kernels(p.device).update[p.rule](jobs.data(), static_cast<std::int64_t>(jobs.size()));
    jobs.clear();
  }
  pending_.clear();
}

void Optimizer::check_transformed(const std::vector<NamedGradient>& gradients) const {
  for (const NamedGradient& g : gradients) {
    const bool known =
        std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.parameter == g.parameter; });
    check(known, "step", "a gradient transform brought '", g.name, "', which is no parameter of this optimizer");
    check(g.parameter->trainable(), "step", "a gradient transform brought '", g.name,
          "', which is frozen: expected trainable parameters alone");
    check(g.gradient.defined(), "step", "a gradient transform left '", g.name,
          "' without a gradient: take it out of the list instead");
    check_gradient("a gradient transform", g);
  }
}

void Optimizer::step() {
  check_alive("step");
  const NoGrad no_grad;
  std::vector<NamedGradient> gradients = gather();
  for (const auto& [id, transform] : additions_.transforms) transform(gradients);
  if (!additions_.transforms.empty()) check_transformed(gradients);
  const Tensor scale = clip_scale(gradients);
  // What follows depends on the number of steps: schedules, bias corrections.
  each_replay(gradients.empty() ? Device::cpu() : gradients.front().gradient.device(),
              [this, gradients, scale] { update_all(gradients, scale); });
}

void Optimizer::update_all(const std::vector<NamedGradient>& gradients, const Tensor& scale) {
  check_alive("step");  // a recorded step is replayed without step()
  const NoGrad no_grad;
  const double factor = schedule_ ? schedule_(steps_) : 1;
  check(std::isfinite(factor) && factor >= 0, "step", "the schedule gives ", factor, " after ", steps_,
        " steps: expected a finite number, 0 or more");
  pending_.clear();  // of a step that threw
  for (const NamedGradient& g : gradients) {
    const auto entry =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.parameter == g.parameter; });
    update_entry(*entry, g.gradient, scale, factor);
  }
  flush();
  ++steps_;
}

std::vector<Tensor> Optimizer::init(const Tensor& parameter, std::size_t group) const {
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < state_names(group).size(); ++i)
    out.push_back(zeros(parameter.shape(), parameter.options()));
  return out;
}

void Optimizer::reset_state() {
  for (Entry& e : entries_) {
    e.step = 0;
    e.state.clear();
  }
  steps_ = 0;
}

nn::State Optimizer::state() const {
  nn::State out;
  const DefaultDevice host(Device::cpu());
  const auto number = [](std::int64_t value) { return tensor(std::vector<std::int64_t>{value}, {}); };
  out["steps"] = number(steps_);
  for (const Entry& e : entries_) {
    out[e.name + "/step"] = number(e.step);
    if (e.step > 0) {
      const auto names = state_names(e.group);
      const auto tensors = e.state.empty() ? fresh_state(e) : e.state;
      if (!e.state.empty()) check_kept("state", e);
      for (std::size_t i = 0; i < names.size(); ++i) out[e.name + "/" + names[i]] = tensors[i].clone();
    }
    if (const Mask* m = mask(e.name)) out[e.name + "/mask"] = m->to_tensor().clone();
  }
  return out;
}

void Optimizer::load(const nn::State& state) {
  check_alive("load");
  std::ostringstream problems;
  std::map<std::string, bool> known{{"steps", true}};
  const auto want = [&](const std::string& key, const Shape& shape, DType dtype) {
    known[key] = true;
    const Tensor found = find(state, key);
    if (!found.defined()) problems << "\n  missing: " << key;
    else if (!(found.shape() == shape) || found.dtype() != dtype)
      problems << "\n  mismatched: " << key << " is " << found.dtype() << ' ' << found.shape() << ", expected " << dtype
               << ' ' << shape;
  };
  const auto want_count = [&](const std::string& key) {
    want(key, {}, DType::i64);
    const Tensor found = find(state, key);
    const double count = found.defined() && found.numel() == 1 ? found.item() : 0;
    if (count < 0) problems << "\n  negative: " << key << " is " << count;
    return count;
  };
  want_count("steps");
  for (const Entry& e : entries_) {
    if (want_count(e.name + "/step") > 0)
      for (const std::string& name : state_names(e.group))
        want(e.name + "/" + name, e.parameter->shape(), e.parameter->value().dtype());
    if (state.contains(e.name + "/mask")) want(e.name + "/mask", e.parameter->shape(), DType::boolean);
  }
  for (const auto& [key, value] : state)
    if (!known.contains(key)) problems << "\n  unexpected: " << key;
  check(problems.str().empty(), "load", "the optimizer state does not fit:", problems.str());
  const NoGrad no_grad;
  steps_ = static_cast<std::int64_t>(state.at("steps").item());
  for (Entry& e : entries_) {
    e.step = static_cast<std::int64_t>(state.at(e.name + "/step").item());
    e.state.clear();
    if (e.step > 0)
      for (const std::string& name : state_names(e.group))
        e.state.push_back(to(state.at(e.name + "/" + name), e.parameter->value().device()).clone());
    if (const Tensor m = find(state, e.name + "/mask"); m.defined()) masks_.insert_or_assign(e.name, Mask::elements(m));
    else masks_.erase(e.name);
  }
}

}  // namespace stet::optim
