#!/usr/bin/env bash
# Fails on shared inline code in the kernels' object files: symbols.sh ISA OBJECT... | symbols.sh --selfcheck COMPILER
# The linker keeps one copy of each weak symbol; were it the AVX-512 one, everyone would run it, or crash on it.
set -euo pipefail

# Weak (W, V) or unique (u) symbols that are defined here and do not carry the instruction set in their name.
# DW.ref.* is a pointer to a runtime routine: data, the same in every copy.
shared_symbols() {
  local isa=$1
  shift
  nm -C --defined-only "$@" | grep -E '^[0-9a-fA-F]+ [WVu] ' | grep -vE "::${isa}::|DW\.ref\." || true
}

if [ "$1" = --selfcheck ]; then
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  printf '%s\n' 'namespace stet::v3 { template <class T> T mine(T x) { return x + 1; } template int mine(int); }' >"$dir/good.cpp"
  printf '%s\n' 'namespace stet { template <class T> T shared(T x) { return x + 1; } template int shared(int); }' >"$dir/bad.cpp"
  for name in good bad; do "$2" -c "$dir/$name.cpp" -o "$dir/$name.o"; done
  [ -z "$(shared_symbols v3 "$dir/good.o")" ] || { echo "selfcheck: a symbol of v3 itself is reported"; exit 1; }
  [ -n "$(shared_symbols v3 "$dir/bad.o")" ] || { echo "selfcheck: a shared symbol is missed"; exit 1; }
  exit 0
fi

isa=$1
shift
[ $# -gt 0 ] || { echo "no object files given"; exit 1; }
found=$(shared_symbols "$isa" "$@")
if [ -n "$found" ]; then
  echo "kernels for $isa define shared inline code (put it in an anonymous or ::$isa:: namespace, or make it STET_HD):"
  echo "$found" | sort -u | head -40
  exit 1
fi
