#!/usr/bin/env bash
# Benchmarks beside PyTorch: bench/run.sh (cases 1 to 8), bench/run.sh transformers (9 to 13), or some cases:
# bench/run.sh [--rounds N] [--seconds S] [--threads 1 2 --] case ...
# Builds stet, installs the peer in a virtual environment under build/, alternates both sides in one run and prints
# median ratios (time of the peer / time of stet). The first two write bench/results/ and their table in
# docs/performance.md; some cases go to build/bench.json, so that a part never takes the place of the whole.
# LLMC=PROGRAM and LLAMA2C=PROGRAM add llm.c's train_gpt2 to case 9 and llama2.c's run to case 12.
set -euo pipefail
# Paths are the caller's; a name without a slash is looked up in PATH. No links are followed: a virtual environment's
# python is one.
absolute() { case $1 in /* | "") echo "$1" ;; */*) echo "$PWD/$1" ;; *) echo "$1" ;; esac; }
python=$(absolute "${PYTHON:-}")
export LLMC LLAMA2C
LLMC=$(absolute "${LLMC:-}") LLAMA2C=$(absolute "${LLAMA2C:-}")
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
source tests/support/packages.sh
install_missing_packages
has_peer() { "$1" -c 'import torch, numpy, safetensors, transformers, peft' 2>/dev/null; }
install_peer() {
  echo "installing PyTorch, transformers, PEFT, numpy and safetensors in build/peer"
  rm -rf build/peer
  python3 -m venv build/peer && build/peer/bin/pip install --quiet torch numpy safetensors transformers peft || {
    echo "not to be had from the package index: using the system's own" >&2
    rm -rf build/peer
    python=python3
  }
}
if [ -z "$python" ]; then
  python=build/peer/bin/python
  mkdir -p build
  exec {lock}>build/peer.lock  # a second run waits here while the first installs
  flock "$lock"
  has_peer "$python" || install_peer  # not there, or an installation that was broken off
  exec {lock}>&-
fi
has_peer "$python" || { echo "$python has no torch, numpy, safetensors, transformers and peft: name another with PYTHON=…" >&2; exit 1; }
cmake --preset release >/dev/null
cmake --build --preset release --target bench_cases -j"$(nproc)"
"$python" bench/compare_test.py --quiet
mark=table out=bench/results/cpu.json
case "${1:-}" in
  "") set -- 1 2 3 4 5 6 7 8 ;;
  transformers) shift; mark=transformers out=bench/results/transformers.json; set -- "$@" -- 9 10 11 12 13 ;;
  *) mark= out=build/bench.json ;;
esac
out=${STET_BENCH_OUT:-$out}
"$python" bench/compare.py --program build/release/bench/cases --out "$out" "$@"
[ -z "$mark" ] || "$python" bench/table.py "$out" docs/performance.md "$mark"
