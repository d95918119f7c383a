#!/usr/bin/env bash
# Everything that a GPU machine is asked once: builds, parity, benchmarks, the whole suite on the device,
# compute-sanitizer. bash bench/cuda/run_all.sh [DIRECTORY] writes cuda.json and cuda.md there (build/cuda_report), anew
# after every check. It ends within LIMIT (590) seconds: compute-sanitizer has what the others leave.
# Downloads nothing: the machine must have nvcc with cuBLAS, cmake, ninja, g++, python3 and these Debian packages,
# which may be brought as .deb files (apt-get download NAME; dpkg -i *.deb):
#   libopenblas-dev libopenblas-pthread-dev libopenblas0-pthread catch2 nlohmann-json3-dev zlib1g-dev libutf8proc-dev
# PyTorch's figures stand beside stet's where $PYTHON (python3) can import torch with CUDA.
# PRESET=release runs the same on the simulated device, with small sizes: does the script work?
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
out=$(realpath -m "${1:-$root/build/cuda_report}")
cd "$root"
PATH=$PATH:/usr/local/cuda/bin
export preset=${PRESET:-cuda}
export folder=build/${preset}_report_build # not the preset's own, which may have other parts left out
export tests=$folder/stet_tests
python=${PYTHON:-python3}
mkdir -p "$out"
rm -f "$out"/*.jsonl
: >"$out/checks.txt"

left() { echo $((${LIMIT:-590} > SECONDS ? ${LIMIT:-590} - SECONDS : 1)); }

# check NAME COMMAND...: runs it, notes how it ended and how long it took, and goes on. 77: it could not run.
check() {
  local name=$1 start=$SECONDS status=0
  shift
  echo "--- $name"
  timeout -k 5 "$(left)" bash -c '"$@"' check "$@" >"$out/$name.log" 2>&1 || status=$?
  echo "$name $status $((SECONDS - start))" >>"$out/checks.txt"
  python3 bench/cuda/report.py "$out" >/dev/null
  [ "$status" -eq 0 ] || tail -5 "$out/$name.log"
}

build() {
  local options=()
  [ "$preset" = release ] || options=(-DCMAKE_CUDA_ARCHITECTURES=native)
  cmake --preset "$preset" -B "$folder" -DSTET_BUILD_EXAMPLES=OFF "${options[@]}" &&
    cmake --build "$folder" -j"$(nproc)" --target stet_tests bench_cuda_kernels
}
# Tests end with 77 where there is no device: that is no success here.
on_device() { STET_TEST_DEVICE=cuda "$tests" --filenames-as-tags "$@" || return $(($? == 77 ? 1 : $?)); }
# sanitized TOOL SECONDS. The tools slow a program down a hundredfold, and some machines do not permit them.
sanitized() {
  local options=(--tool "$1" --error-exitcode 1) status=0
  [ "$1" != memcheck ] || options+=(--report-api-errors no) # running out of memory is tested
  command -v compute-sanitizer >/dev/null && [ "$2" -ge 5 ] || return 77
  STET_TEST_DEVICE=cuda timeout "$2" compute-sanitizer "${options[@]}" "$tests" --filenames-as-tags \
    '[#step_test]~"A run repeats*",[parity]' || status=$?
  ! grep -q "Device not supported" "$out/$1.log" || return 77
  [ "$status" -eq 124 ] || return "$status"
  ! grep "^========= " "$out/$1.log" | grep -qv COMPUTE-SANITIZER || return 1
  echo "no errors, but $2 seconds were too few for all"
  return 77
}
export out
export -f build on_device sanitized
{
  uname -m
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null || echo "no GPU"
  nvcc --version 2>/dev/null | tail -1 || echo "no nvcc on the PATH"
  git describe --always --dirty 2>/dev/null || true
} >"$out/machine.txt"

check build build
if grep -q '^build 0 ' "$out/checks.txt"; then # an older program says nothing about this tree
  check parity on_device "[parity]"
  check step on_device "[#step_test]"
  quick=()
  [ "$preset" != release ] || quick=(--quick)
  check bench bash -c "$folder/bench/cuda_kernels ${quick[*]} >'$out/stet.jsonl'"
  if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    check torch bash -c "'$python' bench/cuda/peer.py >'$out/torch.jsonl'"
  fi
  check suite on_device "~[threads]~[deep]~[.]~[parity]~[#step_test]"
  tools=(memcheck racecheck initcheck synccheck)
  [ "$preset" != release ] || tools=()
  for i in "${!tools[@]}"; do check "${tools[i]}" sanitized "${tools[i]}" $((($(left) - 5) / (${#tools[@]} - i))); done
fi
python3 bench/cuda/report.py "$out"
! grep -qvE ' (0|77) [0-9]+$' "$out/checks.txt"
