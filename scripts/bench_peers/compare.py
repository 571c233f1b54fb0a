"""Runs the engines one after the other and puts their figures side by side. See scripts/bench-peers."""

import argparse
import json
import os
import random
import subprocess
import sys
import time

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
    return {
        "model": args.model,
        "gguf": args.gguf,
        "threads": args.threads,
        "turns": args.turns,
        "context": {str(length): [prompt(length) for _ in range(args.turns)] for length in CONTEXTS},
        "batches": BATCHES,
        "prompts": [prompt(PROMPT_LEN) for _ in range(max(BATCHES))],
        "steps": STEPS,
        "warm_up": prompt(PROMPT_LEN),
    }


def start(command, is_ready, **streams):
    """Starts a process; the seconds until a line of its output says that it is ready."""
    began = time.perf_counter()
    process = subprocess.Popen(command, text=True, **streams)
    stream = process.stdout if "stderr" not in streams else process.stderr
    for line in stream:
        if is_ready(line):
            return process, time.perf_counter() - began
    sys.exit(f"{command} ended with {process.wait()} before it was ready")


def run_peer(python, script, plan_path, turns):
    """The peer's result, with the best of several start-ups: the first reads files that the others find in memory."""
    command = [python, os.path.join(os.path.dirname(os.path.abspath(__file__)), script), plan_path]
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


