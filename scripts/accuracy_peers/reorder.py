"""Puts a Llama or Mistral model's channels into another order, by a fixed seed: the same function, other blocks.

    reorder.py MODEL_DIR OUTPUT_DIR

For models whose weights were quantized in blocks once and then written as bfloat16: a type with the same blocks finds the old codes again and
looks better than it is on trained weights. Here each block gets weights of many old ones. Reordered are the hidden channels, the
channels of each MLP, and the value channels of each head.
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file


def main(source, output):
    with open(os.path.join(source, "config.json")) as opened:
        config = json.load(opened)
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head = config.get("head_dim") or hidden // heads
    random = torch.Generator().manual_seed(1)
    order = torch.randperm(hidden, generator=random)
    tensors = load_file(os.path.join(source, "model.safetensors"))
    for name in ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]:
        if name in tensors:
            tensors[name] = tensors[name][..., order]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        values = torch.stack([torch.randperm(head, generator=random) for _ in range(kv_heads)])
        of_kv = (values + head * torch.arange(kv_heads)[:, None]).flatten()
        of_query = (values.repeat_interleave(heads // kv_heads, 0) + head * torch.arange(heads)[:, None]).flatten()
        of_mlp = torch.randperm(wide, generator=random)
        for part, rows, columns in [
            ("input_layernorm", order, None),
            ("post_attention_layernorm", order, None),
            ("self_attn.q_proj", None, order),
            ("self_attn.k_proj", None, order),
            ("self_attn.v_proj", of_kv, order),
            ("self_attn.o_proj", order, of_query),
            ("mlp.gate_proj", of_mlp, order),
            ("mlp.up_proj", of_mlp, order),
            ("mlp.down_proj", order, of_mlp),
        ]:
            tensor = tensors[f"{p}{part}.weight"]
            tensor = tensor if rows is None else tensor[rows]
            tensors[f"{p}{part}.weight"] = tensor if columns is None else tensor[:, columns]
    os.makedirs(output, exist_ok=True)
    for file in os.listdir(source):
        if not file.endswith((".safetensors", ".index.json")):
            shutil.copy(os.path.join(source, file), output)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, os.path.join(output, "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
