#!/usr/bin/env bash
# From a fresh clone to a network that forgets, and one that does not: bash examples/quickstart.sh [--device cuda]
# Missing Debian packages are installed first; then the two examples are built and run. Needs no arguments; what is
# given goes to split_fashion_mnist, whose results go to build/release/quickstart (--out DIR: there). On a machine with a
# GPU and nvcc, --device cuda builds for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source tests/support/packages.sh
install_missing_packages
preset=release
on_cuda='( --device[ =]cuda )'
if [[ " $* " =~ $on_cuda ]] && command -v nvcc >/dev/null && nvidia-smi >/dev/null 2>&1; then preset=cuda; fi
cmake --preset $preset
cmake --build --preset $preset -j"$(nproc)" --target \
  examples_forgetting_sample examples_split_fashion_mnist examples_custom_strategy examples_generate \
  examples_finetune_domain examples_finetune_pretrained

echo
echo "--- forgetting_sample: freeze a backbone, train a new head"
build/$preset/examples/forgetting_sample
echo
long="about a minute"
if [[ " $* " =~ $on_cuda ]] && [ $preset = release ]; then
  long="on the simulated device about 25 minutes on two cores (--seeds 1: a third of that)"
fi
out=build/$preset/quickstart own=(--out "build/$preset/quickstart") last=
for argument in "$@"; do  # --out given twice would be an error
  [[ $argument != --out=* ]] || { out=${argument#--out=} own=(); }
  [ "$last" != --out ] || { out=$argument own=(); }
  last=$argument
done
[[ $out == /* ]] || out=$PWD/$out
echo "--- split_fashion_mnist: five tasks, one after the other, $long; results in $out"
build/$preset/examples/split_fashion_mnist "${own[@]}" "$@"
echo
cat <<END
Next, in build/$preset/examples/ (after cmake --build --preset $preset, for what is not built yet):
  custom_strategy       a strategy of your own in under 40 lines (docs/continual.md)
  claims/               what is said about forgetting, a program for each claim (docs/claims.md)
  finetune_domain       a small GPT learns a domain and forgets general prose (bash examples/get_text.sh DIR makes the texts)
  generate              text from a released GPT-2, Llama, Mistral or Qwen2 folder (docs/transformers.md)
  finetune_minilm       intents with a sentence encoder, and what the encoder keeps for other texts (docs/continual.md)
  finetune_pretrained   such a model learns documents of yours, and shows what it forgot
END
