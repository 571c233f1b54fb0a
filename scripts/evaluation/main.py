"""Runs the tasks, prints a table, writes the results. scripts/evaluate calls it and has the options' meanings."""

import argparse
import json
import logging
import os
import socket
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LM_EVAL = "0.4.13"


def main() -> int:
    options = arguments()
    if not hub_is_reachable():
        print("the Hugging Face hub cannot be reached: only data in its cache can be used", file=sys.stderr)
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    if options.run_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    # Not before the variables are set, which the libraries read once.
    from lm_eval.tasks import TaskManager
    from model import RecordingCompletions
    from tasks import TASKS

    # The harness names every task it looks at.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    served = model_of(options.url)
    model = RecordingCompletions(
        with_bos=options.bos,
        model=served["id"],
        base_url=f"{options.url}/v1/completions",
        max_length=served["max_model_len"],
        # With one at a time the harness takes another way, on which nothing is kept.
        num_concurrent=max(2, options.concurrency),
        auth_token=os.environ.get("OPENAI_API_KEY"),
    )
    names = options.tasks.split(",") if options.tasks else [task.name for task in TASKS]
    if unknown := set(names) - {task.name for task in TASKS}:
        sys.exit(f"error: no task of the card is called {', '.join(sorted(unknown))}")
    manager = TaskManager()
    rows = []
    for task in TASKS:
        if task.name in names and (row := run(task, model, manager, options)):
            rows.append(row)
            print(row.line(), file=sys.stderr)
    write(options, served, rows)
    missing = set(names) - {row.task for row in rows} - (set() if options.run_code else {"mbpp"})
    if missing:
        print(f"error: not run: {', '.join(sorted(missing))}", file=sys.stderr)
    differs = options.check and report_check(options, model.received)
    return 1 if missing or differs else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks")
    parser.add_argument("--data", choices=["auto", "card", "stand-ins"], default="auto")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--bos", action="store_true")
    parser.add_argument("--run-code", action="store_true")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--check", metavar="RUN_ENGINE")
    parser.add_argument("--engine")
    return parser.parse_args()


def hub_is_reachable() -> bool:
    hub = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((hub.hostname, hub.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def model_of(url: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/models")
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"][0]


@dataclass
class Row:
    task: str
    data: str
    shots: int
    items: int
    metric: str
    value: float
    error: float | None
    card: float

    def line(self) -> str:
        error = f" ± {self.error:.1f}" if self.error is not None else ""
        card = f"{self.card:.1f}" if self.data == "card" else "–"
        return f"| {self.task} | {self.data} | {self.shots} | {self.items} | {self.metric} | {self.value:.1f}{error} | {card} |"


def run(task, model, manager, options: argparse.Namespace) -> Row | None:
    from lm_eval import simple_evaluate

    if task.name == "mbpp" and not options.run_code:
        print("mbpp: left out, because it runs what the model writes; --run-code does it", file=sys.stderr)
        return None
    data, chosen = source(task, manager, options.data)
    if chosen is None:
        return None
    shots = task.shots if options.shots is None else options.shots
    if data == "stand-in":
        from stand_ins import examples

        shots = min(shots, examples(task.name))
    results = simple_evaluate(
        model=model,
        tasks=[chosen],
        num_fewshot=shots,
        limit=options.limit,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=0 if data == "stand-in" else 1000,
        confirm_run_unsafe_code=options.run_code,
    )
    name = chosen if isinstance(chosen, str) else chosen["task"]
    scores = results["results"][name]
    metric, filter_ = (*task.metric.split(","), "none")[:2] if data == "card" else (task.metric.split(",")[0], "none")
    value, error = (scores.get(f"{key},{filter_}") for key in (metric, f"{metric}_stderr"))
    error = error * 100 if isinstance(error, float) else None
    items = sum(count["effective"] for count in results["n-samples"].values())
    return Row(task.name, data, shots, items, metric, value * 100, error, task.value)


def source(task, manager, which: str):
    """The card's data or a stand-in, and the harness's task."""
    if which != "stand-ins":
        try:
            manager.load([task.card])
        except Exception as problem:  # noqa: BLE001 - the harness and its libraries have many
            reason = (str(problem).strip() or repr(problem)).splitlines()[0]
            print(f"{task.name}: no data: {reason}", file=sys.stderr)
            if which == "card":
                return "card", None
        else:
            return "card", task.card
    return "stand-in", task.stand_in


def write(options: argparse.Namespace, served: dict[str, Any], rows: list[Row]) -> None:
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    results = {"lm_eval": LM_EVAL, "model": served, "options": settings, "results": [vars(row) for row in rows]}
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print("\n| Task | Data | Shots | Items | Metric | Value | Card |\n| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(row.line())
    print(f"\nwritten to {options.output}", file=sys.stderr)


def report_check(options: argparse.Namespace, received) -> bool:
    """Whether anything differs."""
    from check import check

    problems = check(options.check, options.engine, received)
    for problem in problems[:20]:
        print(f"differs: {problem}", file=sys.stderr)
    counts = f"{len(received.log_likelihoods)} log-likelihoods and {len(received.generations)} texts"
    if problems or not (received.log_likelihoods or received.generations):
        print(f"error: {len(problems)} differences in {counts}", file=sys.stderr)
        return True
    print(f"{counts} are run-engine's, to the last digit")
    return False


if __name__ == "__main__":
    sys.exit(main())
