#!/usr/bin/env bash
# Runs the domain experiment for a few steps on texts that are always here, the project's prose and its sources:
# finetune_domain.sh PROGRAM. Expects a table with all methods, the comparison, and both files.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat "$root"/docs/*.md "$root"/README.md >"$folder/prose.txt"
cat "$root"/tensor/*.cpp "$root"/autograd/*.cpp >"$folder/sources.txt"

cp "$root"/CHANGELOG.md "$folder/changes.txt"
cp "$root"/examples/README.md "$folder/general.txt"  # named as what the JSON calls the first text's loss
head -c 600 "$root"/LICENSE >"$folder/short.txt"  # its last tenth is less than a window

printed=$("$1" --text "$folder" --general prose --domain sources --others changes general --pretrain 40 --steps 8 --quick --out "$folder")
for word in "full, lr" replay EWC L2-SP "top blocks" "layer-wise lr" LoRA "(IA)³" adapters WiSE-FT "At the same gain on the domain" "trained on: changes, general."; do
  grep -qF "$word" <<<"$printed" || { echo "missing in the output: $word" >&2; echo "$printed" >&2; exit 1; }
done
grep -q '"method": "WiSE-FT"' "$folder/finetune_domain.json"
grep -q "</svg>" "$folder/finetune_domain.svg"
grep -q "</svg>" "$folder/finetune_domain_during.svg"
grep -q "\"part\": 0.25" "$folder/finetune_domain.json"
grep -qE '"part": 1, "general": [0-9.]+, "domain": [0-9.]+, "others": \{"changes": [0-9.]+, "general": [0-9.]+\}\}' "$folder/finetune_domain.json"
# Of the methods that never learn as much, what they forget at the most, as the table has it.
awk -F '  +' '
  $1 ~ /^(top blocks|layer-wise|LoRA|\(IA\)|adapters|WiSE-FT)/ && (!($1 in most) || $(NF - 1) + 0 > most[$1]) { most[$1] = $(NF - 1) + 0 }
  sub(/^Never learn as much.*at the most: /, "") {
    for (items = split($0, item, /\), /); items > 0; --items) for (method in most)
      if (index(item[items], "(" method)) { ++seen; if (item[items] + 0 != most[method]) { print "not the most: " item[items]; exit 1 } }
  }
  END { exit !seen }' <<<"$printed" >&2 || { echo "$printed" >&2; exit 1; }
if grep -qiw nan <<<"$printed"; then echo "a loss is no number" >&2; exit 1; fi

problem=$("$1" --text "$folder" --general prose --domain none --quick 2>&1) && { echo "a missing text is no error" >&2; exit 1; }
grep -q 'none.txt' <<<"$problem"
problem=$("$1" --text "$folder" --general prose --domain sources --quick 2>&1) && { echo "a short text is no error" >&2; exit 1; }
grep -q 'short.txt: its last tenth has 60 bytes' <<<"$problem"
