"""Writes a model of a configuration's shape whose weights are zeros, in a file without blocks on the disk.

    zeros.py CONFIG LAYERS FOLDER
"""

import json
import math
import pathlib
import struct
import sys


def tensors(config):
    """Shapes of the weights, under Transformers' names."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", [vocab, hidden]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        yield f"model.layers.{layer}.input_layernorm.weight", [hidden]
        yield f"model.layers.{layer}.post_attention_layernorm.weight", [hidden]
        products = {
            "self_attn.q_proj": [heads * size, hidden],
            "self_attn.k_proj": [kv_heads * size, hidden],
            "self_attn.v_proj": [kv_heads * size, hidden],
            "self_attn.o_proj": [hidden, heads * size],
            "mlp.gate_proj": [inner, hidden],
            "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner],
        }
        for name, shape in products.items():
            yield f"model.layers.{layer}.{name}.weight", shape


def main():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())
    config["num_hidden_layers"] = int(sys.argv[2])
    folder = pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in tensors(config):
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


if __name__ == "__main__":
    main()
