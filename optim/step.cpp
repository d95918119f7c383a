// One step of any optimizer, in order: gradients, transforms, clipping, then the update of every parameter. Whatever
// may fail comes before anything changes.
#include <algorithm>
#include <cmath>
#include <utility>

#include <stet/autograd/node.h>
#include <stet/optim/optimizer.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::optim {
namespace {

/// The update reads a gradient's memory as its parameter's type.
void check_gradient(std::string_view source, const NamedGradient& g) {
  const Tensor& p = g.parameter->value();
  check(g.gradient.shape() == p.shape() && g.gradient.dtype() == p.dtype(), "step", source, " gave '", g.name,
        "' a gradient ", g.gradient.shape(), ' ', g.gradient.dtype(), ", expected ", p.shape(), ' ', p.dtype());
  check(g.gradient.device() == p.device(), "step", source, " gave '", g.name, "' a gradient on ", g.gradient.device(),
        ", the parameter is on ", p.device());
}

}  // namespace

void Planned::done() {
  if (fresh) entry->state = std::move(state);
  fresh = false;
  ++entry->step;
}

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
  Pending pending{rule, parameter_.device(), {}, planned_};
  Update& job = pending.job;
  job.dtype = parameter_.dtype();
  job.count = parameter_.numel();
  job.parameter = parameter_.raw_mutable();
  job.gradient = raw_gradient_.raw();
  job.grad_scale = grad_scale_.defined() ? static_cast<const double*>(grad_scale_.raw()) : nullptr;
  for (int i = 0; i < states; ++i) job.state[i] = state(static_cast<std::size_t>(i)).raw_mutable();
  job.importance = importance_.defined() ? importance_.raw() : nullptr;
  job.anchor = anchor_.defined() ? anchor_.raw() : nullptr;
  if (mask_) job.mask = mask_->view(pending.device);
  job.options = options;
  job.options.clip_value = clip_value_;
  job.options.penalty = penalty_;
  if (job.count) pending_->push_back(pending);
}

void Slot::assign(const Tensor& parameter, const std::vector<Tensor>& state) const {
  check(state.size() == state_->size(), "assign", state.size(), " state tensors for ", state_->size());
  const Tensor may_change = mask_ ? mask_->to_tensor(parameter_.device()) : Tensor();
  std::vector<std::pair<Tensor, Tensor>> all{{parameter_, parameter}};
  for (std::size_t i = 0; i < state.size(); ++i) all.emplace_back(this->state(i), state[i]);
  for (auto& [target, value] : all) {  // all of them before the first one is written
    check(value.defined() && value.shape() == target.shape(), "assign", "a value ",
          value.defined() ? value.shape() : Shape{}, " for '", name_, "' or its state: expected ", target.shape());
    if (may_change.defined()) value = where(may_change, value, target);
  }
  for (const auto& [target, value] : all) target.copy_(value);
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
  std::vector<Squares> jobs;
  std::size_t place = 0;
  for (const NamedGradient& g : gradients) {
    const std::string& name = entries_[find_entry(g, place)].name;  // a transform may have written another
    check(g.gradient.device() == device, "clip_norm", "gradients on ", device, " and ", g.gradient.device(), " ('",
          name, "'): one norm is taken of all");
    const Mask* m = mask(name);
    jobs.push_back(
        {g.gradient.dtype(), g.gradient.numel(), g.gradient.raw(), m && !m->is_all() ? m->view(device) : UpdateMask{}});
  }
  const Tensor squares = empty({}, {DType::f64, device});
  kernels(device).sum_of_squares(jobs.data(), static_cast<std::int64_t>(jobs.size()),
                                 static_cast<double*>(squares.raw_mutable()));
  last_norm_ = sqrt(squares);
  if (std::isinf(clip_norm_)) return {};
  const Options number{DType::f64, Device::cpu()};
  const Tensor fits = less_equal(last_norm_, scalar(clip_norm_, number));  // NaN does not
  return where(fits, scalar(1, number), clip_norm_ / (last_norm_ + 1e-6));
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

std::vector<Tensor> Optimizer::init(const Tensor& parameter, std::size_t group) const {
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < state_names(group).size(); ++i)
    out.push_back(zeros(parameter.shape(), parameter.options()));
  return out;
}

