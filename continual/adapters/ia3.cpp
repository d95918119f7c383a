// One product with a vector, before the layer or after it.
#include <stet/continual/adapters/ia3.h>

namespace stet::continual {

Tensor Ia3::adapted(const Tensor& x) {
  const Tensor l = for_each_entry(ia3_l, x);
  return feedforward_ ? base().plain(x * l) : base().plain(x) * l;
}

Merged Ia3::merged() const {
  const NoGrad no_grad;
  const Tensor bias = base_bias();
  return {base().weight * ia3_l, bias.defined() && !feedforward_ ? bias * flatten(ia3_l) : bias};
}

}  // namespace stet::continual
