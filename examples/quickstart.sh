#!/usr/bin/env bash
# From a fresh clone to a network that forgets, and one that does not: bash examples/quickstart.sh
# Missing Debian packages are installed first; then the two examples are built and run. Needs no arguments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source tests/support/packages.sh
install_missing_packages
cmake --preset release
cmake --build --preset release -j"$(nproc)" --target \
  examples_forgetting_sample examples_split_fashion_mnist examples_custom_strategy

echo
echo "--- forgetting_sample: freeze a backbone, train a new head"
build/release/examples/forgetting_sample
echo
echo "--- split_fashion_mnist: five tasks, one after the other, about a minute"
build/release/examples/split_fashion_mnist --out build/release/quickstart
echo
echo "Next: build/release/examples/custom_strategy, a strategy of your own in under 40 lines (examples/custom_strategy.cpp);"
echo "docs/continual.md explains what it can do and when it is called."
