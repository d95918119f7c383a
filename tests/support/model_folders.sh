#!/usr/bin/env bash
# Fine-tunes small models from folders, and goes on with what was written: model_folders.sh TESTS FINETUNE GENERATE.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
tests=$1 finetune=$2 generate=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat "$root"/tensor/*.cpp >"$folder/sources.txt"
cat "$root"/docs/*.md >"$folder/prose.txt"
STET_TINY_MODELS=$folder "$tests" "[.tiny_models]" >/dev/null

fail() { echo "$*" >&2; exit 1; }
has() { grep -qF -- "$2" <<<"$1" || fail "missing '$2' in: $1"; }
tune() {  # MODEL OUT [options]: fine-tunes it for a few steps
  "$finetune" "$folder/$1" --text "$folder/sources.txt" --general "$folder/prose.txt" --out "$folder/$2" --length 32 \
    --batch 4 --windows 8 --steps 30 "${@:3}"
}
text() { "$generate" "$folder/$1" "const Tensor" --tokens 12 "${@:2}"; }

for model in llama gpt2; do
  before=$(text $model 2>/dev/null)
  has "$before" "const Tensor"
  [ "$before" = "$(text $model 2>/dev/null)" ] || fail "$model: greedy text differs from one run to the next"

  printed=$(tune $model $model.adapter --rank 4 --rate 0.03)
  has "$printed" "are trainable (lora)"
  grep -qE 'learned \+0\.[0-9]*[1-9]' <<<"$printed" || fail "$model: nothing was learned: $printed"
  [ ! -e "$folder/$model.adapter/model.safetensors" ] || fail "$model: an adapter's folder holds the base"
  adapted=$(text $model --adapter "$folder/$model.adapter" 2>/dev/null)
  [ "$adapted" != "$before" ] || fail "$model: the adapter changes nothing"

  tune $model $model.merged --rank 4 --rate 0.03 --merge >/dev/null
  [ "$(text $model.merged 2>/dev/null)" = "$adapted" ] || fail "$model: the merged model differs from the adapted one"

  has "$(tune $model $model.full --method full --rate 0.01 --replay 0.25)" "learned +"
  text $model.full >/dev/null 2>&1
  printed=$(tune $model $model.top --method top --top 1 --rate 0.01)
  has "$printed" "trainable (top)"
  text $model.top >/dev/null 2>&1
done

refused() {  # EXPECTED command: must fail, and say why
  local problem
  problem=$("${@:2}" 2>&1) && fail "no error: ${*:2}"
  has "$problem" "$1"
}
files=(--general "$folder/prose.txt" --out "$folder/x")
refused "none.txt" "$finetune" "$folder/llama" --text "$folder/none.txt" "${files[@]}" --length 32
refused "the model has 40 positions" "$finetune" "$folder/llama" --text "$folder/prose.txt" "${files[@]}" --length 41
refused "the model's own folder" tune llama llama
refused "$folder/none: no such file or folder" tune none x
refused "$folder/none: no such file or folder" text none
refused "--rate: found inf, expected a finite number, 0 or more" tune llama x --rate inf
refused "--seed: found -3, expected a whole number" tune llama x --seed -3
refused "--seed: found -3, expected a whole number" text llama --seed -3
refused "--seed: found 18446744073709551616, expected a whole number" text llama --seed 18446744073709551616
refused "--out is empty" "$finetune" "$folder/llama" --text x --general x --out ""
refused "--replay" tune llama x --replay nan
[ ! -e "$folder/x" ] || [ -z "$(ls -A "$folder/x")" ] || fail "something was written: $(ls "$folder/x")"
# Files of two kinds in one folder would be read as one of them.
refused "llama.full: found " tune llama llama.full
refused "llama.adapter: found adapter_" tune llama llama.adapter --merge
touch "$folder/gpt2.merged/tokenizer.model"
refused "gpt2.merged: found tokenizer.model" tune gpt2 gpt2.merged --merge
tune llama llama.adapter --rank 2 >/dev/null
tune llama llama.full --method full >/dev/null
refused "--top 3 of 2 blocks" tune llama x --method top --top 3
refused "learning rate 1e+30 (--rate): the loss is" tune llama diverged --rate 1e30
[ -z "$(ls -A "$folder/diverged")" ] || fail "a model that is no good was written"
refused "not in {" tune llama x --method all
refused "llama.adapter: found an adapter, expected a model" text llama.adapter
refused "adapter_config.json" text llama --adapter "$folder/gpt2"
