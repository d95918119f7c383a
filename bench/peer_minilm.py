"""Case 10 in PyTorch and PEFT: fine-tuning a BERT of MiniLM's shape (6 layers of 384, 12 heads, 1,536 hidden) on sequences
of 128 tokens, 16 in a batch. Random weights: the time is the same. Full and LoRA: one step. Top layer and head: whole runs
of 5 epochs over BATCHES batches, with the features of what is frozen computed once (as stet does: "cached") and, as the
usual training loop does, in every step ("plain"); the loss is the last batch's."""

import copy

import torch
import torch.nn.functional as F

from shapes import BATCH, BATCHES, CLASSES, EPOCHS, LENGTH, MINILM

TITLES = {"10a": "MiniLM's shape, batch 16 x 128, full step",
          "10b": "MiniLM's shape, LoRA r8 on q and v, step",
          "10c": "MiniLM's shape, top layer, 5 epochs of 64 sequences",
          "10d": "MiniLM's shape, head, 5 epochs of 64 sequences"}
GOALS = {"10a": 1.2, "10b": 1.4, "10c": 2.5, "10d": 5}
# Goals are against the whole run in PyTorch's usual loop.
MAIN = {"10a": "best", "10b": "best", "10c": "plain", "10d": "plain"}
# Losses to compare: steps, or whole runs.
COMPARED = {"10a": 4, "10b": 4, "10c": 1, "10d": 1}


def encoder():
    import transformers
    config = transformers.BertConfig(hidden_size=MINILM["width"], num_hidden_layers=MINILM["blocks"],
                                     num_attention_heads=MINILM["heads"], intermediate_size=MINILM["hidden"],
                                     hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    config._attn_implementation = "sdpa"
    return transformers.BertModel(config, add_pooling_layer=False)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = encoder()
        self.head = torch.nn.Linear(MINILM["width"], CLASSES)

    def forward(self, tokens):
        return self.head(self.bert(input_ids=tokens).last_hidden_state.mean(1))


def make_file(case):
    torch.manual_seed(10)
    file = {k: v.detach().clone() for k, v in Encoder().state_dict().items() if "position_ids" not in k}
    file["x"] = torch.randint(1000, 30000, (BATCHES, BATCH, LENGTH))
    file["y"] = torch.randint(0, CLASSES, (BATCHES, BATCH))
    file["lora_A"] = (torch.rand(8, MINILM["width"]) * 2 - 1) / MINILM["width"] ** 0.5
    return file


def model_of(file):
    model = Encoder()
    model.load_state_dict({k: v for k, v in file.items() if k.startswith(("bert.", "head."))}, strict=False)
    return model.train()


def update(optimizer, logits, labels):
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def stepwise(file, lora, fused=False, compiled=False):
    model = model_of(file)
    if lora:
        import peft
        model.bert.requires_grad_(False)
        model.bert = peft.get_peft_model(model.bert, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_A" in name:
                    p.copy_(file["lora_A"])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=fused)
    forward = torch.compile(model) if compiled else model
    return lambda i: update(optimizer, forward(file["x"][i % BATCHES]), file["y"][i % BATCHES])


def whole(file, top, cached):
    """Both train from the file's weights each time."""
    model = model_of(file)
    model.bert.requires_grad_(False)
    last = model.bert.encoder.layer[-1]
    if top:
        last.requires_grad_(True)
    lower = copy.copy(model.bert.encoder.layer)
    start = copy.deepcopy(model.state_dict())

    def hidden(tokens):  # before the last block (top), or behind it
        kept = model.bert.encoder.layer
        model.bert.encoder.layer = lower[:-1] if top else lower
        try:
            with torch.no_grad():
                return model.bert(input_ids=tokens).last_hidden_state
        finally:
            model.bert.encoder.layer = kept

    def run(_):
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0, fused=True)
        rows = {}
        for _ in range(EPOCHS):
            for i in range(BATCHES):
                if cached and i not in rows:
                    rows[i] = hidden(file["x"][i]) if top else hidden(file["x"][i]).mean(1)
                if not cached:
                    logits = model(file["x"][i])
                elif top:
                    out = last(rows[i])
                    logits = model.head((out[0] if isinstance(out, tuple) else out).mean(1))
                else:
                    logits = model.head(rows[i])
                loss = update(optimizer, logits, file["y"][i])
        return loss

    return run


def variants(case, file):
    if case in ("10a", "10b"):
        lora = case == "10b"
        return {"eager": stepwise(file, lora), "fused": stepwise(file, lora, fused=True),
                "compile": stepwise(file, lora, fused=True, compiled=True)}
    return {"plain": whole(file, case == "10c", False), "cached": whole(file, case == "10c", True)}
