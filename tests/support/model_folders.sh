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
  has "$printed" "30 steps of 4 sequences are"
  has "$printed" "after 15 of 30 steps: domain "
  grep -qE 'learned \+0\.[0-9]+ ± 0\.[0-9]+' <<<"$printed" || fail "$model: no standard error: $printed"
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

  # A run that was stopped, whenever it was, ends with the bits of one that was not.
  for method in lora top; do
    tune $model $model.whole.$method --method $method --replay 0.25 >/dev/null
    has "$(tune $model $model.parts.$method --method $method --replay 0.25 --stop-after 10)" "stopped after 10 of 30 steps"
    has "$(tune $model $model.parts.$method --method $method --replay 0.25 --stop-after 19)" "goes on after 10 of 30"
    has "$(tune $model $model.parts.$method --method $method --replay 0.25)" "goes on after 19 of 30 steps"
    for file in "$folder/$model.whole.$method"/*.safetensors "$folder/$model.whole.$method/finetune.json"; do
      cmp "$file" "$folder/$model.parts.$method/${file##*/}" || fail "$model, $method: ${file##*/} differs"
    done
    [ ! -e "$folder/$model.parts.$method/unfinished.safetensors" ] || fail "$model: the run is kept beside its result"
  done
done
has "$(cat "$folder/llama.adapter/adapter_config.json")" "\"base_model_name_or_path\": \"$folder/llama\""
has "$(cat "$folder/llama.adapter/adapter_config.json")" '"task_type": "CAUSAL_LM"'
has "$(cat "$folder/llama.adapter/finetune.json")" '"method": "lora", "rank": 4, "merged": false'
note="note: the adapter was made for $folder/llama, not for $folder/llama.full"
has "$(text llama.full --adapter "$folder/llama.adapter" 2>&1)" "$note"
grep -q "note:" <<<"$(text llama --adapter "$folder/llama.adapter" 2>&1)" && fail "a note on the adapter's own base"

refused() {  # EXPECTED command: must fail, and say why
  local problem
  problem=$("${@:2}" 2>&1) && fail "no error: ${*:2}"
  has "$problem" "$1"
}
files=(--general "$folder/prose.txt" --out "$folder/x")
refused "none.txt" "$finetune" "$folder/llama" --text "$folder/none.txt" "${files[@]}" --length 32
refused "the model has 40 positions" "$finetune" "$folder/llama" --text "$folder/sources.txt" "${files[@]}" --length 41
refused "the model's own folder" tune llama llama
refused "$folder/none: no such file or folder" tune none x
refused "$folder/none: no such file or folder" text none
refused "--rate: found inf, expected a finite number, 0 or more" tune llama x --rate inf
refused "--seed: found -3, expected a whole number" tune llama x --seed -3
refused "--seed: found -3, expected a whole number" text llama --seed -3
refused "--seed: found 18446744073709551616, expected a whole number" text llama --seed 18446744073709551616
refused "--out is empty" "$finetune" "$folder/llama" --text x --general x --out ""
refused "--replay" tune llama x --replay nan
refused "--steps" tune llama x --steps 99999999999999999999
refused "--rank is of --method lora, found full" tune llama x --method full --rank 4
refused "--merge is of --method lora, found top" tune llama x --method top --merge
refused "--top is of --method top, found lora" tune llama x --top 1
refused "--seed says how to draw tokens" text llama --seed 3
echo "a few words, and then not many more" >"$folder/short.txt"
refused "tokens, expected 32 at least, one sequence (--length)" "$finetune" "$folder/llama" \
  --text "$folder/short.txt" "${files[@]}" --length 32
cp "$folder/prose.txt" "$folder/copy.txt"
for same in prose copy; do
  refused "are the same text" "$finetune" "$folder/llama" --text "$folder/$same.txt" "${files[@]}" --length 32
done
{ printf '%%PDF-1.7\n'; cat "$folder/sources.txt"; } >"$folder/document.txt"
refused "document.txt: found a PDF" "$finetune" "$folder/llama" --text "$folder/document.txt" "${files[@]}" --length 32
[ ! -e "$folder/x" ] || [ -z "$(ls -A "$folder/x")" ] || fail "something was written: $(ls "$folder/x")"
tune llama stopped --stop-after 3 >/dev/null
refused "found a run that was stopped with other settings" tune llama stopped --rank 3
refused "seed 2" tune llama stopped --seed 2
# What this program has not written is not replaced.
cp -r "$folder/gpt2" "$folder/another"
refused "which would be replaced, but no finetune.json" tune llama another --method full
cmp "$folder/gpt2/model.safetensors" "$folder/another/model.safetensors" || fail "another model was overwritten"
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
