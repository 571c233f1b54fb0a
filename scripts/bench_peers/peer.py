"""What the peers' processes have in common.

A peer is started with the plan's file and its model's path below the work folder. It loads the model, prints `ready`, does what the plan says and prints one JSON object. A peer is a class with

- `context(prompt)`: processes a prompt and computes the logits of its last token; returns that logits' best id;
- `generate(prompts, steps)`: generates greedily for prompts of one length together; returns the time after each step
  and the first generated id of each prompt;
- `versions`: what it consists of.
"""

import json
import os
import sys
import time


def peak_resident_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def run(make):
    """`make(plan, model)` is the peer that is ready."""
    with open(sys.argv[1]) as opened:
        plan = json.load(opened)
    peer = make(plan, os.path.join(plan["work"], sys.argv[2]))
    print("ready", flush=True)

    peer.generate([plan["warm_up"]], 4)
    context = {}
    for length, prompts in plan["context"].items():
        best = None
        for prompt in prompts:
            began = time.perf_counter()
            peer.context(prompt)
            seconds = time.perf_counter() - began
            best = min(best or seconds, seconds)
        context[length] = len(prompts[0]) / best
    generation, first_ids = {}, {}
    for batch in plan["batches"]:
        rates = []
        for _ in range(plan["turns"]):
            times, ids = peer.generate(plan["prompts"][:batch], plan["steps"])
            rates.append(batch * (len(times) - 1) / (times[-1] - times[0]))
        generation[batch] = max(rates)
        first_ids[batch] = ids
    result = {
        "context_tokens_per_second": context,
        "generation_tokens_per_second": generation,
        "peak_resident_bytes": peak_resident_bytes(),
        "first_ids": first_ids[max(plan["batches"])],
        "versions": peer.versions,
    }
    print(json.dumps(result), flush=True)
