"""What the programs say of prompts: encoded, and completed."""

import json
import subprocess
import sys
import tempfile


def jsonl(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def encode(bin, engine, lines):
    """For each line its `ids`, and of a conversation the `text`; or an `error`."""
    command = [f"{bin}/examples/encode_prompts", engine]
    ended = subprocess.run(command, input=jsonl(lines), stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def complete(bin, engine, lines, *options):
    """One result for each line, in their order."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(jsonl(lines))
        file.flush()
        command = [f"{bin}/run-engine", "--engine", engine, "--prompts", file.name, "--format", "json", *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    results = sorted(map(json.loads, ended.stdout.splitlines()), key=lambda result: result["index"])
    if len(results) != len(lines):
        sys.exit(f"{len(results)} results for {len(lines)} prompts, exit code {ended.returncode}")
    for line, result in zip(lines, results):
        if "error" in result:
            sys.exit(f"{json.dumps(line)[:200]}: {result['error']}")
    return results
