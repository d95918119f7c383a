// Errors: the library throws and never aborts. A message reads "[operation] what was found: what was
// expected". Its parts are formatted only when the check fails.
#pragma once

#include <cmath>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace stet {

/// Wrong use or wrong input. The message names the operation and the shapes, file, key or offset concerned.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The device has no memory left for a request. The program can go on: nothing was changed.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// A broken promise inside the library itself.
class BugError : public Error {
 public:
  using Error::Error;
};

template <class E = Error, class... Parts> [[noreturn]] void fail(std::string_view op, const Parts&... parts) {
  std::ostringstream out;
  out << '[' << op << "] ";
  (out << ... << parts);
  throw E(out.str());
}

template <class... Parts> void check(bool ok, std::string_view op, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(op, parts...);
}

/// Settings that have to be finite and not negative, as {{"lr", options.lr}, ...}. `where` says whose they are.
inline void check_settings(std::string_view op, std::initializer_list<std::pair<std::string_view, double>> settings,
                           std::string_view where = {}) {
  for (const auto& [name, value] : settings)
    check(value >= 0 && std::isfinite(value), op, name, ' ', value, where, ": expected a finite number, 0 or more");
}

}  // namespace stet
