// A parameterisation: from some task on an adapter learns and the model stays as it is.
#pragma once

#include <algorithm>

#include <stet/continual/adapters/adapters.h>

namespace stet::continual {

struct AdaptOptions {
  int from_task = 0;        ///< the adapter is attached before this task
  bool freeze_base = true;  ///< from then on
};

/// Attaches an adapter when its task begins. To resume a run after that, attach it before the optimizer is made and
/// before Learner::load.
class Adapt final : public Strategy {
 public:
  Adapt(Adapters& adapters, std::string adapter, AdapterOptions kind, AdaptOptions options = {})
      : adapters_(adapters), adapter_(std::move(adapter)), kind_(std::move(kind)), options_(options) {}
  std::string name() const override { return "adapter '" + adapter_ + "'"; }
  void begin_task(Context& context) override {
    if (context.task < options_.from_task) return;
    const auto there = adapters_.names();
    if (std::find(there.begin(), there.end(), adapter_) == there.end()) adapters_.attach(adapter_, kind_);
    if (options_.freeze_base) adapters_.freeze_base();
    const auto known = context.optimizer.parameters();
    for (nn::Parameter* p : adapters_.parameters(adapter_))
      if (std::find(known.begin(), known.end(), p) == known.end()) context.optimizer.add_parameters({p});
  }

 private:
  Adapters& adapters_;
  std::string adapter_;
  AdapterOptions kind_;
  AdaptOptions options_;
};

}  // namespace stet::continual
