// All of stet in one include.
#pragma once

#include <stet/autograd/dot.h>
#include <stet/autograd/engine.h>
#include <stet/autograd/gradcheck.h>
#include <stet/autograd/ops.h>
#include <stet/autograd/squared.h>
#include <stet/continual/progress.h>
#include <stet/continual/report.h>
#include <stet/continual/strategies/baselines.h>
#include <stet/continual/strategies/ewc.h>
#include <stet/continual/strategies/replay.h>
#include <stet/data/idx.h>
#include <stet/data/images.h>
#include <stet/data/loader.h>
#include <stet/nn/init.h>
#include <stet/nn/layers.h>
#include <stet/nn/losses.h>
#include <stet/nn/module.h>
#include <stet/nn/safetensors.h>
#include <stet/optim/optimizers.h>
#include <stet/tensor/error.h>
#include <stet/tensor/random.h>
#include <stet/tensor/tensor.h>
#include <stet/tensor/threads.h>
