"""Writes tests/golden/pretrained/: released folders of tiny models as transformers saves them, with its logits.

    python3 -m pip install torch transformers safetensors
    python3 tests/golden/make_pretrained_goldens.py
    python3 tests/golden/make_pretrained_goldens.py --compare DIR    # folders that stet saved, against the same logits
    python3 tests/golden/make_pretrained_goldens.py --stories FILE   # greedy tokens of a llama2.c export
    python3 tests/golden/make_pretrained_goldens.py --minilm DIR     # hidden states of all-MiniLM-L6-v2

Each folder has config.json, its weights, and expected.safetensors: "tokens" and "out" (logits, BERT: hidden states),
and for BERT "padding" and, where there is a pooler, "pooled". A classifier's "out" is its logits.
"""

import json
import pathlib
import shutil
import struct
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent / "pretrained"
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
TOKENS = torch.randint(19, (2, 7), generator=torch.Generator().manual_seed(1))
PADDING = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
LLAMA = dict(vocab_size=19, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=16, bos_token_id=1, eos_token_id=2)
BERT = dict(vocab_size=19, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
            max_position_embeddings=9)
GPT2 = dict(vocab_size=19, n_positions=9, n_embd=8, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=[2, 3])


def run(model):
    with torch.no_grad():
        if model.config.model_type == "bert":
            inputs = {"input_ids": TOKENS, "attention_mask": PADDING.long()}
            if isinstance(model, transformers.BertForSequenceClassification):
                return {"out": model(**inputs).logits, "padding": PADDING}
            out = (model if isinstance(model, transformers.BertModel) else model.bert)(**inputs)
            pooled = {} if out.pooler_output is None else {"pooled": out.pooler_output}
            return {"out": out.last_hidden_state, "padding": PADDING} | pooled
        return {"out": model(input_ids=TOKENS).logits}


def write(name, model, dtype=torch.float32, shard="5GB", rename=None, extra=None, config=None):
    generator = torch.Generator().manual_seed(7)
    for p in model.parameters():
        p.data = (torch.randn(p.shape, generator=generator) * 0.3 + (p.dim() == 1)).to(dtype).float()
    model.eval()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    expected = {"tokens": TOKENS} | run(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if rename or extra:
        state = {(rename or str)(k): v for k, v in load_file(folder / "model.safetensors").items()}
        save_file(state | (extra or {}), folder / "model.safetensors", metadata={"format": "pt"})
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(config(json.loads(path.read_text())), indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors",
              metadata={"torch": torch.__version__, "transformers": transformers.__version__})


def older(config):  # as transformers 4 wrote it
    rope = config.pop("rope_parameters")
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    return config | {"rope_theta": theta, "rope_scaling": {"type": kind} | rope if rope else None,
                     "torch_dtype": config.pop("dtype")}


def old_bert(name):
    name = "bert." + name if not name.startswith(("bert.", "cls.")) else name
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def main():
    t = transformers
    gpt2 = lambda **k: t.GPT2LMHeadModel(t.GPT2Config(**GPT2 | k))
    llama = lambda **k: t.LlamaForCausalLM(t.LlamaConfig(**LLAMA | k))
    write("gpt2", gpt2())
    mask = torch.ones(9, 9, dtype=torch.bool).tril().view(1, 1, 9, 9)
    extra = {f"h.{i}.attn.bias": mask.clone() for i in range(2)} | {"lm_head.weight": torch.zeros(19, 8)}
    model = gpt2(n_inner=12, activation_function="relu")
    write("gpt2_bare", model, rename=lambda k: k.removeprefix("transformer."), extra=extra)
    path = HERE / "gpt2_bare" / "model.safetensors"
    state = load_file(path)
    state["lm_head.weight"] = state["wte.weight"].clone()
    save_file(state, path, metadata={"format": "pt"})
    write("llama", llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0}, head_dim=4, rms_norm_eps=1e-5))
    write("llama_tied", llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), config=older)
    write("llama_shards", llama(), shard=1500)
    write("llama_f16", llama(), dtype=torch.float16)
    write("llama_bf16", llama(), dtype=torch.bfloat16)
    write("mistral", t.MistralForCausalLM(t.MistralConfig(**LLAMA, sliding_window=16, head_dim=2)))
    write("qwen2", t.Qwen2ForCausalLM(t.Qwen2Config(**LLAMA)))
    write("mistral_window", t.MistralForCausalLM(t.MistralConfig(**LLAMA, sliding_window=3, head_dim=2)))
    windows = dict(use_sliding_window=True, sliding_window=2, max_window_layers=1)
    write("qwen2_window", t.Qwen2ForCausalLM(t.Qwen2Config(**LLAMA, **windows)))
    write("qwen2_window_old", t.Qwen2ForCausalLM(t.Qwen2Config(**LLAMA, **windows)),
          config=lambda c: older({k: v for k, v in c.items() if k != "layer_types"}))
    rope = lambda **k: dict(rope_theta=500.0, factor=8.0) | k
    write("llama_rope", llama(head_dim=8, rope_parameters=rope(
        rope_type="llama3", low_freq_factor=0.1, high_freq_factor=1.0, original_max_position_embeddings=16)))
    write("llama_linear", llama(head_dim=8, rope_parameters=rope(rope_type="linear")), config=older)
    write("llama_dynamic", llama(head_dim=8, rope_parameters=rope(rope_type="dynamic")))
    yarn = rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0, beta_slow=0.1)
    write("llama_yarn", llama(head_dim=16, rope_parameters=yarn))
    write("llama_yarn_old", llama(head_dim=16, rope_parameters=yarn | dict(
        truncate=False, mscale=0.7, mscale_all_dim=0.3)), config=older)
    write("bert", t.BertModel(t.BertConfig(**BERT)))
    write("bert_old", t.BertForPreTraining(t.BertConfig(**BERT, hidden_act="gelu_new")), rename=old_bert,
          extra={"bert.embeddings.position_ids": torch.arange(9)[None]})
    write("bert_no_pooler", t.BertForMaskedLM(t.BertConfig(**BERT)))
    write("bert_classifier", t.BertForSequenceClassification(t.BertConfig(
        **BERT, id2label={0: "red", 1: "green", 2: "blue"}, label2id={"red": 0, "green": 1, "blue": 2},
        problem_type="single_label_classification", classifier_dropout=0.25)))
    write("bert_classifier_plain", t.BertForSequenceClassification(t.BertConfig(**BERT)))


