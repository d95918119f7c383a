#!/usr/bin/env bash
# Runs the program of a claim for a few steps: claim.sh PROGRAM WORDS..., where WORDS stand in what it has to print. Its
# texts are some that are always here, the project's prose and its sources, under the names that it asks for.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in general_fortunes french_manual; do cat "$root"/docs/*.md "$root"/README.md >"$folder/$name.txt"; done
for name in technical_manual japanese_manual; do cat "$root"/tensor/*.cpp "$root"/autograd/*.cpp >"$folder/$name.txt"; done

texts=()
if "$program" --help | grep -q -- --text; then texts=(--text "$folder" --cache "$folder/cache"); fi
printed=$("$program" --quick "${texts[@]}")
for word in "$@"; do
  grep -qF -- "$word" <<<"$printed" || { echo "missing in the output: $word" >&2; echo "$printed" >&2; exit 1; }
done
if grep -qiwE 'nan|inf' <<<"$printed"; then echo "not a number: $printed" >&2; exit 1; fi

[ ${#texts[@]} -gt 0 ] || exit 0
again=$("$program" --quick "${texts[@]}")  # the pretrained model comes from the cache: the same bits
[ "$again" = "$printed" ] || { diff <(echo "$printed") <(echo "$again") >&2; exit 1; }
problem=$("$program" --quick --text "$folder/none" 2>&1) && { echo "missing texts are no error" >&2; exit 1; }
grep -q 'none/.*\.txt' <<<"$problem"
problem=$("$program" --quick --text "$folder" --cache "$folder/french_manual.txt" 2>&1) &&
  { echo "a cache that is a file is no error" >&2; exit 1; }
grep -q '^\[make_folder\] .*french_manual\.txt' <<<"$problem"
[ -e /dev/full ] || exit 0
problem=$("$program" --quick "${texts[@]}" 2>&1 >/dev/full) && { echo "a full disk is no error" >&2; exit 1; }
grep -q 'could not all be written' <<<"$problem"
