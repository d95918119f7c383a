"""Compares stet's tokenizers with the reference implementations on 100,000 lines and more, and times both.

    python3 -m pip install tokenizers sentencepiece
    python3 tests/golden/compare_tokenizers.py build/release/bench/tokenize [--text FOLDER] [--gpt2 FOLDER] [--llama2c FILE]

--text names a folder of .txt files whose lines are compared besides 100,000 made lines in many scripts; --gpt2 the
folder of GPT-2's released encoder.json and vocab.bpe; --also further tokenizer.json or .model files (--only: no others);
--llama2c a tokenizer of llama2.c (its rule is written out here).
Ends with 1 if any line differs.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import tempfile
import time

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import make_tokenizer_goldens as goldens


def gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def llama2c(path):
    """encode() of llama2.c's run.c: characters, or bytes where there is no token, then the best pair until none is left."""
    data, at, tokens = path.read_bytes(), 4, []
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        tokens.append((data[at + 8:at + 8 + size], score))
        at += 8 + size
    ids = {token: i for i, (token, _) in reversed(list(enumerate(tokens)))}

    def encode(text):
        out = []
        for char in (" " + text if text else ""):
            raw = char.encode()
            out += [ids[raw]] if raw in ids else [byte + 3 for byte in raw]
        while True:
            best, place = -1e10, -1
            for i in range(len(out) - 1):
                merged = ids.get(tokens[out[i]][0] + tokens[out[i + 1]][0], -1)
                if merged >= 0 and tokens[merged][1] > best: best, place, winner = tokens[merged][1], i, merged
            if place < 0: return out
            out[place:place + 2] = [winner]

    return encode


def write_counted(path, lines):
    with path.open("wb") as out:
        for line in lines: out.write(b"%d\n%s" % (len(line.encode()), line.encode()))


def compare_training(program, files, vocab_size):
    """The whole files as texts: the same tokens and merges, and the time that either takes."""
    texts = [path.read_text() for path in files]
    with tempfile.TemporaryDirectory() as folder:
        counted, trained = pathlib.Path(folder) / "texts.counted", pathlib.Path(folder) / "tokenizer.json"
        write_counted(counted, texts)
        printed = subprocess.run([program, "--train", str(vocab_size), str(counted), str(trained)], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout.strip()
        ours = json.loads(trained.read_text())["model"]
        Tokenizer.from_file(str(trained))  # the library reads what stet wrote
    start = time.perf_counter()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|endoftext|>"], min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    seconds = time.perf_counter() - start
    theirs = json.loads(tokenizer.to_str())["model"]
    same = ours["merges"] == theirs["merges"]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"training on {megabytes:.1f} MB: merges {'equal' if same else 'DIFFER'}; stet {printed}; "
          f"the reference {seconds:.2f} s", flush=True)
    return same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    for name in ("text", "gpt2", "llama2c"): parser.add_argument("--" + name, type=pathlib.Path)
    parser.add_argument("--also", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--only", action="store_true")
    options = parser.parse_args()
    lines = goldens.make_lines(100_000, 11)
    if options.text:
        for path in sorted(options.text.glob("*.txt")): lines += path.read_text().split("\n")
    cases = []
    files = [] if options.only else sorted(goldens.FOLDER.glob("*.json")) + sorted(goldens.FOLDER.glob("*.model"))
    for path in files + options.also:
        if path.suffix == ".json" and path.name != "lines.json":
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()  # which transformers does too, unless it is asked
            tokenizer.no_padding()
            cases.append((path, lambda line, t=tokenizer: t.encode(line, add_special_tokens=False).ids))
        elif path.suffix == ".model":
            cases.append((path, sentencepiece.SentencePieceProcessor(model_file=str(path)).encode))
    if options.gpt2:
        tokenizer = gpt2(options.gpt2)
        cases.append((options.gpt2, lambda line: tokenizer.encode(line).ids))
    if options.llama2c: cases.append((options.llama2c, llama2c(options.llama2c)))

    failed = False
    if options.text and not options.only: failed = not compare_training(options.program, sorted(options.text.glob("*.txt")), 16_000)
    for path, encode in cases:
        used = lines[:20_000] if path == options.llama2c else lines  # the rule above takes quadratic time
        if "BertNormalizer" in (path.read_text() if path.suffix == ".json" else ""):
            used = [line for line in lines
                    if not any(map(goldens.is_reclassified, goldens.unicodedata.normalize("NFD", line)))]
        with tempfile.TemporaryDirectory() as folder:
            texts, ids = pathlib.Path(folder) / "lines.counted", pathlib.Path(folder) / "ids"
            write_counted(texts, used)
            printed = subprocess.run([options.program, str(path), str(texts), str(ids)], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout.strip()
            ours = [[int(i) for i in row.split()] for row in ids.read_text().split("\n")[:-1]]
        start = time.perf_counter()
        theirs = [encode(line) for line in used]
        speed = sum(len(line.encode()) for line in used) / 1e6 / (time.perf_counter() - start)
        different = [i for i in range(len(used)) if ours[i] != theirs[i]]
        failed = failed or bool(different) or len(ours) != len(used)
        print(f"{path.name}: {len(different)} differ; stet {printed}; the reference from Python {speed:.2f} MB/s", flush=True)
        for i in different[:3]: print("   ", ascii(used[i]), ours[i], theirs[i])
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
