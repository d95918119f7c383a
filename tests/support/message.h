// What an action complains about.
#pragma once

#include <string>

#include <stet/tensor/error.h>

namespace stet::test {

/// The message of the Error that `action` throws, or "no error".
template <class Action> std::string message_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace stet::test
