"""Measures the columns one after the other, each in a process of its own, and puts them side by side. See
scripts/bench-peers. What was measured stays in results/ until all columns are there: a run that was stopped goes on."""

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys

from columns import OURS, chosen
from measure import write_whole
from table import table

CONTEXTS = (512, 2048)
BATCHES = (1, 8, 32)
PROMPT_LEN = 64
STEPS = 33


def plan_of(args):
    """Prompts are random ids; all differ, so that no engine finds one in a cache. Ids below 3 are left to the model's
    special tokens."""
    with open(os.path.join(args.model, "config.json")) as opened:
        vocab_size = json.load(opened)["vocab_size"]
    draw = random.Random(0)
    prompt = lambda length: [draw.randrange(3, vocab_size) for _ in range(length)]
    measured = {
        "model": args.model,
        "threads": args.threads,
        "turns": args.turns,
        "context": {str(length): [prompt(length) for _ in range(args.turns)] for length in CONTEXTS},
        "batches": BATCHES,
        "prompts": [prompt(PROMPT_LEN) for _ in range(max(BATCHES))],
        "steps": STEPS,
        "warm_up": prompt(PROMPT_LEN),
    }
    return measured | {
        "key": hashlib.sha256(json.dumps(measured).encode()).hexdigest(),
        "work": args.work,
        "bin": args.bin,
        "pythons": {
            "Transformers": args.python,
            "llama.cpp": args.python,
            "OpenVINO": args.openvino_python,
        },
    }


def measured(column, plan):
    """The result that is there, unless it is of another plan, or of programs that were built anew since."""
    path = column.result(plan["work"])
    program = os.path.join(plan["bin"], "bench-engine")
    if not os.path.exists(path) or (column.engine == OURS and os.path.getmtime(path) < os.path.getmtime(program)):
        return None
    with open(path) as opened:
        result = json.load(opened)
    return result if result.pop("plan") == plan["key"] else None


def main():
    parser = argparse.ArgumentParser()
    for option in ("work", "model", "bin", "python", "openvino-python", "types", "peers"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--wrap", default="", type=shlex.split)
    for option in ("threads", "turns"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args()
    plan = plan_of(args)
    plan_path = os.path.join(args.work, "plan.json")
    write_whole(plan_path, json.dumps(plan))
    measure = os.path.join(os.path.dirname(os.path.abspath(__file__)), "measure.py")
    results = {}
    for column in chosen(args.types.split(","), args.peers.split(",")):
        if measured(column, plan) is None:
            print(f"Measuring {column.name}", file=sys.stderr, flush=True)
            subprocess.run([*args.wrap, sys.executable, measure, plan_path, column.name], check=True)
        results[column] = measured(column, plan)
    text = table(results, plan)
    by_name = {column.name: result for column, result in results.items()}
    write_whole(os.path.join(args.work, "peers.json"), json.dumps(by_name, indent=2) + "\n")
    write_whole(os.path.join(args.work, "peers.md"), text)
    shutil.rmtree(os.path.join(args.work, "results"))
    print(text, end="")


if __name__ == "__main__":
    main()
