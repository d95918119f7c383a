#!/usr/bin/env bash
# Benchmarks beside PyTorch: bench/run.sh [--rounds N] [--seconds S] [--threads 1 2 --] [case ...]
# Builds stet, installs the peer in a virtual environment under build/, alternates both sides in one run and prints
# median ratios (time of PyTorch / time of stet). Results: bench/results/cpu.json.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
source tests/support/packages.sh
install_missing_packages
python=${PYTHON:-}
if [ -z "$python" ]; then
  environment=build/peer
  if [ ! -x "$environment/bin/python" ]; then
    echo "installing PyTorch, numpy and safetensors in $environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet torch numpy safetensors || {
      echo "not to be had from the package index: using Debian's python3-torch" >&2
      rm -rf "$environment"
      environment=
      python=python3
    }
  fi
  python=${python:-$environment/bin/python}
fi
cmake --preset release >/dev/null
cmake --build --preset release --target bench_cases
out=${STET_BENCH_OUT:-bench/results/cpu.json}
"$python" bench/compare.py --program build/release/bench/cases --out "$out" "$@"
[ $# -gt 0 ] || "$python" bench/table.py "$out" docs/performance.md
