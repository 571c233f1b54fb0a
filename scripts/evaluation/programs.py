"""Runs what the model wrote: in a process of its own with limits of time, memory and files, which is no sandbox."""

import resource
import subprocess
import sys
import tempfile

SECONDS = 5
BYTES = 1 << 30


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def passes(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the generated program passes the item's tests."""
    program = "\n".join([results[0], *document["test_list"]])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-S", "-c", program]
        try:
            ended = subprocess.run(command, cwd=folder, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, preexec_fn=limit)
        except subprocess.TimeoutExpired:
            return {"pass_at_1": 0.0}
        except ValueError:  # a null byte
            return {"pass_at_1": 0.0}
    return {"pass_at_1": float(ended.returncode == 0)}
