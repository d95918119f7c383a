#!/usr/bin/env bash
# Builds stet and runs the whole test suite: bash tests/run.sh [preset] (release, debug, asan, tsan).
# Missing Debian packages are installed first. A run in which no test was executed is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:-release}

source tests/support/packages.sh
install_missing_packages
cmake --preset "$preset"
cmake --build --preset "$preset" -j"$(nproc)"

log=build/$preset/ctest.log
ctest --preset "$preset" --output-on-failure -j2 2>&1 | tee "$log"  # pipefail keeps ctest's own status
executed=$(grep -c ' Passed ' "$log" || true)
if [ "$executed" -eq 0 ]; then
  echo "tests/run.sh: no test was executed" >&2
  exit 1
fi
echo "tests/run.sh: $executed test programs passed ($preset)"
