// What an action complains about.
#pragma once

#include <string>

#include <stet/tensor/error.h>
#include <stet/tensor/kernels.h>

namespace stet::test {

/// Waits for the device under test: what its kernels complain of is thrown then.
inline void settle() { kernels(default_device()).sync(); }

/// The message of the Error that `action` throws, or "no error".
template <class Action> std::string message_of(Action&& action) {
  try {
    action();
    settle();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace stet::test
