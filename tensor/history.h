// What tensor/ has to know about autograd: a tensor may carry a history, histories are destroyed without
// recursion, and recording can be switched off for a scope.
#pragma once

#include <stet/tensor/ref.h>

namespace stet {

/// Base of autograd's graph nodes (autograd/node.h).
class History : public RefCounted {
 public:
  virtual ~History() = default;
};

/// Destroys a history and whatever it alone kept alive, with a work list instead of recursion: a chain of a
/// million nodes needs no stack.
void dispose(History* history);

/// Whether operations on this thread record history. True by default.
bool grad_enabled();

/// Switches recording on or off for a scope on this thread.
class GradMode {
 public:
  explicit GradMode(bool enabled);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool before_;
};

/// No operation in this scope records history: evaluation, optimizers, in-place writes.
class NoGrad : GradMode {
 public:
  NoGrad() : GradMode(false) {}
};

}  // namespace stet
