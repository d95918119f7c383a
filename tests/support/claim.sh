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
few=(--quick --seeds 2)
printed=$("$program" "${few[@]}" "${texts[@]}")
for word in "$@"; do
  grep -qF -- "$word" <<<"$printed" || { echo "missing in the output: $word" >&2; echo "$printed" >&2; exit 1; }
done
if grep -qiwE 'nan|inf' <<<"$printed"; then echo "not a number: $printed" >&2; exit 1; fi

alone=$("$program" --quick "${texts[@]}")
grep -q '^One seed has no spread, so nothing is concluded from it' <<<"$alone" || { echo "one seed: $alone" >&2; exit 1; }
if grep -q clearly <<<"$alone"; then echo "a conclusion from one seed: $alone" >&2; exit 1; fi

[ ${#texts[@]} -gt 0 ] || exit 0
again=$("$program" "${few[@]}" "${texts[@]}")  # the pretrained model comes from the cache: the same bits
[ "$again" = "$printed" ] || { diff <(echo "$printed") <(echo "$again") >&2; exit 1; }
case $(basename "$program") in
  interference)
    printed=$("$program" "${few[@]}" "${texts[@]}" --steps 2)
    grep -q 'correlation over intervals is –: fewer than three' <<<"$printed" || { echo "$printed" >&2; exit 1; } ;;
  where_it_happens)  # two texts without a common byte: what two steps forget is in the table of the output
    mkdir "$folder/apart"
    seq 1 40000 | tr 0-9 a-j >"$folder/apart/general_fortunes.txt"
    seq 1 40000 | tr 0-9 k-t >"$folder/apart/technical_manual.txt"
    printed=$("$program" "${few[@]}" --text "$folder/apart" --steps 2)
    grep -q 'outside the last layer does not show here' <<<"$printed" || { echo "$printed" >&2; exit 1; } ;;
esac
problem=$("$program" --quick --text "$folder/none" 2>&1) && { echo "missing texts are no error" >&2; exit 1; }
grep -q 'none/.*\.txt' <<<"$problem"
problem=$("$program" --quick --text "$folder" --cache "$folder/french_manual.txt" 2>&1) &&
  { echo "a cache that is a file is no error" >&2; exit 1; }
grep -q '^\[make_folder\] .*french_manual\.txt' <<<"$problem"
[ -e /dev/full ] || exit 0
problem=$("$program" --quick "${texts[@]}" 2>&1 >/dev/full) && { echo "a full disk is no error" >&2; exit 1; }
grep -q 'could not all be written' <<<"$problem"