/// Whatever may fail of an entry's update is done here, or checked.
Planned Optimizer::plan(Entry& entry, const Tensor& gradient) const {
  Planned planned{&entry, gradient, entry.step == 0 || entry.state.empty(), {}};
  const Device device = entry.parameter->value().device();
  if (planned.fresh) {
    check((entry.step > 0 && state_names(entry.group).empty()) || !recording(device), "step", "the first update of '",
          entry.name, "' inside a recorded step: do the step once before recording it");
    planned.state = fresh_state(entry);
  } else {
    check_kept("step", entry);
    for (const Tensor& s : entry.state)
      check(s.device() == device, "step", "'", entry.name, "' is on ", device, ", its state on ", s.device(),
            ": make the optimizer after moving the model, or load its state again");
  }
  if (const Mask* m = mask(entry.name)) m->view(device);  // uploads it
  return planned;
}

void Optimizer::update_entry(Planned& planned, const Tensor& scale, double lr_factor) {
  const Entry& entry = *planned.entry;
  Slot slot;
  slot.planned_ = &planned;
  slot.name_ = entry.name;
  slot.parameter_ = entry.parameter->value();
  slot.pending_ = &pending_;
  slot.raw_gradient_ = planned.gradient;
  slot.state_ = &planned.current_state();
  slot.step_ = entry.step + 1;
  slot.fresh_ = planned.fresh;
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
  const std::size_t queued = pending_.size();
  update(slot, entry.group);
  if (pending_.size() == queued) planned.done();
}

/// Neighbours with one rule on one device go together.
void Optimizer::flush() {
  std::vector<Update> jobs;
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const Pending& p = pending_[i];
    jobs.push_back(p.job);
    p.planned->entry->parameter->value().impl().storage->bump_version();
    const bool last =
        i + 1 == pending_.size() || pending_[i + 1].rule != p.rule || !(pending_[i + 1].device == p.device);
    if (!last) continue;
    kernels(p.device).update[p.rule](jobs.data(), static_cast<std::int64_t>(jobs.size()));
    for (std::size_t k = i + 1 - jobs.size(); k <= i; ++k) pending_[k].planned->done();
    jobs.clear();
  }
  pending_.clear();
}

/// The entry's number. Looks from `place` on and leaves it behind what it finds: gradients come in the entries' order,
/// but for what transforms do.
std::size_t Optimizer::find_entry(const NamedGradient& gradient, std::size_t& place) const {
  for (std::size_t i = 0; i < entries_.size(); ++i, ++place) {
    if (place >= entries_.size()) place = 0;
    if (entries_[place].parameter == gradient.parameter) return place++;
  }
  fail("step", "a gradient transform brought '", gradient.name, "', which is no parameter of this optimizer");
}

void Optimizer::check_transformed(const std::vector<NamedGradient>& gradients) const {
  std::vector<bool> seen(entries_.size());
  std::size_t place = 0;
  for (const NamedGradient& g : gradients) {
    const std::size_t at = find_entry(g, place);
    check(!seen[at], "step", "a gradient transform brought '", entries_[at].name, "' twice: expected it once");
    seen[at] = true;
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
  for (NamedGradient& g : gradients) g.gradient = compute::contiguous(g.gradient);
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
  check_options();
  pending_.clear();  // of a step that threw
  std::vector<Planned> planned;
  planned.reserve(gradients.size());  // a Pending points there
  std::size_t place = 0;
  for (const NamedGradient& g : gradients) planned.push_back(plan(entries_[find_entry(g, place)], g.gradient));
  for (Planned& p : planned) update_entry(p, scale, factor);
  flush();
  ++steps_;
}

}  // namespace stet::optim
