"""The demo model's shape, and the files of its directory."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import MistralConfig, MistralForCausalLM

from tokenizer import BOS_ID, EOS_ID, PAD_ID, tokenizer_config

VOCAB_SIZE = 2560
CONTEXT = 1024

# config.json in the spelling of Transformers 4. As in Mistral-NeMo, the heads together are not as wide as the hidden state.
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 704,
    "max_position_embeddings": CONTEXT,
    "model_type": "mistral",
    "num_attention_heads": 6,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "pad_token_id": PAD_ID,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCAB_SIZE,
}

GENERATION_CONFIG = {"bos_token_id": BOS_ID, "do_sample": False, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}


def new_model() -> MistralForCausalLM:
    """A model with random fp32 weights from torch's current seed."""
    settings = {key: value for key, value in CONFIG.items() if key not in ("architectures", "model_type", "torch_dtype")}
    config = MistralConfig(**settings)
    config._attn_implementation = "sdpa"
    return MistralForCausalLM(config).float()


def read_directory(folder: Path) -> tuple[Tokenizer, MistralForCausalLM]:
    """What `write_directory` wrote, the weights widened to fp32."""
    model = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return Tokenizer.from_file(str(folder / "tokenizer.json")), model


def write_directory(folder: Path, model: MistralForCausalLM, tokenizer: Tokenizer) -> None:
    """Writes the five files of a Hugging Face model directory, weights as bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in [
        ("config.json", CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
        ("tokenizer_config.json", tokenizer_config(CONTEXT)),
    ]:
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
