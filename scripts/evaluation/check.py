"""Compares what the harness received over HTTP with what run-engine gives for the same token ids."""

import json
import subprocess
import tempfile
from typing import Any

from model import Generation, LogLikelihood, Received

# JSON has no infinity: the server writes this.
MINUS_INFINITY = -9999.0


def check(program: str, engine: str, received: Received) -> list[str]:
    """What differs, a line for each."""
    prompts = [log_probs_line(each) for each in received.log_likelihoods] + [text_line(each) for each in received.generations]
    outputs = run(program, engine, prompts)
    problems = []
    count = len(received.log_likelihoods)
    for number, (each, output) in enumerate(zip(received.log_likelihoods, outputs[:count], strict=True)):
        problems += [f"log-likelihood {number}: {problem}" for problem in log_probs_differ(each, output)]
    for number, (each, output) in enumerate(zip(received.generations, outputs[count:], strict=True)):
        if each.text != output["text"]:
            problems.append(f"text {number}: {each.text!r} over HTTP, {output['text']!r} from run-engine")
    return problems


def log_probs_line(each: LogLikelihood) -> dict[str, Any]:
    return {"prompt_ids": each.ids, "max_new_tokens": 0, "prompt_logprobs": True, "prompt_top_logprobs": 1}


def text_line(each: Generation) -> dict[str, Any]:
    return {"prompt_ids": each.ids, "max_new_tokens": each.max_tokens, "stop": each.stop, "temperature": 0}


def run(program: str, engine: str, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """run-engine's outputs in the order of the prompts."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(prompt) + "\n" for prompt in prompts)
        file.flush()
        command = [program, "--engine", engine, "--prompts", file.name, "--format", "json", "--detokenize", "--quiet"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    outputs = sorted(map(json.loads, lines), key=lambda output: output["index"])
    assert len(outputs) == len(prompts), f"{len(outputs)} outputs of {len(prompts)} prompts"
    return outputs


def log_probs_differ(each: LogLikelihood, output: dict[str, Any]) -> list[str]:
    # Both print the shortest digits that say which f32 it is, so that equal numbers here are equal digits there.
    own = [MINUS_INFINITY if value is None else value for value in output["prompt_logprobs"]]
    best = [MINUS_INFINITY if tops[0]["logprob"] is None else tops[0]["logprob"] for tops in output["prompt_top_logprobs"]]
    first, *values = each.token_logprobs
    problems = []
    if first is not None or len(values) != len(own) + 1:
        problems.append(f"{len(values) + 1} values of {len(each.ids)} ids and a generated token, the first {first}")
    for position, (got, wanted) in enumerate(zip(values, own), start=1):
        if got != wanted:
            problems.append(f"position {position} of {len(each.ids)}: {got!r} over HTTP, {wanted!r} from run-engine")
    total = sum(own[each.context - 1 :])
    if each.total != total:
        problems.append(f"the harness sums up to {each.total!r}, run-engine's values to {total!r}")
    is_greedy = all(value == top for value, top in zip(own[each.context - 1 :], best[each.context - 1 :]))
    if each.is_greedy != is_greedy:
        problems.append(f"is_greedy is {each.is_greedy} for the harness, {is_greedy} for run-engine")
    return problems
