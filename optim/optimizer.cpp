// The optimizer base: parameters, penalties, masks, state. One step, in order, is in step.cpp.
#include <stet/optim/optimizer.h>

#include <algorithm>
#include <cmath>
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

}  // namespace

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
  std::vector<Entry> before = entries_;
  add_group(group, parameters);
  try {
    put_penalties(additions_.penalties);
  } catch (...) {
    entries_ = std::move(before);
    throw;
  }
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
  Penalties penalties = additions_.penalties;
  penalties.insert_or_assign(id, std::move(penalty));
  put_penalties(std::move(penalties));
}

void Optimizer::remove_penalty(const std::string& id) {
  check_alive("remove_penalty");
  Penalties penalties = additions_.penalties;
  check(penalties.erase(id) == 1, "remove_penalty", "no penalty '", id, "'");
  put_penalties(std::move(penalties));
}

void Optimizer::set_additions(Additions additions) {
  for (const auto& [id, penalty] : additions.penalties) check_penalty("set_additions", id, penalty);
  put_penalties(std::move(additions.penalties));
  additions_.transforms = std::move(additions.transforms);
}

/// An anchor that is the parameter itself would follow it and never pull.
void Optimizer::put_penalties(Penalties penalties) {
  for (auto& [id, penalty] : penalties)
    for (const Entry& e : entries_)
      for (nn::State* state : {&penalty.importance, &penalty.anchor}) {
        const auto it = state->find(e.name);
        if (it == state->end() || !it->second.defined() || e.alive.expired()) continue;
        if (it->second.impl().storage == e.parameter->value().impl().storage) it->second = it->second.clone();
      }
  auto combined = combine(penalties);
  additions_.penalties = std::move(penalties);
  combined_ = std::move(combined);
}

/// Several penalties on one parameter act like one: sum_k l_k O_k (t - t_k) = A (t - C) with A = sum l_k O_k
/// and C = sum l_k O_k t_k / A. The update then reads two tensors, however many tasks there were.
std::map<std::string, Optimizer::Combined> Optimizer::combine(const Penalties& penalties) const {
  const NoGrad no_grad;
  std::map<std::string, Combined> out;
  for (const Entry& e : entries_) {
    if (e.alive.expired()) continue;  // a run that failed ends here, too; step() names the parameter
    Combined sum;
    int parts = 0;
    const Options options = e.parameter->value().options();
    Tensor weighted;  // sum l_k O_k t_k
    for (const auto& [id, p] : penalties) {
      if (p.strength == 0 || !find(p.anchor, e.name).defined()) continue;
      // The update reads both as the parameter's type.
      const Tensor anchor = contiguous(cast(to(find(p.anchor, e.name), options.device), options.dtype));
      const Tensor importance = find(p.importance, e.name);
      const Tensor scale = importance.defined() ? cast(to(importance, options.device), options.dtype)
                                                : full(e.parameter->shape(), 1, options);
      if (++parts == 1) {
        sum = {p.strength, importance.defined() ? contiguous(scale) : Tensor(), anchor};
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
    if (parts) out.insert_or_assign(e.name, std::move(sum));
  }
  return out;
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
  std::vector<Entry> entries = entries_;  // all of it is made before any of it is taken over
  std::map<std::string, Mask> masks;
  for (Entry& e : entries) {
    e.step = static_cast<std::int64_t>(state.at(e.name + "/step").item());
    e.state.clear();
    if (e.step > 0)
      for (const std::string& name : state_names(e.group))
        e.state.push_back(to(state.at(e.name + "/" + name), e.parameter->value().device()).clone());
    if (const Tensor m = find(state, e.name + "/mask"); m.defined()) masks.emplace(e.name, Mask::elements(m));
  }
  steps_ = static_cast<std::int64_t>(state.at("steps").item());
  entries_ = std::move(entries);
  masks_ = std::move(masks);
}

}  // namespace stet::optim
