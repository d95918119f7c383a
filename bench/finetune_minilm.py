"""examples/finetune_minilm in PyTorch and PEFT, for the table in docs/continual.md: the same texts, encoder, settings and
measures; initial heads, orders and dropout are drawn by PyTorch.

    python3 -m pip install torch transformers peft
    python3 bench/finetune_minilm.py --model DIR --data data_full.json --limit 1500 [--threads 2]

Head and top keep the features of what is frozen, computed once in evaluation mode, as stet does.
"""

import argparse
import json
import math
import statistics
import time

import peft
import torch
import torch.nn.functional as F
import transformers

RATES = {"head": 1e-2, "top": 2e-3, "lora": 4e-3, "full": 3e-4}


class Texts:
    """Token ids of at most `length`, batches padded to their longest."""

    def __init__(self, tokenizer, texts, labels, length):
        self.ids = [row[:length] for row in tokenizer(texts, truncation=True, max_length=length)["input_ids"]]
        self.labels = torch.tensor(labels)

    def batch(self, indices):
        width = max(len(self.ids[i]) for i in indices)
        return torch.tensor([self.ids[i] + [0] * (width - len(self.ids[i])) for i in indices])

    def chunks(self, size=64):
        order = sorted(range(len(self.ids)), key=lambda i: len(self.ids[i]))
        return [order[at:at + size] for at in range(0, len(order), size)]


def mean_pooling(hidden, mask):
    mask = mask[..., None].float()
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


class Classifier(torch.nn.Module):
    def __init__(self, folder, classes):
        super().__init__()
        self.bert = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32,
                                                           attn_implementation="sdpa")
        self.head = torch.nn.Linear(self.bert.config.hidden_size, classes)

    def embed(self, tokens):
        mask = tokens != 0
        return mean_pooling(self.bert(input_ids=tokens, attention_mask=mask.long()).last_hidden_state, mask)


def lower(bert, tokens):
    """Hidden states before the last block."""
    kept, bert.encoder.layer = bert.encoder.layer, bert.encoder.layer[:-1]
    try:
        return bert(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state
    finally:
        bert.encoder.layer = kept


def last_block(bert, hidden, mask):
    bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None, :]
    out = bert.encoder.layer[-1](hidden, attention_mask=bias)
    return out[0] if isinstance(out, tuple) else out


def prepare(model, method):
    model.train()
    if method == "full":
        return
    model.bert.requires_grad_(False)
    if method == "lora":
        model.bert = peft.get_peft_model(model.bert, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
    if method in ("head", "top"):
        model.bert.eval()
    if method == "top":
        model.bert.encoder.layer[-1].requires_grad_(True).train()


@torch.no_grad()
def features(model, method, texts):
    if method == "head":
        rows = torch.zeros(len(texts.ids), model.bert.config.hidden_size)
        for chunk in texts.chunks():
            rows[chunk] = model.embed(texts.batch(chunk))
    else:
        rows = torch.zeros(len(texts.ids), max(map(len, texts.ids)), model.bert.config.hidden_size)
        for chunk in texts.chunks():
            tokens = texts.batch(chunk)
            rows[chunk, :tokens.shape[1]] = lower(model.bert, tokens)
    return rows


def logits(model, method, texts, rows, batch):
    if method == "head":
        return model.head(rows[batch])
    tokens = texts.batch(batch)
    if method == "top":
        mask = tokens != 0
        return model.head(mean_pooling(last_block(model.bert, rows[batch, :tokens.shape[1]], mask), mask))
    return model.head(model.embed(tokens))


def train(model, method, texts, args):
    start, clock = time.perf_counter(), time.process_time()
    prepare(model, method)
    trained = [p for p in model.parameters() if p.requires_grad]
    steps = args.epochs * math.ceil(len(texts.ids) / args.batch)
    warmup = max(1, steps // 10)
    optimizer = torch.optim.AdamW(trained, lr=args.rate or RATES[method], weight_decay=0, fused=True)
    factor = lambda i: (i + 1) / warmup if i < warmup else (1 + math.cos(math.pi * (i - warmup) / (steps - warmup))) / 2
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rows = features(model, method, texts) if method in ("head", "top") else None
    for _ in range(args.epochs):
        order = torch.randperm(len(texts.ids)).tolist()
        for at in range(0, len(order), args.batch):
            batch = order[at:at + args.batch]
            optimizer.zero_grad()
            F.cross_entropy(logits(model, method, texts, rows, batch), texts.labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1)
            optimizer.step()
            schedule.step()
    return time.perf_counter() - start, time.process_time() - clock, sum(p.numel() for p in trained)


@torch.no_grad()
def embeddings(model, texts):
    model.eval()
    rows = torch.zeros(len(texts.ids), model.head.in_features)
    for chunk in texts.chunks():
        rows[chunk] = model.embed(texts.batch(chunk))
    return rows


def kept(before, after):
    x, y = before - before.mean(0), after - after.mean(0)
    square = lambda a, b: float((a.T @ b).square().sum())

    def nearest(v):
        unit = F.normalize(v, dim=1)
        return (unit @ unit.T - 4 * torch.eye(len(v))).topk(10, 1).indices

    old, now = nearest(before), nearest(after)
    same = (old[:, :, None] == now[:, None, :]).any(2).float().mean()
    return square(x, y) / math.sqrt(square(x, x) * square(y, y)), float(same)


def first_of_each_label(rows, count):
    seen, turns = {}, []
    for _, label in rows:
        turns.append(seen.setdefault(label, 0))
        seen[label] += 1
    order = sorted(sorted(range(len(rows)), key=lambda i: turns[i])[:count])
    return [rows[i] for i in order]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="CLINC150's JSON")
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--method", default="all", choices=[*RATES, "all"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--test-limit", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    data = json.load(open(args.data))
    rows = first_of_each_label(data["train"], args.limit or len(data["train"]))
    names = sorted({label for _, label in rows})
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    encode = lambda rows: Texts(tokenizer, [t for t, _ in rows], [names.index(l) if l in names else -1 for _, l in rows],
                                args.length)
    texts = encode(rows)
    test = encode(first_of_each_label(data[args.split], args.test_limit or len(data[args.split])))
    other = encode([row for key in ("oos_train", "oos_val", "oos_test") for row in data[key]])
    print(f"torch {torch.__version__}, peft {peft.__version__}, {torch.get_num_threads()} threads; {len(texts.ids)} "
          f"training texts, {len(test.ids)} of {args.split}, {len(other.ids)} of no intent")
    results, before = {m: [] for m in (RATES if args.method == "all" else [args.method])}, None
    for seed in range(1, args.seeds + 1):
        for method in results:
            torch.manual_seed(seed)
            model = Classifier(args.model, len(names))
            before = embeddings(model, other) if before is None else before
            seconds, cpu, count = train(model, method, texts, args)
            with torch.no_grad():
                right = float((model.head(embeddings(model, test)).argmax(1) == test.labels).float().mean())
            results[method].append((count, 100 * right, seconds, cpu, *kept(before, embeddings(model, other))))
    spread = lambda v, n: f"{statistics.mean(v):.{n}f}" + (f" ± {statistics.stdev(v):.{n}f}" if len(v) > 1 else "")
    for method, runs in results.items():
        counts, right, seconds, cpu, cka, near = zip(*runs)
        print(f"| {method} | {counts[0]:,} | {args.rate or RATES[method]:g} | {spread(right, 1)} | {spread(seconds, 1)} | "
              f"{spread(cpu, 1)} | {spread(cka, 3)} | {spread([100 * v for v in near], 1)} |")


main()
