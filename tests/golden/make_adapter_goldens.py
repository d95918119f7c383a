"""Writes adapters/ beside this script: what PEFT computes and saves for tiny models.

    python3 -m pip install torch transformers peft safetensors
    python3 tests/golden/make_adapter_goldens.py
    python3 tests/golden/make_adapter_goldens.py --check FOLDER   # what stet wrote there, loaded by PEFT

adapters/base.safetensors: "llama.NAME" and "gpt2.NAME" the bases' state dicts, "in.tokens", "CASE/out" the logits,
computed in f64. adapters/CASE: PEFT's own files, with random values instead of the initial ones. The checked-in files
were written with the versions that the metadata names. The tied Llama is the other without its lm_head.
"""

import pathlib
import sys

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent / "adapters"
torch.set_num_threads(1)


def base(family):
    if family != "gpt2":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=16, rope_theta=10000.0, rms_norm_eps=1e-5, vocab_size=19, tie_word_embeddings=family == "tied_llama",
            attn_implementation="eager"))
    else:
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
            n_positions=9, n_embd=8, n_layer=2, n_head=2, vocab_size=19, attn_implementation="eager"))
    generator = torch.Generator().manual_seed(7)
    for key, p in model.named_parameters():
        around = 1.0 if key.endswith("weight") and p.dim() == 1 else 0.0
        p.data = around + torch.randn(p.shape, generator=generator) * 0.3
    return model.eval()


CASES = {
    "lora": ("llama", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "down_proj"])),
    "rslora": ("llama", peft.LoraConfig(r=3, lora_alpha=2, use_rslora=True, target_modules=["k_proj", "up_proj"])),
    "dora": ("llama", peft.LoraConfig(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "o_proj", "gate_proj"])),
    "ia3": ("llama", peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "gpt2_lora": ("gpt2", peft.LoraConfig(r=2, lora_alpha=3, fan_in_fan_out=True, target_modules=["c_attn", "c_fc"])),
    "gpt2_dora": ("gpt2", peft.LoraConfig(r=2, use_dora=True, fan_in_fan_out=True, target_modules=["c_attn", "mlp.c_proj"])),
    "gpt2_ia3": ("gpt2", peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
                                        fan_in_fan_out=True)),
    "lora_patterns": ("llama", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "down_proj"],
                                               rank_pattern={"layers.0.self_attn.q_proj": 5, "(v|q)_proj": 1},
                                               alpha_pattern={"^model.layers.1.self_attn.q_proj": 9, "down_proj": 2.5})),
    "lora_head": ("llama", peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "ia3_head": ("llama", peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"],
                                         modules_to_save=["lm_head"])),
    # "norm" is the end of every norm's name. PEFT knows "embed_tokens" and "lm_head" as tied, but not "wte".
    "norms": ("llama", peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "norm"])),
    "gpt2_bias_all": ("gpt2", peft.LoraConfig(r=2, bias="all", fan_in_fan_out=True, target_modules=["c_attn"],
                                              modules_to_save=["ln_f", "attn.c_proj"])),
    "gpt2_lora_only": ("gpt2", peft.LoraConfig(r=2, bias="lora_only", use_dora=True, fan_in_fan_out=True,
                                               target_modules=["c_attn", "c_fc"])),
    "gpt2_wte": ("gpt2", peft.LoraConfig(r=2, fan_in_fan_out=True, target_modules=["c_fc"], modules_to_save=["wte"],
                                         ensure_weight_tying=True)),
    "gpt2_untied": ("gpt2", peft.LoraConfig(r=2, fan_in_fan_out=True, target_modules=["c_fc"],
                                            modules_to_save=["wte", "lm_head"])),
    "gpt2_tied": ("gpt2", peft.LoraConfig(r=2, fan_in_fan_out=True, target_modules=["c_fc"],
                                          modules_to_save=["lm_head"], ensure_weight_tying=True)),
    "tied_llama": ("tied_llama", peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"],
                                                 ensure_weight_tying=True)),
    "gpt2_ia3_whole": ("gpt2", peft.IA3Config(target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True,
                                              modules_to_save=["wpe", "ln_1", "lm_head"])),
    # PEFT saves the table below "embed_tokens" as well, but not that below "wte".
    "lora_embed": ("llama", peft.LoraConfig(r=3, lora_alpha=2, use_rslora=True, lora_dropout=0.1,
                                            target_modules=["q_proj", "embed_tokens"],
                                            rank_pattern={"embed_tokens": 5}, alpha_pattern={"embed_tokens": 7})),
    "dora_embed": ("llama", peft.LoraConfig(r=2, use_dora=True, target_modules=["v_proj", "embed_tokens"])),
    "gpt2_embed": ("gpt2", peft.LoraConfig(r=2, lora_alpha=3, fan_in_fan_out=True,
                                           target_modules=["c_attn", "wte", "wpe"])),
}


def tokens():
    return torch.randint(19, (2, 7), generator=torch.Generator().manual_seed(1))


def logits(model):
    with torch.no_grad():
        return model.double().eval()(input_ids=tokens()).logits.float()


def write():
    tensors = {"in.tokens": tokens()}
    for family in ("llama", "gpt2"):
        for key, value in base(family).state_dict().items():
            if not (family == "gpt2" and key == "lm_head.weight"):
                tensors[f"{family}.{key}"] = value.clone().contiguous()
    for number, (name, (family, config)) in enumerate(CASES.items()):
        model = peft.get_peft_model(base(family), config)
        generator = torch.Generator().manual_seed(100 + number)
        for key, p in model.named_parameters():
            if "modules_to_save" in key or (p.requires_grad and key.endswith("bias")):
                p.data = p.data + torch.randn(p.shape, generator=generator) * 0.3
            elif "lora_" in key or "ia3_" in key:
                around = p.data if "magnitude" in key else 1.0 if "ia3_" in key else 0.0
                p.data = around + torch.randn(p.shape, generator=generator) * 0.3
        model.save_pretrained(HERE / name)
        (HERE / name / "README.md").unlink(missing_ok=True)
        tensors[f"{name}/out"] = logits(model)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    save_file(tensors, HERE / "base.safetensors", metadata=versions)


def check(folder):
    expected = load_file(HERE / "base.safetensors")
    for name, (family, _) in CASES.items():
        model = peft.PeftModel.from_pretrained(base(family), folder / name)
        error = (logits(model) - expected[f"{name}/out"]).abs().max().item()
        print(f"{name}: largest difference of a logit {error:.1e}")
        assert error <= 1e-5, name
        if name in ("gpt2_tied", "tied_llama"):
            ends = [end.modules_to_save["default"].weight
                    for end in (model.get_input_embeddings(), model.base_model.model.lm_head)]
            assert ends[0] is ends[1], name


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    check(pathlib.Path(sys.argv[2])) if sys.argv[1:2] == ["--check"] else write()
