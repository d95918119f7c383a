// EWC: importance and anchors at the ends of tasks; the penalty itself is the optimizer's.
#include <stet/continual/strategies/ewc.h>
#include <stet/tensor/error.h>

namespace stet::continual {

void Ewc::end_task(Context& context) {
  nn::State fresh = fisher_diagonal(context, context.train(), options_.fisher);
  const std::string slot = options_.online ? "online" : "task " + std::to_string(context.task);
  for (const nn::Parameter* p : context.model.trainable_parameters()) {
    Tensor& sum = saved_[slot + "/importance/" + p->path()];
    sum = options_.online && sum.defined() ? sum * options_.gamma + fresh[p->path()] : fresh[p->path()];
    saved_[slot + "/anchor/" + p->path()] = p->value().clone();
  }
}

void Ewc::begin_task(Context& context) {
  std::map<std::string, optim::QuadraticPenalty> penalties;
  for (const auto& [key, value] : saved_) {
    const std::size_t a = key.find('/'), b = key.find('/', a + 1);
    check(b != std::string::npos, "ewc", "state key '", key, "'");
    optim::QuadraticPenalty& penalty = penalties[key.substr(0, a)];
    penalty.strength = options_.lambda;
    (key.substr(a + 1, b - a - 1) == "importance" ? penalty.importance : penalty.anchor)[key.substr(b + 1)] = value;
  }
  for (auto& [slot, penalty] : penalties) context.optimizer.set_penalty("ewc " + slot, std::move(penalty));
}

}  // namespace stet::continual
