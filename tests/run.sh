#!/usr/bin/env bash
# Builds stet and runs the whole test suite: bash tests/run.sh [preset] (release, debug, asan, tsan).
# Missing Debian packages are installed first. A run in which no test was executed is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:-release}

source tests/support/packages.sh
install_missing_packages
STET_PACKAGES=(libsentencepiece-dev)  # optional for the library, but its tests should run
install_missing_packages || echo "tests/run.sh: goes on without libsentencepiece-dev, and without the tests that need it"
cmake --preset "$preset"
cmake --build --preset "$preset" -j"$(nproc)"

# Where nvcc is, the real CUDA backend is compiled and linked too, for one architecture; running it takes a GPU. In a
# folder of its own: what is left out here would be left out of build/cuda, too.
if [ "$preset" = release ] && command -v nvcc >/dev/null; then
  cmake --preset cuda -B build/cuda_links -DSTET_BUILD_TESTS=OFF -DSTET_BUILD_BENCH=OFF -DCMAKE_CUDA_ARCHITECTURES=90-virtual >/dev/null
  cmake --build build/cuda_links -j"$(nproc)" --target examples_split_fashion_mnist
  echo "tests/run.sh: the CUDA backend compiles and links with nvcc"
fi

log=build/$preset/ctest.log
ctest --preset "$preset" --output-on-failure -j2 2>&1 | tee "$log"  # pipefail keeps ctest's own status
executed=$(grep -c ' Passed ' "$log" || true)
if [ "$executed" -eq 0 ]; then
  echo "tests/run.sh: no test was executed" >&2
  exit 1
fi
echo "tests/run.sh: $executed test programs passed ($preset)"