def bench_engine(args, prompts, name, output_len, load):
    """One run of bench-engine on prompts given as ids: its JSON, and the seconds until its engine took requests."""
    path = os.path.join(args.output, f"{name}.jsonl")
    with open(path, "w") as opened:
        opened.writelines(json.dumps({"prompt_ids": prompt}) + "\n" for prompt in prompts)
    command = [os.path.join(args.bin, "bench-engine"), "--engine", args.engine, "--prompts", path]
    command += ["--output-len", str(output_len), "--threads", str(args.threads), "--format", "json"]
    command += ["--kv-cache-tokens", "8192", *load]
    process, ready = start(command, lambda _: True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, messages = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{command} failed: {messages}")
    return json.loads(output), ready


def run_ours(args, plan):
    context, generation, peaks, starts, machine, shares, limits = {}, {}, [], [], None, {}, []
    for length, prompts in plan["context"].items():
        report, ready = bench_engine(args, prompts, f"context-{length}", 1, ["--concurrency", "1"])
        run = report["runs"][0]
        context[length] = int(length) / run["time_to_first_token"]["min"]
        shares[f"context {length}"] = {"of the matrix peak": run["context"]["share_of_matrix_peak"]}
        note = (report, ready)
        peaks.append(report["machine"]["peak_resident_bytes"])
        starts.append(ready)
        limits.append(report["machine"])
    for batch in BATCHES:
        for _ in range(plan["turns"]):
            prompts = plan["prompts"][:batch]
            report, ready = bench_engine(args, prompts, f"batch-{batch}", STEPS, ["--arrivals", "all"])
            run = report["runs"][0]
            # The first request may start alone; from the second step on all are together.
            rate = batch / run["time_per_output_token"]["p50"]
            peaks.append(report["machine"]["peak_resident_bytes"])
            starts.append(ready)
            limits.append(report["machine"])
            if rate > generation.get(batch, 0):
                generation[batch] = rate
                phase, overhead = run["generation"], run["generation_overhead"]
                shares[f"generation {batch}"] = {
                    "of the read bandwidth": phase["share_of_read_bandwidth"],
                    "of the matrix peak": phase["share_of_matrix_peak"],
                    "outside the model": overhead["outside_model"] + overhead["detokenization"],
                }
    path = os.path.join(args.output, f"batch-{max(BATCHES)}.jsonl")
    command = [os.path.join(args.bin, "run-engine"), "--engine", args.engine, "--prompts", path, "--quiet"]
    command += ["--max-new-tokens", "1", "--ignore-eos", "--format", "json", "--kv-cache-tokens", "8192"]
    lines = [json.loads(line) for line in subprocess.check_output(command, text=True).splitlines()]
    engine = note[0]["engine"]
    return {
        "context_tokens_per_second": context,
        "generation_tokens_per_second": generation,
        "peak_resident_bytes": max(peaks),
        "start_up_seconds": min(starts),
        "first_ids": [line["output_ids"][0] for line in sorted(lines, key=lambda line: line["index"])],
        "versions": f"trtllm, {engine['isa']}",
        "shares": shares,
        "read_bytes_per_second": max(machine["read_bytes_per_second"] for machine in limits),
        "matrix_flops_per_second": max(machine["matrix_flops_per_second"] for machine in limits),
    }


def table(results, plan):
    ours, peers = results["trtllm"], [name for name in results if name != "trtllm"]
    rows = [["", "trtllm", *peers, *(f"trtllm / {name}" for name in peers)], ["---"] * (2 + 2 * len(peers))]

    def row(name, figure, shown, ratio=True):
        values = [figure(results[engine]) for engine in ["trtllm", *peers]]
        ratios = [f"**{values[0] / value:.2f}**" if ratio else f"{values[0] / value:.2g}" for value in values[1:]]
        rows.append([name, *map(shown, values), *ratios])

    rate = lambda value: f"{value:.1f}" if value < 100 else f"{value:.0f}"
    for length in CONTEXTS:
        row(f"context of {length}, tokens/s", lambda r: r["context_tokens_per_second"][str(length)], rate)
    for batch in BATCHES:
        key = lambda r: r["generation_tokens_per_second"]
        row(f"generation, batch {batch}, tokens/s", lambda r: key(r).get(batch) or key(r)[str(batch)], rate)
    row("peak resident memory, MB", lambda r: r["peak_resident_bytes"] / 1e6, lambda v: f"{v:.0f}", False)
    row("start-up, ms", lambda r: r["start_up_seconds"] * 1e3, lambda v: f"{v:.0f}", False)
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines.append("")
    lines.append(
        f"{plan['threads']} threads each, best of {plan['turns']}. This machine: "
        f"{ours['read_bytes_per_second'] / 1e9:.1f} GB/s of reads, "
        f"{ours['matrix_flops_per_second'] / 1e9:.0f} Gflop/s of matrix products."
    )
    for name in results:
        agree = sum(a == b for a, b in zip(results[name]["first_ids"], ours["first_ids"]))
        of = "" if name == "trtllm" else f"; {agree} of {len(ours['first_ids'])} first tokens as trtllm's"
        lines.append(f"- {name}: {results[name]['versions']}{of}")
    for what, shares in ours["shares"].items():
        lines.append(f"- {what}: " + ", ".join(f"{share * 100:.1f} % {of}" for of, share in shares.items()))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    for option in ("model", "gguf", "engine", "bin", "python", "torch-python", "output"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("threads", "turns"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args()
    plan = plan_of(args)
    plan_path = os.path.join(args.output, "plan.json")
    with open(plan_path, "w") as opened:
        json.dump(plan, opened)
    results = {}
    for name, measure in (
        ("trtllm", lambda: run_ours(args, plan)),
        ("Transformers", lambda: run_peer(args.torch_python, "transformers_peer.py", plan_path, args.turns)),
        ("llama.cpp", lambda: run_peer(args.python, "llama_cpp_peer.py", plan_path, args.turns)),
    ):
        print(f"Measuring {name}", file=sys.stderr, flush=True)
        results[name] = measure()
    text = table(results, plan)
    for file, content in (("peers.json", json.dumps(results, indent=2) + "\n"), ("peers.md", text)):
        aside = os.path.join(args.output, f".{file}.partial")
        with open(aside, "w") as opened:
            opened.write(content)
        os.replace(aside, os.path.join(args.output, file))
    print(text, end="")


if __name__ == "__main__":
    main()
