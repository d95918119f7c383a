// What is no number any more: training has failed, and going on would only cost time.
#pragma once

#include <cmath>

#include <stet/tensor/error.h>

namespace stet::continual {

/// The loss of a step is NaN or infinite, and so are the model's parameters, or soon will be; or a task has left them
/// so. A sweep whose settings may diverge catches this and goes on with the next one.
class Diverged : public Error {
 public:
  using Error::Error;
};

/// Throws Diverged where `loss` is no finite number. The message is "[op] where: the loss is nan: ...".
template <class... Parts> void check_loss(double loss, std::string_view op, const Parts&... where) {
  if (!std::isfinite(loss)) [[unlikely]]
    fail<Diverged>(op, where..., ": the loss is ", std::isnan(loss) ? std::abs(loss) : loss,
                   ": training has diverged: most often the learning rate is too high, or an input is not finite");
}

}  // namespace stet::continual
