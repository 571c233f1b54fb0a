"""Compares an engine with Transformers on the same model, prompt by prompt.

    compare.py RUN_ENGINE ENGINE MODEL TOKENS

Transformers in fp32 is the reference; Transformers in bfloat16 is the measure of what rounding does.
"""

import json
import subprocess
import sys
import tempfile

import torch
from prompts import CHATS, COMPLETIONS
from transformers import AutoModelForCausalLM, AutoTokenizer

# A token may differ from the reference's best where that is ahead by no more than this, in nats.
NEAR_TIE = 0.25

failures = []


def check(right, what):
    if not right:
        failures.append(what)
        print(f"  WRONG: {what}")


def run(run_engine, engine, lines, *options):
    """One result for each line, in their order."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        command = [run_engine, "--engine", engine, "--prompts", file.name, "--format", "json", *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    results = sorted(map(json.loads, ended.stdout.splitlines()), key=lambda result: result["index"])
    if len(results) != len(lines):
        sys.exit(f"{len(results)} results for {len(lines)} prompts, exit code {ended.returncode}")
    for line, result in zip(lines, results):
        if "error" in result:
            sys.exit(f"{json.dumps(line)[:200]}: {result['error']}")
    return results


def rendered_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def log_probs(path, dtype, sequences):
    """For each sequence the log-probabilities of everything at every position, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    for ids in sequences:
        with torch.inference_mode():
            yield torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)


def main(run_engine, engine, path, tokens):
    tokenizer = AutoTokenizer.from_pretrained(path)
    asked = [{"prompt": text} for text in COMPLETIONS]
    ids = [tokenizer(text)["input_ids"] for text in COMPLETIONS]
    if tokenizer.chat_template:
        for messages in CHATS:
            try:
                ids.append(rendered_ids(tokenizer, messages))
                asked.append({"messages": messages})
            except Exception as refused:  # templates refuse conversations in ways of their own
                print(f"  the template refuses {json.dumps(messages)[:60]}…: {refused}")
    else:
        print("  no chat template: chats are left out")

    options = ["--max-new-tokens", tokens, "--logprobs", "--prompt-logprobs"]
    results = run(run_engine, engine, asked, *options)
    by_ids = run(run_engine, engine, [{"prompt_ids": prompt} for prompt in ids], *options)

    # Log-probabilities of the prompt are the same bits if and, for all that is likely, only if its ids are.
    for line, prompt, result, expected in zip(asked, ids, results, by_ids):
        name = json.dumps(line, ensure_ascii=False)[:60]
        check(result["prompt_tokens"] == len(prompt), f"{name}: {result['prompt_tokens']} prompt tokens, not {len(prompt)}")
        for part in ["prompt_logprobs", "output_ids", "logprobs", "text"]:
            check(result[part] == expected[part], f"{name}: {part} differ from those of Transformers' ids")
        text = tokenizer.decode(result["output_ids"], skip_special_tokens=True)
        check(result["text"] == text, f"{name}: text {result['text']!r}, not {text!r}")
    print(f"{len(ids)} prompts ({len(asked) - len(COMPLETIONS)} chats) of {min(map(len, ids))} to {max(map(len, ids))} tokens")

    sequences = [prompt + result["output_ids"] for prompt, result in zip(ids, by_ids)]
    rows = []
    for kind, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        for number, scores in enumerate(log_probs(path, dtype, sequences)):
            sequence = torch.tensor(sequences[number][1:])
            chosen = scores[:-1].gather(1, sequence[:, None])[:, 0]
            if kind == "fp32":
                start = len(ids[number]) - 1
                behind = (scores[:-1].max(dim=1).values - chosen)[start:]
                rows.append([chosen, None, behind])
            else:
                rows[number][1] = chosen

    ours, theirs, differing, worst = [], [], 0, 0.0
    for (reference, rounded, behind), result in zip(rows, by_ids):
        mine = torch.tensor(result["prompt_logprobs"] + result["logprobs"])
        ours.append((mine - reference).abs())
        theirs.append((rounded - reference).abs())
        differing += int((behind > 0).sum())
        worst = max(worst, float(behind.max()) if len(behind) else 0.0)
    ours, theirs = torch.cat(ours), torch.cat(theirs)
    print(f"{len(ours)} log-probabilities; distance from Transformers in fp32, in nats:")
    print(f"                      {'mean':>8} {'largest':>8}")
    print(f"  this engine         {ours.mean():8.4f} {ours.max():8.4f}")
    print(f"  Transformers, bf16  {theirs.mean():8.4f} {theirs.max():8.4f}")
    print(f"{differing} greedy tokens are not the reference's best; the farthest is {worst:.4f} nats behind it")
    check(ours.mean() <= theirs.mean(), "the mean distance is larger than that of Transformers in bf16")
    check(ours.max() <= 1.25 * theirs.max(), "the largest distance is more than 1.25 times that of Transformers in bf16")
    check(worst <= NEAR_TIE, f"a greedy token is more than {NEAR_TIE} nats behind the reference's best")
    if failures:
        sys.exit(f"{len(failures)} checks failed")
    print("all checks passed")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
