#!/usr/bin/env bash
# From a fresh clone to a network that forgets, and one that does not: bash examples/quickstart.sh
# Missing Debian packages are installed first; then the two examples are built and run. Needs no arguments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source tests/support/packages.sh
install_missing_packages
cmake --preset release
cmake --build --preset release -j"$(nproc)" --target examples_forgetting_sample examples_split_fashion_mnist

echo
build/release/examples/forgetting_sample
echo
build/release/examples/split_fashion_mnist