def compare(folder):
    for path in sorted(pathlib.Path(folder).iterdir()):
        expected = load_file(HERE / path.name / "expected.safetensors")
        kind = json.loads((path / "config.json").read_text())["architectures"][0]
        without = {"add_pooling_layer": False} if path.name == "bert_no_pooler" else {}
        model, info = getattr(transformers, kind).from_pretrained(path, output_loading_info=True, **without)
        names = {k: v for k, v in info.items() if v}
        if path.name == "bert_classifier":
            theirs = transformers.AutoConfig.from_pretrained(HERE / path.name)
            for field in ("id2label", "label2id", "problem_type", "classifier_dropout"):
                assert getattr(model.config, field) == getattr(theirs, field), field
        error = max((v.double() - expected[k].double()).abs().max().item() for k, v in run(model.eval()).items())
        print(path.name, kind, "largest error", error, names or "all names found")
        assert error <= 1e-5 and not names


def stories(file):
    """The weights under transformers' names, by its own conversion's permutation; 200 greedy tokens after token 1."""
    data = pathlib.Path(file).read_bytes()
    dim, hidden, layers, heads, kv, vocab, length = struct.unpack("7i", data[:28])
    floats, at = torch.frombuffer(bytearray(data[28:]), dtype=torch.float32), 0

    def take(*shape):
        nonlocal at
        count = torch.Size(shape).numel()
        at += count
        return floats[at - count:at].view(shape).clone()

    def permute(w, n):
        return w.view(n, w.shape[0] // n // 2, 2, dim).transpose(1, 2).reshape(w.shape)

    width = kv * dim // heads
    state = {"model.embed_tokens.weight": take(vocab, dim)}
    for name, *shape in [("input_layernorm", dim), ("self_attn.q_proj", dim, dim), ("self_attn.k_proj", width, dim),
                         ("self_attn.v_proj", width, dim), ("self_attn.o_proj", dim, dim),
                         ("post_attention_layernorm", dim), ("mlp.gate_proj", hidden, dim),
                         ("mlp.down_proj", dim, hidden), ("mlp.up_proj", hidden, dim)]:
        for i, w in enumerate(take(layers, *shape)):
            n = {"self_attn.q_proj": heads, "self_attn.k_proj": kv}.get(name)
            state[f"model.layers.{i}.{name}.weight"] = permute(w, n) if n else w
    state["model.norm.weight"] = take(dim)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=length, rms_norm_eps=1e-5,
        tie_word_embeddings=True)).eval()
    print(model.load_state_dict(state, strict=False))
    tokens = torch.tensor([[1]])
    with torch.no_grad():
        for _ in range(200):  # without a cache and without generate()
            tokens = torch.cat([tokens, model(tokens).logits[:, -1].argmax(-1, keepdim=True)], 1)
    save_file({"tokens": tokens[0]}, HERE / "stories260k.safetensors")


def minilm(folder):
    tokens = torch.tensor([[101, 2023, 2003, 2019, 2742, 6251, 102, 0], [101, 7592, 1010, 2088, 999, 2129, 2024, 102]])
    mask = (tokens != 0)
    with torch.no_grad():
        out = transformers.BertModel.from_pretrained(folder).float().eval()(input_ids=tokens, attention_mask=mask.long())
    hidden = out.last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    save_file({"tokens": tokens, "padding": mask, "embedding": torch.nn.functional.normalize(mean, dim=1)},
              HERE / "minilm.safetensors")


if __name__ == "__main__":
    {"--compare": compare, "--stories": stories, "--minilm": minilm}[sys.argv[1]](sys.argv[2]) if sys.argv[1:] else main()
