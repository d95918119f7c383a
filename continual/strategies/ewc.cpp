// EWC: importance and anchors at the ends of tasks; the penalty itself is the optimizer's.
#include <stet/continual/strategies/ewc.h>

namespace stet::continual {

void Ewc::end_task(Context& context) {
  const std::string slot = options_.online ? "online" : "task " + std::to_string(context.task);
  for (const auto& [path, fresh] : fisher_diagonal(context, context.train(), options_.fisher)) {
    Tensor& sum = saved_[slot + "/importance/" + path];
    sum = options_.online && sum.defined() ? sum * options_.gamma + fresh : fresh;
    saved_[slot + "/anchor/" + path] = context.model.parameter(path).value().clone();
  }
}

void Ewc::begin_task(Context& context) {
  if (saved_.empty()) return check_fisher(context, options_.fisher);
  std::map<std::string, optim::QuadraticPenalty> penalties;
  for (const auto& [key, value] : saved_) {
    const std::size_t a = key.find('/'), b = key.find('/', a + 1);
    auto& penalty = penalties.try_emplace(key.substr(0, a), optim::QuadraticPenalty{options_.lambda}).first->second;
    (key.substr(a + 1, b - a - 1) == "importance" ? penalty.importance : penalty.anchor)[key.substr(b + 1)] = value;
  }
  for (auto& [slot, penalty] : penalties) context.optimizer.set_penalty("ewc " + slot, std::move(penalty));
}

/// Importance and anchor come in pairs: without its anchor a parameter would be free to go.
void Ewc::load(const nn::State& state) {
  for (const auto& [key, value] : state) {
    const std::size_t a = key.find('/'), b = key.find('/', a + 1);
    const std::string kind = b == std::string::npos ? "" : key.substr(a + 1, b - a - 1);
    check(kind == "importance" || kind == "anchor", "ewc", "unexpected state '", key, "'");
    const std::string other = key.substr(0, a) + (kind == "anchor" ? "/importance" : "/anchor") + key.substr(b);
    check(state.contains(other) && state.at(other).shape() == value.shape(), "ewc", "'", key, "' ", value.shape(),
          " has no '", other, "' of its shape");
  }
  saved_ = state;
}

}  // namespace stet::continual
