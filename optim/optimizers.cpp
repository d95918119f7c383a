// Concrete optimizers fill in coefficients; the arithmetic is tensor/updates.h.
#include <stet/optim/optimizers.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include <stet/tensor/error.h>

namespace stet::optim {
namespace {

void check_group(std::string_view op, const SgdOptions& o, std::string_view where = {}) {
  check_settings(op, {{"lr", o.lr}, {"weight decay", o.weight_decay}, {"momentum", o.momentum}}, where);
  check(std::isfinite(o.dampening), op, "dampening ", o.dampening, where, ": expected a finite number");
  check(!o.nesterov || (o.momentum > 0 && o.dampening == 0), op,
        "Nesterov needs momentum and no dampening, got momentum ", o.momentum, " and dampening ", o.dampening, where);
}

void check_group(std::string_view op, const AdagradOptions& o, std::string_view where = {}) {
  check_settings(op,
                 {{"lr", o.lr},
                  {"weight decay", o.weight_decay},
                  {"lr decay", o.lr_decay},
                  {"initial accumulator", o.initial_accumulator},
                  {"eps", o.eps}},
                 where);
}

void check_group(std::string_view op, const AdamOptions& o, std::string_view where = {}) {
  check_settings(op, {{"lr", o.lr}, {"weight decay", o.weight_decay}, {"eps", o.eps}}, where);
  check(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, op, "betas ", o.beta1, " and ", o.beta2, where,
        ": expected 0 <= beta < 1");
}

template <class Options> void check_groups(const std::vector<Options>& groups) {
  for (std::size_t i = 0; i < groups.size(); ++i) check_group("step", groups[i], " of group " + std::to_string(i));
}

}  // namespace

void Sgd::check_options() const { check_groups(options_); }
void Adagrad::check_options() const { check_groups(options_); }
void Adam::check_options() const { check_groups(options_); }

Sgd::Sgd(std::vector<Group<SgdOptions>> groups) : Optimizer(groups.size()) {
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const SgdOptions& o = groups[i].options;
    check_group("Sgd", o);
    options_.push_back(o);
    add_group(i, groups[i].parameters);
  }
}

std::vector<std::string> Sgd::state_names(std::size_t group) const {
  if (options_[group].momentum == 0) return {};
  return {"momentum"};
}

void Sgd::update(const Slot& slot, std::size_t group) const {
  const SgdOptions& o = options_[group];
  UpdateOptions u;
  u.lr = o.lr * slot.lr_factor();
  u.weight_decay = o.weight_decay;
  if (o.momentum == 0) return slot.fused<PlainSgdRule>(u);
  u.momentum = o.momentum;
  u.dampening = o.dampening;
  u.nesterov = o.nesterov;
  u.first_step = slot.fresh();
  slot.fused<SgdRule>(u);
}

Adagrad::Adagrad(std::vector<Group<AdagradOptions>> groups) : Optimizer(groups.size()) {
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const AdagradOptions& o = groups[i].options;
    check_group("Adagrad", o);
    options_.push_back(o);
    add_group(i, groups[i].parameters);
  }
}

std::vector<Tensor> Adagrad::init(const Tensor& parameter, std::size_t group) const {
  return {full(parameter.shape(), options_[group].initial_accumulator, parameter.options())};
}

void Adagrad::update(const Slot& slot, std::size_t group) const {
  const AdagradOptions& o = options_[group];
  UpdateOptions u;
  u.lr = o.lr * slot.lr_factor() / (1 + static_cast<double>(slot.step() - 1) * o.lr_decay);
  u.weight_decay = o.weight_decay;
  u.eps = o.eps;
  slot.fused<AdagradRule>(u);
}

Adam::Adam(std::vector<Group<AdamOptions>> groups, bool decoupled) : Optimizer(groups.size()), decoupled_(decoupled) {
  const std::string_view op = decoupled ? "AdamW" : "Adam";
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const AdamOptions& o = groups[i].options;
    check_group(op, o);
    options_.push_back(o);
    add_group(i, groups[i].parameters);
  }
}

std::vector<std::string> Adam::state_names(std::size_t group) const {
  if (options_[group].amsgrad) return {"m", "v", "v_max"};
  return {"m", "v"};
}

void Adam::update(const Slot& slot, std::size_t group) const {
  const AdamOptions& o = options_[group];
  UpdateOptions u;
  const auto t = static_cast<double>(slot.step());
  u.lr = o.lr * slot.lr_factor();
  u.weight_decay = o.weight_decay;
  u.decoupled_decay = decoupled_;
  u.beta1 = o.beta1;
  u.beta2 = o.beta2;
  u.eps = o.eps;
  u.correction1 = 1 - std::pow(o.beta1, t);
  u.correction2 = 1 - std::pow(o.beta2, t);
  if (o.amsgrad) slot.fused<AmsgradRule>(u);
  else slot.fused<AdamRule>(u);
}

namespace {
std::vector<Group<AdamOptions>> as_adam(const std::vector<Group<AdamWOptions>>& groups) {
  std::vector<Group<AdamOptions>> out;
  for (const auto& group : groups) out.push_back({group.parameters, group.options});
  return out;
}
}  // namespace

AdamW::AdamW(const std::vector<Group<AdamWOptions>>& groups) : Adam(as_adam(groups), true) {}

Schedule constant_schedule(double factor) {
  check_settings("constant_schedule", {{"factor", factor}});
  return [factor](std::int64_t) { return factor; };
}

Schedule step_schedule(std::int64_t every, double factor) {
  check(every > 0, "step_schedule", "every ", every, " steps");
  check_settings("step_schedule", {{"factor", factor}});
  return [=](std::int64_t step) { return std::pow(factor, static_cast<double>(step / every)); };
}

Schedule cosine_schedule(std::int64_t total, double last) {
  check(total > 0, "cosine_schedule", "over ", total, " steps");
  check_settings("cosine_schedule", {{"last", last}});
  return [=](std::int64_t step) {
    const double at = std::min(1.0, static_cast<double>(step) / static_cast<double>(total));
    return last + (1 - last) * (1 + std::cos(std::numbers::pi * at)) / 2;
  };
}

Schedule warmup_schedule(std::int64_t warmup, Schedule after) {
  check(warmup >= 0, "warmup_schedule", "over ", warmup, " steps");
  check(after != nullptr, "warmup_schedule", "after: expected a schedule, got an empty function");
  return [=](std::int64_t step) {
    return step < warmup ? static_cast<double>(step + 1) / static_cast<double>(warmup) : after(step - warmup);
  };
}

}  // namespace stet::optim
