#!/usr/bin/env bash
# Runs the intent experiment for a few steps on a BERT of two tiny layers and on sentences made here:
# finetune_minilm.sh PROGRAM. Expects a row for each method that learned, what a frozen encoder keeps, and clear errors.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$root"/tests/golden/pretrained/bert_no_pooler/{config.json,model.safetensors} "$folder"
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' red blue green one two three a b c d e f g h i >"$folder/vocab.txt"

words=(a b c d e f g h i)
rows() { # rows FIRST SECOND COUNT: sentences of one colour and one number each
  for ((i = 0; i < $3; ++i)); do echo "$1 ${words[i % 9]} $2 ${words[(i / 3) % 9]} ${words[(i / 7) % 9]}"; done
}
{
  echo text,label
  rows red one 60 | sed 's/$/,"warm, first"/'
  rows blue two 60 | sed 's/$/,cold/'
} >"$folder/train.csv"
head -n 8 "$folder/train.csv" >"$folder/test.csv"
{ head -n 5 "$folder/train.csv"; tail -n 4 "$folder/train.csv"; } >"$folder/small.csv"
json() { rows "$1" "$2" "$4" | sed "s/.*/[\"&\", \"$3\"]/" | paste -sd,; }
echo "{\"train\": [$(json red one warm 9), $(json blue two cold 9)], \"val\": [$(json red one warm 4)]," \
  "\"test\": [$(json red one warm 4), $(json blue two cold 4)], \"oos_test\": [$(json green three oos 12)]}" >"$folder/data.json"

fail() { echo "$1" >&2; echo "$printed" >&2; exit 1; }
run() { printed=$("$program" --model "$folder" --length "$length" --out "$folder" "$@" 2>&1); }
works() { run "$@" || fail "an error: $*"; }
expect() { grep -qF -- "$1" <<<"$printed" || fail "missing in the output: $1"; }

program=$1
length=9
works --data "$folder/train.csv" --epochs 40 --batch 8 --seeds 2 --rate 0.02
expect '108 training texts, 12 test texts, 12 test texts'
for method in head top lora full; do
  expect "| $method | "
  accuracy=$(sed -n "s/^| $method |[^|]*|[^|]*| \([0-9.]*\) ± .*/\1/p" <<<"$printed")
  awk -v a="$accuracy" 'BEGIN { exit !(a >= 90) }' || fail "$method: the two labels are not told apart"
done
expect '| head | 18 |'
grep -q '^| head .*| 1\.000 ± 0\.000 | 100\.0 ± 0\.0 |$' <<<"$printed" || fail "a frozen encoder has to keep everything"
grep -q '^| full .*| 1\.000 ± .*| 100\.0 ±' <<<"$printed" && fail "full fine-tuning has to change the encoder"
[ "$(grep -c '"method"' "$folder/finetune_minilm.json")" = 8 ] || fail "runs are missing in finetune_minilm.json"
if grep -qiw nan <<<"$printed"; then fail "a figure is no number"; fi

works --data "$folder/data.json" --method top --epochs 1 --seeds 1 --limit 4 --test-limit 2
expect '4 training texts, 2 test texts, 12 texts of no intent'
works --data "$folder/data.json" --method head --epochs 1 --seeds 1 --split val
expect '18 training texts, 4 test texts'

# What was learned can be kept and used, with an adapter folded in.
for method in lora head; do
  works --data "$folder/train.csv" --method "$method" --epochs 40 --batch 8 --seeds 1 --rate 0.02 --save "$folder/kept"
  expect "written: $folder/kept"
  used=$("$program" --model "$folder/kept" --length 9 'red a one b c' 'blue d two a a')
  grep -q '^[01]\.[0-9]*  warm, first  red a one b c$' <<<"$used" || fail "$method: not classified: $used"
  grep -q '^[01]\.[0-9]*  cold  blue d two a a$' <<<"$used" || fail "$method: not classified: $used"
done
# A classifier reads as much of a text as it has learned to read, and says where that is not all.
grep -qx 9 "$folder/kept/length.txt" || fail "the length is not kept"
echo 5 >"$folder/kept/length.txt"
printed=$("$program" --model "$folder/kept" 'red a one b c' 'red a one')
expect 'red a one b c  (cut: 5 of its 7 tokens)'
[ "$(grep -c cut <<<"$printed")" = 1 ] || fail "what is not cut is said to be"
printed=$("$program" --model "$folder/kept" --length 7 'red a one b c')
if grep -q cut <<<"$printed"; then fail "--length has to count"; fi
rm "$folder/kept/length.txt"  # as it once was
printed=$("$program" --model "$folder/kept" 'red a one b c a a a a a')
expect '(cut: 9 of its 12 tokens)'

refused() { # refused PART ARGUMENT...
  run "${@:2}" && fail "no error: ${*:2}"
  expect "$1"
}
works --data "$folder/train.csv" --test "$folder/train.csv" --method head --epochs 1 --seeds 1
expect '120 training texts, 120 test texts'
expect '120 of 120 test texts also stand in the training texts.'
length=6
works --data "$folder/train.csv" --method head --epochs 1 --seeds 1
length=9
expect '108 of 108 training texts were cut to 6 tokens (--length).'
expect '12 of 12 test texts were cut to 6 tokens (--length).'

