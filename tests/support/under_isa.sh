#!/usr/bin/env bash
# Runs a program with its kernels for one instruction set: under_isa.sh v2|v3|v4|generic PROGRAM ARGUMENT...
# Ends with 77 (CTest: skipped) where the processor does not have it.
set -euo pipefail
isa=$1
shift
case $isa in
  v2) needed="sse4_2 ssse3 popcnt" ;;
  v3) needed="avx2 fma bmi2 f16c" ;;
  v4) needed="avx512f avx512bw avx512cd avx512dq avx512vl" ;;
  *) needed="" ;;
esac
for flag in $needed; do
  grep -qw "$flag" /proc/cpuinfo || { echo "skipped: this processor does not have $flag"; exit 77; }
done
STET_ISA=$isa exec "$@"
