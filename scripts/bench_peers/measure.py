"""Measures one column of scripts/bench-peers, alone on the machine if its caller sees to that.

    measure.py PLAN COLUMN

PLAN is the file that compare.py writes, COLUMN a column's name. The result is written when it is whole.
"""

import json
import os
import subprocess
import sys
import time

from columns import COLUMNS, OURS


def start(command, is_ready, **streams):
    """Starts a process; the seconds until a line of its output says that it is ready."""
    began = time.perf_counter()
    process = subprocess.Popen(command, text=True, **streams)
    stream = process.stdout if "stderr" not in streams else process.stderr
    for line in stream:
        if is_ready(line):
            return process, time.perf_counter() - began
    sys.exit(f"{command} ended with {process.wait()} before it was ready")


def measure_peer(python, column, plan_path, turns):
    """The peer's result, with the best of several start-ups: the first reads files that the others find in memory."""
    here = os.path.dirname(os.path.abspath(__file__))
    command = [python, os.path.join(here, column.script), plan_path, column.model]
    seconds = []
    for turn in range(turns):
        process, ready = start(command, lambda line: line.strip() == "ready", stdout=subprocess.PIPE)
        seconds.append(ready)
        if turn + 1 < turns:
            process.kill()
            process.wait()
    output = process.stdout.read()
    if process.wait() != 0:
        sys.exit(f"{command} failed")
    return json.loads(output) | {"start_up_seconds": min(seconds)}


class Ours:
    """This project's engine, by its own programs. Every run of `bench-engine` also measures the machine's limits."""

    def __init__(self, plan, column):
        self.plan, self.work = plan, plan["work"]
        self.engine = os.path.join(self.work, column.model)
        self.peaks, self.starts, self.machines, self.isa = [], [], [], None

    def prompts(self, prompts, before=()):
        """A file of prompts; those `before` them are given one token each."""
        lines = [{"prompt_ids": prompt, "max_new_tokens": 1} for prompt in before]
        lines += [{"prompt_ids": prompt} for prompt in prompts]
        path = os.path.join(self.work, "prompts.jsonl")
        with open(path, "w") as opened:
            opened.writelines(json.dumps(line) + "\n" for line in lines)
        return path

    def bench(self, path, output_len, load):
        """One run of `bench-engine` on a file of prompts."""
        command = [os.path.join(self.plan["bin"], "bench-engine"), "--engine", self.engine]
        command += ["--prompts", path, "--output-len", str(output_len)]
        command += ["--threads", str(self.plan["threads"]), "--format", "json", "--kv-cache-tokens", "8192", *load]
        process, ready = start(command, lambda _: True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, messages = process.communicate()
        if process.returncode != 0:
            sys.exit(f"{command} failed: {messages}")
        report = json.loads(output)
        self.starts.append(ready)
        self.machines.append(report["machine"])
        self.isa = report["engine"]["isa"]
        return report["runs"][0]

    def first_ids(self):
        path = self.prompts(self.plan["prompts"])
        command = [os.path.join(self.plan["bin"], "run-engine"), "--engine", self.engine, "--prompts", path, "--quiet"]
        command += ["--max-new-tokens", "1", "--ignore-eos", "--format", "json", "--kv-cache-tokens", "8192"]
        command += ["--threads", str(self.plan["threads"])]
        lines = [json.loads(line) for line in subprocess.check_output(command, text=True).splitlines()]
        return [line["output_ids"][0] for line in sorted(lines, key=lambda line: line["index"])]

    def measure(self):
        context, generation, work = {}, {}, {}
        for length, prompts in self.plan["context"].items():
            run = self.bench(self.prompts(prompts), 1, ["--concurrency", "1"])
            context[length] = int(length) / run["time_to_first_token"]["min"]
            # The share is that of all prompts; the rate is the best one's.
            work[f"context {length}"] = run["context"]
        # All others come while this one is computed, so that they begin together: one that began alone would generate while
        # their prompts are computed, piece by piece.
        first = next(iter(self.plan["context"].values()))[:1]
        for batch in self.plan["batches"]:
            path = self.prompts(self.plan["prompts"][:batch], first)
            for _ in range(self.plan["turns"]):
                run = self.bench(path, self.plan["steps"], ["--arrivals", "fixed", "--rate", "1000"])
                phase = run["generation"]
                if phase["tokens"] != batch * phase["iterations"]:
                    print(f"not counted: {batch} sequences did not begin together", file=sys.stderr, flush=True)
                    continue
                rate = batch / run["time_per_output_token"]["p50"]
                if rate > generation.get(str(batch), 0):
                    overhead = run["generation_overhead"]
                    outside = overhead["outside_model"] + overhead["detokenization"]
                    generation[str(batch)] = rate
                    work[f"generation {batch}"] = phase | {"outside_model": outside}
            if str(batch) not in generation:
                sys.exit(f"no run of {self.engine} with {batch} sequences together")
        best = lambda limit: max(machine[limit] for machine in self.machines)
        return {
            "context_tokens_per_second": context,
            "generation_tokens_per_second": generation,
            "peak_resident_bytes": max(machine["peak_resident_bytes"] for machine in self.machines),
            "start_up_seconds": min(self.starts),
            "first_ids": self.first_ids(),
            "versions": self.isa,
            "work": work,
            "read_bytes_per_second": best("read_bytes_per_second"),
            "matrix_flops_per_second": best("matrix_flops_per_second"),
        }


def write_whole(path, content):
    aside = f"{path}.partial"
    with open(aside, "w") as opened:
        opened.write(content)
    os.replace(aside, path)


def main(plan_path, name):
    with open(plan_path) as opened:
        plan = json.load(opened)
    column = next(column for column in COLUMNS if column.name == name)
    if column.engine == OURS:
        result = Ours(plan, column).measure()
    else:
        result = measure_peer(plan["pythons"][column.engine], column, plan_path, plan["turns"])
    path = column.result(plan["work"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_whole(path, json.dumps(result | {"plan": plan["key"]}, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
