"""What Transformers makes of the same prompts."""

import os
import time

# Templates that print today's date print it in UTC, as the engine does.
os.environ["TZ"] = "UTC"
time.tzset()

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: E402


class Texts:
    """The model's tokenizer and chat template."""

    def __init__(self, path):
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.has_chat_template = bool(self.tokenizer.chat_template)
        eos = GenerationConfig.from_pretrained(path).eos_token_id if os.path.exists(f"{path}/generation_config.json") else None
        ends = eos if isinstance(eos, list) else [eos, self.tokenizer.eos_token_id]
        self.ends = sorted({id for id in [*ends, self.tokenizer.eos_token_id] if id is not None})

    def encode(self, line):
        """The `ids` of a line of a prompts file, and of a conversation the `text`; or an `error`."""
        if "prompt" in line:
            return {"ids": self.tokenizer(line["prompt"])["input_ids"], "text": None}
        messages, goes_on = line["messages"], line.get("continue_final_message", False)
        if "system" in line and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": line["system"]}, *messages]
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tools=line.get("tools"),
                documents=line.get("documents"),
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                tokenize=False,
                **line.get("chat_template_kwargs", {}),
            )
        except Exception as refused:  # templates refuse conversations in ways of their own
            return {"error": str(refused)}
        return {"ids": self.tokenizer(text, add_special_tokens=False)["input_ids"], "text": text}

    def decode(self, prompt, output):
        """The text that `output` adds to `prompt`."""
        before, whole = (self.tokenizer.decode(ids, skip_special_tokens=True) for ids in [prompt, prompt + output])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(output, skip_special_tokens=True)


class Model:
    """The model in one type of numbers."""

    def __init__(self, path, dtype, ends):
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
        # Greedy, and nothing of what the model's own generation_config.json suggests.
        self.model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[0] if ends else 0)

    @torch.inference_mode()
    def answer(self, prompt, tokens):
        """The greedy answer of at most so many tokens."""
        ids = torch.tensor([prompt])
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens)[0, len(prompt) :].tolist()

    @torch.inference_mode()
    def score(self, ids):
        """The log-probability of each token after the first, and how far it is behind the best of its position, in fp32."""
        scores = torch.log_softmax(self.model(torch.tensor([ids])).logits[0, :-1].float(), dim=-1)
        chosen = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        return chosen, scores.max(dim=1).values - chosen
