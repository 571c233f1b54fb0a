"""Cases of a client against the server: what they need of it, running them, and reporting."""

import json
import os
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A server with an API key.
URL = os.environ["SERVER_URL"]
KEY = os.environ["SERVER_KEY"]
# One with room for a single sequence and one more that waits.
BUSY_URL = os.environ["BUSY_URL"]
MODEL = "demo"
PROMPT = "Complete the paragraph: our solar system is"
QUESTION = [{"role": "user", "content": "Which planet is the largest?"}]
SCHEMA = {
    "type": "object",
    "properties": {"planet": {"type": "string", "maxLength": 12}, "moons": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["planet", "moons"],
    "additionalProperties": False,
}
# Sequences and tokens that take a server seconds, so that there is something to cancel.
MANY, LONG = 64, 900

CASES: list[tuple[str, Callable[[], object]]] = []


def case(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    def add(function: Callable[[], object]) -> Callable[[], object]:
        CASES.append((name, function))
        return function

    return add


def run(client: str, version: str) -> int:
    """Runs every case, writes a line of JSON for each to standard output, and returns the exit code."""
    failed = 0
    for name, function in CASES:
        try:
            function()
            problem = None
        except Exception:  # noqa: BLE001 - whatever a client raises that the case did not expect
            problem = traceback.format_exc()
            failed += 1
        print(json.dumps({"client": client, "version": version, "case": name, "problem": problem}), flush=True)
    return 1 if failed else 0


class Seen:
    """The error that was raised."""

    error: BaseException


@contextmanager
def raised(*kinds: type[BaseException], **attributes: object) -> Iterator[Seen]:
    """Expects an error of one of these classes, with these attributes."""
    seen = Seen()
    try:
        yield seen
    except kinds as error:
        seen.error = error
        for name, wanted in attributes.items():
            assert getattr(error, name) == wanted, f"{name} is {getattr(error, name)!r} instead of {wanted!r} in {error!r}"
    else:
        raise AssertionError(f"nothing was raised instead of {kinds}")


def metric(line: str) -> float:
    """A sample of the server's metrics, whose name and labels are `line`."""
    with urllib.request.urlopen(f"{URL}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(line + " "))


RUNNING = f'trtllm_num_requests_running{{model_name="{MODEL}"}}'
WAITING = f'trtllm_num_requests_waiting{{model_name="{MODEL}"}}'
CANCELLED = f'serve_cancelled_total{{model_name="{MODEL}",cause="client"}}'


@contextmanager
def cancels() -> Iterator[None]:
    """Expects that what was started within is cancelled by its end, and that its slots are free soon after."""
    before = metric(CANCELLED)
    yield
    for _ in range(100):
        if metric(RUNNING) + metric(WAITING) == 0 and metric(CANCELLED) > before:
            return
        time.sleep(0.05)
    raise AssertionError(f"5 s later {metric(RUNNING):.0f} sequences run, and {metric(CANCELLED) - before:.0f} were cancelled")


class Occupied:
    """Keeps the busy server full until it is told to stop."""

    def __enter__(self) -> "Occupied":
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._occupy) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        for _ in range(200):
            if self._is_full():
                return self
            time.sleep(0.02)
        self.stop()
        raise AssertionError("the busy server never was full")

    def _occupy(self) -> None:
        while not self.over.is_set():
            post(BUSY_URL, {"prompt": PROMPT, "max_tokens": LONG, "ignore_eos": True})

    def _is_full(self) -> bool:
        return post(BUSY_URL, {"prompt": "a", "max_tokens": 1}) == 503

    def stop(self) -> None:
        self.over.set()

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self.threads:
            thread.join()


def post(url: str, body: dict) -> int:
    """A completion's status."""
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.read()
        return error.code
