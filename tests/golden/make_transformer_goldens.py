"""Writes transformers.safetensors beside this script: what transformers computes for tiny models of each family.

    python3 -m pip install torch transformers safetensors
    python3 tests/golden/make_transformer_goldens.py

Weights are drawn with fixed seeds, rounded to f32, and stored with the logits, the loss and all gradients, which are
computed in f64 where the library does not compute in f32 itself. The checked-in file was written with the versions
that its metadata names.

One case is "family/number/...": "options" numbers whose order the function here and transformer_golden_test.cpp share,
"in.tokens", "in.labels", "in.padding", "in.types", "out" the logits, "loss", "state.NAME" a parameter under its name in
the library's state dict, "grad.NAME" its gradient.
"""

import pathlib

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
TENSORS = {}


def add(name, model, options, tokens, labels, run):
    generator = torch.Generator().manual_seed(7)
    for key, p in model.named_parameters():
        around = 1.0 if key.endswith("weight") and p.dim() == 1 else 0.0
        p.data = around + torch.randn(p.shape, generator=generator) * 0.3
    model = model.double().eval()
    logits, loss = run(model, tokens, labels)
    loss.backward()
    tensors = {"options": torch.tensor(options, dtype=torch.float64), "in.tokens": tokens, "in.labels": labels}
    tensors |= {"out": logits.detach().float(), "loss": loss.detach().float()}
    for key, p in model.named_parameters():
        tensors["state." + key] = p.detach().float()
        tensors["grad." + key] = p.grad.float()
    TENSORS.update({f"{name}/{k}": v.clone().contiguous() for k, v in tensors.items()})


def causal(model, tokens, labels):
    out = model(input_ids=tokens, labels=labels)
    return out.logits, out.loss


def draw(high, *shape, seed=1):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def main():
    tokens = draw(19, 2, 7)
    labels = tokens.clone()
    labels[0, 5:] = -100
    common = dict(vocab_size=19, attn_implementation="eager")
    for number, (act, inner) in enumerate([("gelu_new", 12), ("relu", None)]):
        config = transformers.GPT2Config(
            n_positions=9, n_embd=8, n_layer=2, n_head=2, n_inner=inner, activation_function=act, **common)
        add(f"gpt2/{number}", transformers.GPT2LMHeadModel(config), [number, inner or 0], tokens, labels, causal)
    # heads of keys, head_dim, attention_bias, mlp_bias, tied, rope_theta
    for number, (kv, dim, bias, mlp, tied, theta) in enumerate(
        [(2, 4, 0, 0, 0, 10000.0), (4, 2, 0, 0, 1, 100.0), (1, 4, 1, 1, 0, 500.0)]):
        config = transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv,
            head_dim=dim, attention_bias=bool(bias), mlp_bias=bool(mlp), tie_word_embeddings=bool(tied),
            max_position_embeddings=16, rope_theta=theta, rms_norm_eps=1e-5, **common)
        add(f"llama/{number}", transformers.LlamaForCausalLM(config), [kv, dim, bias, mlp, tied, theta], tokens, labels,
            causal)
    config = transformers.Qwen2Config(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=16, rope_theta=10000.0, rms_norm_eps=1e-6, **common)
    add("qwen2/0", transformers.Qwen2ForCausalLM(config), [2, 0, 1, 0, 0, 10000.0], tokens, labels, causal)

    padding = torch.ones(2, 7, dtype=torch.bool)
    padding[0, 4:] = False
    types = draw(2, 2, 7, seed=2)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, max_position_embeddings=9,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **common)

    def classify(model, tokens, labels):
        out = model(input_ids=tokens, token_type_ids=types, attention_mask=padding.long(), labels=labels)
        return out.logits, out.loss

    add("bert/0", transformers.BertForSequenceClassification(config), [0], draw(18, 2, 7) + 1, draw(3, 2, seed=3),
        classify)  # token 0 is the library's padding_idx, whose gradient it leaves out
    TENSORS.update({"bert/0/in.padding": padding, "bert/0/in.types": types})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    save_file(TENSORS, HERE / "transformers.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
