"""The peer's side of cases 9 and 11 to 13: GPT-2 training steps, greedy decoding, attention. The models are written as
PyTorch is at its fastest (fused attention, fused AdamW, torch.compile tried); decoding is transformers' own. With
LLMC=PROGRAM (llm.c's train_gpt2) and LLAMA2C=PROGRAM (llama2.c's run) these run the same shapes as well."""

import os
import re
import shutil
import struct
import subprocess
import tempfile

import torch
import torch.nn.functional as F

from shapes import ATTENTION, GPT, LLAMA

GOALS = {"9": 1.3, "11": 3, "12a": 2, "12b": 2, "13a": 1, "13b": 1}
TITLES = {"9": "GPT-2 of 124 M parameters, batch 4 x 64, AdamW step",
          "11": "character GPT of 0.4 M parameters, batch 12 x 96, AdamW step",
          "12a": "200 tokens, greedy, KV cache, stories260K's shape", "12b": "100 tokens, greedy, KV cache, 22 M parameters",
          "13a": "attention, T 2,048, 8 heads of 64, forward and backward", "13b": "the same, causal"}
MAIN = {"9": "best", "11": "best", "12a": "transformers", "12b": "transformers", "13a": "fused", "13b": "fused"}
COMPARED = {"9": 4, "12a": 20, "12b": 10, "13a": 3, "13b": 3}  # numbers to agree on; 20 unless given


