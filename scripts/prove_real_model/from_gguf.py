"""Makes a Transformers model directory (bfloat16) of a GGUF file of a Llama model, with Transformers' own reader.

    from_gguf.py FILE DIR

Transformers will not save a model that it read from GGUF, so the weights are put into a new one. Its reader also drops what the
pre-tokenizer `smollm` does first, which is to split numbers into digits; that is put back.
"""

import json
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

SETTINGS = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "pad_token_id", "rope_parameters",
]  # fmt: skip


def field(reader, name):
    found = reader.get_field(name)
    return found.contents() if found else None


def main(file, directory):
    file, directory = Path(file), Path(directory)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = LlamaConfig(**{name: getattr(read.config, name) for name in SETTINGS if hasattr(read.config, name)})
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(directory)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(directory)

    if field(gguf.GGUFReader(file), "tokenizer.ggml.pre") == "smollm":
        path = directory / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        split = {"type": "Digits", "individual_digits": True}
        before = tokenizer["pre_tokenizer"]
        rest = before["pretokenizers"] if before["type"] == "Sequence" else [before]
        if split not in rest:
            tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, *rest]}
            path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
