// (IA)^3: learned factors on activations (Liu et al. 2022, section 3.3).
#pragma once

#include <stet/continual/adapters/adapter.h>

namespace stet::continual {

/// PEFT's target_modules are `targets` and `feedforward` together.
struct Ia3Options {
  std::vector<std::string> targets = {};      ///< globs over linear layers whose output is scaled: "*k_proj", "*v_proj"
  std::vector<std::string> feedforward = {};  ///< those whose input is: "*down_proj"
  bool fan_in_fan_out = false;                ///< as in LoraOptions
  std::vector<std::string> modules_to_save = {};  ///< the same, without ensure_weight_tying
};

/// y = l * (x W^T + b), or (l * x) W^T + b for a feed-forward layer. l starts as 1.
class Ia3 final : public LinearPiece {
 public:
  Ia3(nn::Linear& base, std::string name, std::string place, bool feedforward)
      : LinearPiece(base, std::move(name), std::move(place)),
        ia3_l(this, "ia3_l",
              ones(feedforward ? Shape{1, base.in()} : Shape{base.out(), 1}, base.weight.value().options())),
        feedforward_(feedforward) {}
  Merged merged() const override;
  Settings settings() const override { return {{"feedforward", feedforward_}}; }
  bool feedforward() const { return feedforward_; }

  nn::Parameter ia3_l;  ///< (out, 1), or (1, in) for a feed-forward layer: PEFT's shapes

 protected:
  Tensor adapted(const Tensor& x) override;

 private:
  bool feedforward_;
};

}  // namespace stet::continual
