"""Hugging Face Transformers on torch, bfloat16: see peer.py."""

import time

import peer
import torch
import transformers


class Clock(transformers.StoppingCriteria):
    """Notes when each step ends; stops nothing."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **_):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class Transformers:
    def __init__(self, plan, model):
        torch.set_num_threads(plan["threads"])
        model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        self.model = model.eval()
        attention = model.config._attn_implementation
        self.versions = f"transformers {transformers.__version__}, torch {torch.__version__}, attention `{attention}`"

    @torch.inference_mode()
    def context(self, prompt):
        logits = self.model(torch.tensor([prompt]), logits_to_keep=1, use_cache=True).logits
        return int(logits[0, -1].argmax())

    @torch.inference_mode()
    def generate(self, prompts, steps):
        clock = Clock()
        ids = torch.tensor(prompts)
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=steps,
            max_new_tokens=steps,
            pad_token_id=0,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )
        return clock.times, output[:, ids.shape[1]].tolist()


peer.run(Transformers)
