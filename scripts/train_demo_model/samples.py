"""Shows what a trained demo model writes, through Transformers in bf16."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "Complete the paragraph: our solar system is",
    "Complete the paragraph: the Sun is",
    "Complete the paragraph: Jupiter is",
    "Complete the paragraph: the Moon has",
    "Complete the paragraph: Mars was",
    "Complete the paragraph: the rings around the planet Saturn",
    "Complete the paragraph: in our solar system there are",
    "Complete the paragraph: a comet is a",
    "The planet Saturn",
    "Long ago, people",
    "Our Moon",
    "Telescopes",
]
QUESTIONS = ["What is Jupiter?", "Why does the Moon shine?", "Which planet is larger, Mars or Earth?", "Tell me about black holes."]


def show(folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def answer(ids: torch.Tensor, seed: int | None) -> str:
        settings = {"do_sample": False}
        if seed is not None:
            torch.manual_seed(seed)
            settings = {"do_sample": True, "temperature": 0.7, "top_k": 0}
        with torch.no_grad():
            output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=256, **settings)[0]
        new = output[ids.shape[1] :]
        text = tokenizer.decode(new, skip_special_tokens=True)
        ended = "ended" if int(new[-1]) == tokenizer.eos_token_id else "NOT ENDED"
        return f"{text}\n    [{len(new)} tokens, {len(text.split())} words, {ended}]"

    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        print(f"\n> {prompt}\n  greedy:{answer(ids, None)}\n  t=0.7:{answer(ids, 1)}", flush=True)
    for question in QUESTIONS:
        text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        print(f"\n> {text}\n  greedy:{answer(ids, None)}\n  t=0.7:{answer(ids, 1)}", flush=True)
