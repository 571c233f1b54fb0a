"""Compares an engine with Transformers on the same model, prompt by prompt.

    compare.py BIN ENGINE MODEL TOKENS

BIN holds run-engine and examples/encode_prompts. Transformers in fp32 is the reference; Transformers in bfloat16 is the measure of
what rounding does.
"""

import json
import sys
from dataclasses import dataclass, field

import engine as programs
import torch
from prompts import CHATS, COMPLETIONS
from reference import Model, Texts

# A token may differ from the reference's best where that is ahead by no more than this, in nats.
NEAR_TIE = 0.25

failures = []


def check(right, what):
    if not right:
        failures.append(what)
        print(f"  WRONG: {what}")


@dataclass
class Case:
    """A prompt, and what became of it."""

    name: str
    kind: str
    line: dict
    ids: list
    result: dict = None
    # By type of numbers: the greedy answer, and each token's log-probability and its distance from the best.
    answers: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    behind: dict = field(default_factory=dict)

    def sequence(self):
        return self.ids + self.result["output_ids"]

    def ours(self):
        return torch.tensor(self.result["prompt_logprobs"] + self.result["logprobs"])


def compare_prompts(bin, engine, texts):
    """The prompts that both sides take, after a comparison of their texts and ids."""
    lines = [{"prompt": text} for text in COMPLETIONS]
    if texts.has_chat_template:
        lines += CHATS
    else:
        print("no chat template: chats are left out")
    cases = []
    for line, ours in zip(lines, programs.encode(bin, engine, lines), strict=True):
        name = json.dumps(line, ensure_ascii=False)[:70]
        theirs = texts.encode(line)
        if "error" in theirs:
            here = "refused here too" if "error" in ours else "taken here"
            print(f"  Transformers refuses, {here}: {name}…: {theirs['error'].splitlines()[0][:100]}")
            continue
        check("error" not in ours, f"{name}: {ours.get('error')}")
        if "error" in ours:
            continue
        for part in ["text", "ids"]:
            check(ours[part] == theirs[part], f"{name}: {part} {ours[part]!r}, not {theirs[part]!r}")
        cases.append(Case(name, "chats" if "messages" in line else "completions", line, theirs["ids"]))
    return cases


def compare_results(cases, texts, tokens):
    """What follows from an output alone: its text and why it ended."""
    for case in cases:
        result = case.result
        check(result["prompt_tokens"] == len(case.ids), f"{case.name}: {result['prompt_tokens']} prompt tokens")
        text = texts.decode(case.ids, result["output_ids"])
        check(result["text"] == text, f"{case.name}: text {result['text']!r}, not {text!r}")
        *before, last = result["output_ids"]
        check(not set(before) & set(texts.ends), f"{case.name}: an end token amid the output")
        reason = ["end_id", last] if last in texts.ends else ["length", None]
        found = [result["finish_reason"], result.get("stop_reason")]
        check(found == reason, f"{case.name}: ended by {found}, not {reason}")
        check(reason[0] == "end_id" or len(result["output_ids"]) == tokens, f"{case.name}: shorter than asked for")


def first_difference(ours, theirs):
    """Where two answers part; none where they are equal."""
    if ours == theirs:
        return None
    return next((at for at, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))


def compare_answers(cases):
    """Greedy answers: equal, or parted where the reference itself has two tokens that are nearly as good."""
    for case in cases:
        ours, behind = case.result["output_ids"], case.behind["fp32"][len(case.ids) - 1 :]
        at = first_difference(ours, case.answers["fp32"])
        if at is None:
            continue
        check(at < min(len(ours), len(case.answers["fp32"])), f"{case.name}: one answer ends within the other")
        check(at >= len(ours) or behind[at] <= NEAR_TIE, f"{case.name}: token {at} of the answer differs, and is no near tie")


def report(cases):
    """The table, and the checks of all that was measured."""
    print(f"\n{'':12} {'':>8} {'':>8} {'distance from Transformers in fp32, in nats':^49} {'answers equal to its':^21}")
    print(f"{'':12} {'':>8} {'log-':>8} {'this engine':^24} {'Transformers, bf16':^24} {'this':>10} {'Transf.,':>10}")
    print(f"{'':12} {'prompts':>8} {'probs':>8}" + f" {'mean':>11} {'largest':>12}" * 2 + f" {'engine':>10} {'bf16':>10}")
    for kind in ["completions", "chats", "all"]:
        chosen = [case for case in cases if kind in (case.kind, "all")]
        if not chosen:
            continue
        ours = torch.cat([(case.ours() - case.scores["fp32"]).abs() for case in chosen])
        theirs = torch.cat([(case.scores["bf16"] - case.scores["fp32"]).abs() for case in chosen])
        equal = sum(case.result["output_ids"] == case.answers["fp32"] for case in chosen)
        rounded = sum(case.answers["bf16"] == case.answers["fp32"] for case in chosen)
        print(
            f"{kind:12} {len(chosen):8} {len(ours):8} {ours.mean():11.4f} {ours.max():12.4f} {theirs.mean():11.4f}"
            f" {theirs.max():12.4f} {equal:10} {rounded:10}"
        )
    behind = torch.cat([case.behind["fp32"][len(case.ids) - 1 :] for case in cases])
    ended = sum(case.result["finish_reason"] == "end_id" for case in cases)
    print(f"\nprompts of {min(len(case.ids) for case in cases)} to {max(len(case.ids) for case in cases)} tokens")
    print(f"{len(behind)} tokens in answers, of which {ended} ended by themselves")
    print(f"{int((behind > 0).sum())} greedy tokens are not the reference's best; the farthest is {behind.max():.4f} nats behind it")
    check(ours.mean() <= theirs.mean(), "the mean distance is larger than that of Transformers in bf16")
    check(ours.max() <= 1.25 * theirs.max(), "the largest distance is more than 1.25 times that of Transformers in bf16")
    check(behind.max() <= NEAR_TIE, f"a greedy token is more than {NEAR_TIE} nats behind the reference's best")


def main(bin, engine, path, tokens):
    texts = Texts(path)
    cases = compare_prompts(bin, engine, texts)
    options = ["--max-new-tokens", tokens, "--logprobs", "--prompt-logprobs"]
    for case, result in zip(cases, programs.complete(bin, engine, [case.line for case in cases], *options), strict=True):
        case.result = result
    compare_results(cases, texts, int(tokens))
    for kind, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        model = Model(path, dtype, texts.ends)
        for case in cases:
            case.answers[kind] = model.answer(case.ids, int(tokens))
            case.scores[kind], case.behind[kind] = model.score(case.sequence())
        del model
    compare_answers(cases)
    report(cases)
    if failures:
        sys.exit(f"{len(failures)} checks failed")
    print("all checks passed")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
