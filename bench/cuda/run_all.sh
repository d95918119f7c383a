#!/usr/bin/env bash
# Everything that a GPU machine is asked once: builds, parity, the whole suite on the device, compute-sanitizer,
# benchmarks. bash bench/cuda/run_all.sh [DIRECTORY] writes cuda.json and cuda.md there (build/cuda_report).
# Downloads nothing: the machine must have nvcc with cuBLAS, cmake, ninja, g++, python3 and these Debian packages,
# which may be brought as .deb files (apt-get download NAME; dpkg -i *.deb):
#   libopenblas-dev libopenblas-pthread-dev libopenblas0-pthread catch2 nlohmann-json3-dev zlib1g-dev libutf8proc-dev
# PyTorch's figures stand beside stet's where $PYTHON (python3) can import torch with CUDA.
# PRESET=release runs the same on the simulated device, with small sizes: does the script work?
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
preset=${PRESET:-cuda}
out=$(realpath -m "${1:-build/cuda_report}")
python=${PYTHON:-python3}
mkdir -p "$out"
: >"$out/checks.txt"

# check NAME COMMAND...: runs it, notes how it ended and how long it took, and goes on.
check() {
  local name=$1 start=$SECONDS status=0
  shift
  echo "--- $name"
  "$@" >"$out/$name.log" 2>&1 || status=$?
  echo "$name $status $((SECONDS - start))" >>"$out/checks.txt"
  [ "$status" -eq 0 ] || tail -5 "$out/$name.log"
}

build() {
  local options=()
  [ "$preset" = release ] || options=(-DCMAKE_CUDA_ARCHITECTURES=native)
  cmake --preset "$preset" -DSTET_BUILD_EXAMPLES=OFF "${options[@]}"
  cmake --build --preset "$preset" -j"$(nproc)" --target stet_tests bench_cuda_kernels
}
tests=build/$preset/stet_tests
on_device() { STET_TEST_DEVICE=cuda "$tests" "~[threads]" "~[deep]" "$@"; }
# The sanitizer's tools slow a program down a hundredfold: one test of each kind of kernel.
sanitized() {
  local tool=$1
  command -v compute-sanitizer >/dev/null || return 77
  compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" --filenames-as-tags "[#step_test]"
  compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" "[parity]"
}
{
  uname -m
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null || echo "no GPU"
  nvcc --version 2>/dev/null | tail -1
  git describe --always --dirty 2>/dev/null || true
} >"$out/machine.txt"

check build build
check parity "$tests" "[parity]"
check step "$tests" --filenames-as-tags "[#step_test]"
check suite on_device
if [ "$preset" != release ]; then
  for tool in memcheck racecheck initcheck synccheck; do check "$tool" sanitized "$tool"; done
fi
quick=()
[ "$preset" != release ] || quick=(--quick)
check bench bash -c "build/$preset/bench/cuda_kernels ${quick[*]} >'$out/stet.jsonl'"
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  check torch bash -c "'$python' bench/cuda/peer.py >'$out/torch.jsonl'"
fi
python3 bench/cuda/report.py "$out"
! grep -qvE ' (0|77) [0-9]+$' "$out/checks.txt"