class Block(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attn, self.mlp = torch.nn.Module(), torch.nn.Module()
        self.attn.c_attn, self.attn.c_proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.mlp.c_fc, self.mlp.c_proj = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                   for t in self.attn.c_attn(self.ln_1(x)).split(width, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(torch.nn.Module):
    """Parameters carry the names of stet's Gpt2; output and embedding share one."""

    def __init__(self, vocab, positions, width, blocks, heads, **_):
        super().__init__()
        t = self.transformer = torch.nn.Module()
        t.wte, t.wpe = torch.nn.Embedding(vocab, width), torch.nn.Embedding(positions, width)
        t.h = torch.nn.ModuleList(Block(width, heads) for _ in range(blocks))
        t.ln_f = torch.nn.LayerNorm(width)

    def forward(self, tokens):
        t = self.transformer
        x = t.wte(tokens) + t.wpe(torch.arange(tokens.shape[1]))
        for block in t.h:
            x = block(x)
        return F.linear(t.ln_f(x), t.wte.weight)


def numbers(shape):
    return {k: torch.tensor(v) for k, v in shape.items()}


def make_file(case):
    torch.manual_seed(int(case.rstrip("ab")))
    if case in GPT:
        shape = GPT[case]
        model = Gpt2(**shape)
        for p in model.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.02)
        file = {"model/" + k: v.detach().clone() for k, v in model.state_dict().items()}
        return file | numbers(shape) | {"tokens": torch.randint(0, shape["vocab"], (8, shape["batch"], shape["length"]))}
    if case in LLAMA:
        model = llama(LLAMA[case])
        state = {"model/" + k: v.detach().clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
        return state | numbers(LLAMA[case])
    size = (ATTENTION["batch"], ATTENTION["heads"], ATTENTION["length"], ATTENTION["width"])
    return {name: torch.randn(size) for name in "qkvg"}


def gpt_step(case, file, fused, compiled):
    model = Gpt2(**GPT[case])
    model.load_state_dict({k[6:]: v for k, v in file.items() if k.startswith("model/")})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0, fused=fused)
    forward = torch.compile(model) if compiled else model
    batches, vocab = file["tokens"], GPT[case]["vocab"]

    def step(i):
        tokens = batches[i % len(batches)]
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(tokens)[:, :-1].reshape(-1, vocab), tokens[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def llama(shape):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=shape["vocab"], hidden_size=shape["width"], intermediate_size=shape["hidden"],
        num_hidden_layers=shape["blocks"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=shape["positions"], rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=None, pad_token_id=0, initializer_range=0.08)).eval()


def decode(case, file):
    model = llama(LLAMA[case])
    model.load_state_dict({k[6:]: v for k, v in file.items() if k.startswith("model/")}, strict=False)
    length = LLAMA[case]["length"]
    memory = []

    def step(i):
        with torch.inference_mode():
            memory[:] = model.generate(torch.tensor([[1]]), attention_mask=torch.ones(1, 1, dtype=torch.long),
                                       min_new_tokens=length, max_new_tokens=length, do_sample=False)[0].tolist()[1:]
        return memory[-1]

    step.whole = lambda i: (step(i) if not memory else None, memory[i])[1]
    return step


def attention(file, causal, composed):
    q, k, v = (file[n].clone().requires_grad_() for n in "qkv")

    def run():
        q.grad = k.grad = v.grad = None
        if composed:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            if causal:
                scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
            out = scores.softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        (out * file["g"]).sum().backward()

    def step(i):
        run()
        return 0.0

    step.whole = lambda i: (run(), float((q, k, v)[i % 3].grad.abs().sum()))[1]
    return step


class Llama2c:
    """llama2.c's run on the same weights in its own format: times one generation by the tokens/s it reports."""

    def __init__(self, program, case, file):
        self.folder = tempfile.TemporaryDirectory()
        self.model = os.path.join(self.folder.name, "model.bin")
        self.tokenizer = os.path.join(self.folder.name, "tokenizer.bin")
        self.program, self.length = program, LLAMA[case]["length"]
        write_llama2c(self.model, LLAMA[case], {k[6:]: v for k, v in file.items() if k.startswith("model/")})
        with open(self.tokenizer, "wb") as f:
            f.write(struct.pack("i", 8))
            for i in range(LLAMA[case]["vocab"]):
                piece = f"<{i}>".encode()
                f.write(struct.pack("fi", 0.0, len(piece)) + piece)

    def __call__(self, i):
        done = subprocess.run([self.program, self.model, "-t", "0", "-n", str(self.length), "-z", self.tokenizer],
                              capture_output=True, text=True, check=True, env=os.environ | {
                                  "OMP_NUM_THREADS": str(torch.get_num_threads())})
        self.seconds = self.length / float(re.search(r"achieved tok/s: ([\d.]+)", done.stderr)[1])


def write_llama2c(path, shape, state):
    """The legacy export: seven i32, then the weights; rows of q and k in the order of pairs that are neighbours."""
    def pairs(name, heads):
        w = state[name]
        return w.view(heads, 2, w.shape[0] // heads // 2, w.shape[1]).transpose(1, 2).reshape(w.shape)

    layers = [f"model.layers.{i}." for i in range(shape["blocks"])]
    parts = [state["model.embed_tokens.weight"]]
    parts += [state[l + "input_layernorm.weight"] for l in layers]
    parts += [pairs(l + "self_attn.q_proj.weight", shape["heads"]) for l in layers]
    parts += [pairs(l + "self_attn.k_proj.weight", shape["kv_heads"]) for l in layers]
    for name in ("self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj",
                 "mlp.up_proj"):
        parts += [state[f"{l}{name}.weight"] for l in layers]
    head = shape["width"] // shape["heads"]
    parts += [state["model.norm.weight"], torch.zeros(shape["positions"], head)]  # tables of rotations: not read
    with open(path, "wb") as f:
        f.write(struct.pack("7i", shape["width"], shape["hidden"], shape["blocks"], shape["heads"], shape["kv_heads"],
                            shape["vocab"], shape["positions"]))
        for p in parts:
            f.write(p.contiguous().numpy().tobytes())


class Llmc:
    """llm.c's training loop, with random weights and tokens in its files: the median of the step times it prints."""

    def __init__(self, program, file):
        self.folder = tempfile.TemporaryDirectory()
        self.program = os.path.abspath(shutil.which(program) or program)  # it is started in another folder
        shape, padded = GPT["9"], 50304
        state = {k[6:]: v for k, v in file.items() if k.startswith("model/")}
        header = torch.zeros(256, dtype=torch.int32)
        header[:8] = torch.tensor([20240326, 3, shape["positions"], shape["vocab"], shape["blocks"], shape["heads"],
                                   shape["width"], padded])
        blocks = [f"transformer.h.{i}." for i in range(shape["blocks"])]
        names = ["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
                 "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight",
                 "mlp.c_proj.bias"]
        parts = [header, F.pad(state["transformer.wte.weight"], (0, 0, 0, padded - shape["vocab"])),
                 state["transformer.wpe.weight"]] + [state[b + n] for n in names for b in blocks]
        parts += [state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]]
        self.write("gpt2_124M.bin", parts)
        tokens = torch.zeros(256, dtype=torch.int32)
        tokens[:3] = torch.tensor([20240520, 1, 20000])
        for part in ("train", "val"):
            self.write(f"dev/data/tinyshakespeare/tiny_shakespeare_{part}.bin",
                       [tokens, torch.randint(0, shape["vocab"], (20000,)).to(torch.int16)])

    def write(self, name, parts):
        path = os.path.join(self.folder.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            for p in parts:
                f.write(p.contiguous().numpy().tobytes())

    def __call__(self, i, steps=3):
        process = subprocess.Popen(["stdbuf", "-oL", self.program], cwd=self.folder.name, stdout=subprocess.PIPE, text=True,
                                   env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
        times = []
        for line in process.stdout:
            if found := re.search(r"\(took ([\d.]+) ms\)", line):
                times.append(float(found[1]) / 1e3)
                if len(times) == steps:
                    break
        process.kill()
        process.wait()
        self.seconds = sorted(times)[len(times) // 2]


def variants(case, file):
    if case in GPT:
        steps = {"eager": gpt_step(case, file, None, False), "fused": gpt_step(case, file, True, False),
                 "compile": gpt_step(case, file, True, True)}
        if case == "9" and os.environ.get("LLMC"):
            steps["llm.c"] = Llmc(os.environ["LLMC"], file)
        return steps
    if case in LLAMA:
        steps = {"transformers": decode(case, file)}
        if os.environ.get("LLAMA2C"):
            steps["llama2.c"] = Llama2c(os.environ["LLAMA2C"], case, file)
        return steps
    causal = case == "13b"
    return {"fused": attention(file, causal, False), "composed": attention(file, causal, True)}
