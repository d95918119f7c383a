// Progress on a terminal: one rewritten line with the time left on stderr, and nothing at all where stderr is
// a file or a pipe.
#pragma once

#include <chrono>
#include <string_view>

namespace stet::continual {

class ProgressLine {
 public:
  ProgressLine();
  /// Wipes the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// `done`: share of all work, 0..1. Rewrites the line ten times a second at most.
  void update(double done, std::string_view text);
  void wipe();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_, shown_ = false;
  Clock::time_point start_, last_;
};

}  // namespace stet::continual
