#!/usr/bin/env bash
# Runs a program and compares the last line that it prints: last_line.sh EXPECTED PROGRAM ARGUMENT...
set -euo pipefail
expected=$1
shift
printed=$("$@")
last=${printed##*$'\n'}
[ "$last" = "$expected" ] || { printf 'last line:\n  %s\nexpected:\n  %s\n' "$last" "$expected" >&2; exit 1; }