# What would be passed over is refused.
refused "--test $folder/test.csv: found it beside $folder/data.json" --data "$folder/data.json" --test "$folder/test.csv"
refused "--split val: found it beside $folder/train.csv" --data "$folder/train.csv" --split val
for option in --save --test --method; do
  printed=$("$program" --model "$folder/kept" $option head 'red one' 2>&1) && fail "no error: $option beside a text"
  expect "[finetune_minilm] $option: found it beside texts to classify"
done
for wrong in x 10; do
  echo $wrong >"$folder/kept/length.txt"
  printed=$("$program" --model "$folder/kept" 'red one' 2>&1) && fail "no error: length $wrong"
  expect "$folder/kept/length.txt: "
done
rm "$folder/kept/length.txt"
printed=$("$program" --model "$folder/kept" --length 10 'red one' 2>&1) && fail "no error: a length without positions"
expect "--length 10: the model has 9 positions"

cp "$folder/data.json" "$folder/DATA.JSON"
works --data "$folder/DATA.JSON" --method head --epochs 1 --seeds 1
cp "$folder/data.json" "$folder/data.jsonl"
refused "--data $folder/data.jsonl: found a .jsonl" --data "$folder/data.jsonl"
refused "--test $folder/data.json: found a .json, expected a .csv" --data "$folder/train.csv" --test "$folder/data.json"
head -n 20 "$folder/train.csv" >"$folder/alone.csv"
refused 'alone among the training texts, expected two labels at least' --data "$folder/alone.csv"
sed 's/"oos"/"hot"/; s/oos_test/test/; s/"test"/"left"/' "$folder/data.json" >"$folder/other.json"
refused "$folder/other.json: found the label" --data "$folder/other.json"
{ echo text,label; for i in 1 2 3 4 5 6; do printf 'red a one,"warm, first"\nred a one,cold\n'; done; } >"$folder/same.csv"
works --data "$folder/train.csv" --test "$folder/same.csv" --method full --epochs 1 --seeds 1
grep -q '^| full .* | – | – |$' <<<"$printed" || fail "one vector for all texts has no CKA"
expect "(–: all have one vector)"
refused "learning rate 1e+30 (--rate): the loss is" --data "$folder/train.csv" --method full --rate 1e30 --save "$folder/no"
[ -z "$(ls -A "$folder/no")" ] || fail "a classifier that is no good was written"
refused "Choose one with --method" --data "$folder/train.csv" --save "$folder/other"
refused "own folder" --data "$folder/train.csv" --method head --save "$folder"
refused "neither is given"
printed=$("$program" --model "$folder/none" --data "$folder/train.csv" 2>&1) && fail "no error for a missing model"
expect "--model $folder/none: no such folder"
touch "$folder/no/adapter_config.json"
refused "found adapter_config.json" --data "$folder/train.csv" --method head --save "$folder/no"
rm "$folder/no/adapter_config.json"
touch "$folder/no/tokenizer.json"
refused "found tokenizer.json" --data "$folder/train.csv" --method head --save "$folder/no"
rm "$folder/no/tokenizer.json"
sed 's/,cold$/,"co\nld"/' "$folder/train.csv" >"$folder/lines.csv"
refused "has more than one line" --data "$folder/lines.csv" --method head --save "$folder/no"
sed -i 's/^\[PAD\]$/[NONE]/' "$folder/vocab.txt"
refused "the tokenizer has no [PAD]" --data "$folder/train.csv" --method head
sed -i 's/^\[NONE\]$/[PAD]/' "$folder/vocab.txt"
refused "--rate: found inf, expected a finite number, 0 or more" --data "$folder/train.csv" --rate inf
printed=$("$program" --model "$folder" 'red one' 2>&1) && fail "no error for a model without a head"
expect "labels.txt: cannot be opened"
echo third >>"$folder/kept/labels.txt"
"$program" --model "$folder/kept" 'red one' >/dev/null 2>"$folder/said" && fail "no error for a head of two labels"
grep -q 'head.safetensors: 2 names do not fit' "$folder/said" || fail "the head is not named: $(cat "$folder/said")"
truncate -s 50 "$folder/kept/head.safetensors"
"$program" --model "$folder/kept" 'red one' >/dev/null 2>"$folder/said" && fail "no error for a damaged head"
grep -q 'head.safetensors' "$folder/said" || fail "the damaged head is not named: $(cat "$folder/said")"
refused 'found the label "cold" among the test texts' --data "$folder/train.csv" --limit 1
refused "none.csv" --data "$folder/none.csv"
works --data "$folder/train.csv" --test "$folder/test.csv" --method head --epochs 1 --seeds 1
expect '120 training texts, 7 test texts'
expect 'Kept: not measured, since it takes more than 10 texts'
grep -q '^| head .* | – | – |$' <<<"$printed" || fail "what is not measured has to be left out"
grep -q '"cka": null' "$folder/finetune_minilm.json" || fail "what is not measured is null"
works --data "$folder/small.csv" --method head --epochs 1 --seeds 1
expect '6 training texts, 2 test texts'
sed -i '5s/,/,"/' "$folder/test.csv"
refused "test.csv: line 5" --data "$folder/train.csv" --test "$folder/test.csv"
length=10
refused "--length 10: the model has 9 positions" --data "$folder/train.csv"
