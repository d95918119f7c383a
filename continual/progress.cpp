// The rewritten line.
#include <stet/continual/progress.h>

#include <unistd.h>

#include <cstdio>
#include <string>

namespace stet::continual {

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) != 0), start_(Clock::now()) {}
ProgressLine::~ProgressLine() { wipe(); }

void ProgressLine::wipe() {
  if (shown_) std::fputs("\r\033[K", stderr);
  shown_ = false;
}

void ProgressLine::update(double done, std::string_view text) {
  const auto now = Clock::now();
  if (!terminal_ || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  shown_ = true;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const std::string line(text.substr(0, 60));  // a line that wraps could not be rewritten
  std::fprintf(stderr, "\r\033[K%3.0f %%  %s", 100 * done, line.c_str());
  if (done > 0.01) std::fprintf(stderr, "  %.0f s left", elapsed * (1 - done) / done);
  std::fflush(stderr);
}

}  // namespace stet::continual
