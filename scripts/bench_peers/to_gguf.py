"""Converts a Llama or Mistral model from Hugging Face safetensors in bfloat16 to GGUF, without a tokenizer.

    to_gguf.py MODEL_DIR FILE

llama.cpp rotates neighbouring elements of a head where Transformers rotates its halves, so the rows of the query and
key projections are interleaved on the way.
"""

import json
import mmap
import os
import sys

import gguf
import numpy as np

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def tensors(directory):
    """Every tensor of the directory's safetensors files: its name and its bits, not copied."""
    for file in sorted(os.listdir(directory)):
        if not file.endswith(".safetensors"):
            continue
        with open(os.path.join(directory, file), "rb") as opened:
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        size = int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            if tensor["dtype"] != "BF16":
                sys.exit(f"{file}: {name} is {tensor['dtype']}, not BF16")
            start, end = tensor["data_offsets"]
            bits = np.frombuffer(data, np.uint16, (end - start) // 2, 8 + size + start)
            yield name, bits.reshape(tensor["shape"])


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def interleave(rows, heads):
    """The rows of each head from halves to neighbours."""
    head = rows.shape[0] // heads
    return rows.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def main(directory, path):
    with open(os.path.join(directory, "config.json")) as opened:
        config = json.load(opened)
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default" or config.get("attention_bias"):
        sys.exit(f"{directory} has RoPE of type {kind} or biases of attention, which this conversion does not do")
    theta = config.get("rope_theta") or rope["rope_theta"]

    aside = f"{path}.partial-{os.getpid()}"
    writer = gguf.GGUFWriter(aside, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    for name, bits in tensors(directory):
        if name.endswith("q_proj.weight"):
            bits = interleave(bits, heads)
        elif name.endswith("k_proj.weight"):
            bits = interleave(bits, kv_heads)
        if bits.ndim == 1:
            # Norms are fp32 in GGUF.
            writer.add_tensor(gguf_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(gguf_name(name), bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(aside, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
