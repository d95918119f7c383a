// The optimizers, in order of increasing complexity. Options are those of PyTorch, with its formulas and its defaults,
// Sgd's learning rate apart. They can be changed through options() at any time; the next step() checks them again.
#pragma once

#include <stet/optim/optimizer.h>

namespace stet::optim {

struct SgdOptions {
  double lr = 1e-2, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};

/// Stochastic gradient descent; v <- mu v + (1 - dampening) g, theta <- theta - lr v.
class Sgd final : public Optimizer {
 public:
  explicit Sgd(std::vector<Group<SgdOptions>> groups);
  Sgd(const std::vector<nn::Parameter*>& parameters, SgdOptions options) : Sgd({{parameters, options}}) {}
  SgdOptions& options(std::size_t group = 0) { return options_[checked_group("options", group)]; }

 protected:
  std::vector<std::string> state_names(std::size_t group) const override;
  void update(const Slot& slot, std::size_t group) const override;
  void check_options() const override;

 private:
  std::vector<SgdOptions> options_;
};

struct AdagradOptions {
  double lr = 1e-2, lr_decay = 0, weight_decay = 0, initial_accumulator = 0, eps = 1e-10;
};

/// Adagrad (Duchi et al. 2011).
class Adagrad final : public Optimizer {
 public:
  explicit Adagrad(std::vector<Group<AdagradOptions>> groups);
  Adagrad(const std::vector<nn::Parameter*>& parameters, AdagradOptions options) : Adagrad({{parameters, options}}) {}
  AdagradOptions& options(std::size_t group = 0) { return options_[checked_group("options", group)]; }

 protected:
  std::vector<std::string> state_names(std::size_t) const override { return {"sum"}; }
  std::vector<Tensor> init(const Tensor& parameter, std::size_t group) const override;
  void update(const Slot& slot, std::size_t group) const override;
  void check_options() const override;

 private:
  std::vector<AdagradOptions> options_;
};

struct AdamOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool amsgrad = false;
};

/// Adam (Kingma & Ba 2015); weight decay is added to the gradient.
class Adam : public Optimizer {
 public:
  explicit Adam(std::vector<Group<AdamOptions>> groups) : Adam(std::move(groups), false) {}
  Adam(const std::vector<nn::Parameter*>& parameters, AdamOptions options) : Adam({{parameters, options}}) {}
  AdamOptions& options(std::size_t group = 0) { return options_[checked_group("options", group)]; }

 protected:
  Adam(std::vector<Group<AdamOptions>> groups, bool decoupled);
  std::vector<std::string> state_names(std::size_t group) const override;
  void update(const Slot& slot, std::size_t group) const override;
  void check_options() const override;

 private:
  std::vector<AdamOptions> options_;
  bool decoupled_;
};

/// Adam's, but decays unless told otherwise.
struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2;
  bool amsgrad = false;
  operator AdamOptions() const { return {lr, beta1, beta2, eps, weight_decay, amsgrad}; }
};

/// AdamW (Loshchilov & Hutter 2019); weight decay shrinks the parameter directly.
class AdamW final : public Adam {
 public:
  explicit AdamW(const std::vector<Group<AdamWOptions>>& groups);
  AdamW(const std::vector<nn::Parameter*>& parameters, AdamWOptions options = {}) : AdamW({{parameters, options}}) {}
};

// Schedules: factors on the learning rate. A factor that is negative or not finite is an Error, in step() at the
// latest.

Schedule constant_schedule(double factor = 1);
/// factor^(number of multiples of `every` passed).
Schedule step_schedule(std::int64_t every, double factor = 0.1);
/// Half a cosine from 1 to `last` over `total` steps, then `last`.
Schedule cosine_schedule(std::int64_t total, double last = 0);
/// Linear from 1 / warmup to 1 over `warmup` steps, then `after`, counted from there.
Schedule warmup_schedule(std::int64_t warmup, Schedule after = constant_schedule());

}  // namespace stet::optim
