// Elastic weight consolidation (Kirkpatrick et al. 2017): lambda / 2 sum_i F_i (theta_i - theta*_i)^2 with
// the Fisher diagonal F of each earlier task, inside the optimizer's update.
#pragma once

#include <stet/continual/importance.h>

namespace stet::continual {

struct EwcOptions {
  double lambda = 400;
  bool online = false;  ///< one running F <- gamma F + F_task, and the last anchor (Schwarz et al. 2018)
  double gamma = 1;
  FisherOptions fisher = {};
};

class Ewc final : public Strategy {
 public:
  explicit Ewc(EwcOptions options = {}) : options_(options) {
    check_settings("Ewc", {{"lambda", options.lambda}, {"gamma", options.gamma}});
    check_options(options.fisher);
  }
  std::string name() const override { return options_.online ? "online ewc" : "ewc"; }
  std::vector<std::string> claims() const override { return {"penalty 'ewc'"}; }
  void begin_task(Context& context) override;
  void end_task(Context& context) override;
  nn::State state() const override { return saved_; }
  void load(const nn::State& state) override;

 private:
  EwcOptions options_;
  nn::State saved_;  // "task 0/importance/fc1.weight", "task 0/anchor/fc1.weight", ...
};

}  // namespace stet::continual
