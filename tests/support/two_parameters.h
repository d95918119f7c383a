// What the optimizers' tests train.
#pragma once

#include <stet/nn/module.h>

#include "support/samples.h"

namespace stet::test {

struct TwoParameters : nn::Module {
  nn::Parameter a{this, "a", spread({4, 6}, -1, 1, 0)};
  nn::Parameter b{this, "b", spread({5}, -1, 1, 1)};
};

}  // namespace stet::test
