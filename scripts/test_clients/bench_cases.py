"""vLLM's benchmark client, `vllm-rs bench serve`: the first argument is the program, the second a tokenizer's folder."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import KEY, MODEL, PROMPT, URL, case, run

PROGRAM, TOKENIZER = sys.argv[1:]
PROMPTS, TOKENS = 64, 32


def bench(backend: str, *data: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Texts of random tokens are no help: the client has the server tokenize them until their lengths agree, and with a small
        # vocabulary's pieces of characters they never do.
        texts = Path(folder, "prompts.jsonl")
        texts.write_text("".join(json.dumps({"prompt": f"{PROMPT} {number}"}) + "\n" for number in range(PROMPTS)))
        command = [PROGRAM, "bench", "serve", "--backend", backend, "--base-url", URL, "--model", MODEL, "--tokenizer", TOKENIZER]
        data = data or ("--dataset-name", "custom", "--dataset-path", str(texts), "--custom-output-len", str(TOKENS))
        load = ["--num-prompts", str(PROMPTS), "--max-concurrency", "16", "--ignore-eos"]
        ended = subprocess.run(
            [*command, *load, *data, "--save-result", "--result-filename", f"{folder}/result.json"],
            env=os.environ | {"OPENAI_API_KEY": KEY},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        result = json.loads(Path(folder, "result.json").read_text())
    counts = {name: result[name] for name in ("completed", "failed", "total_output_tokens")}
    assert counts == {"completed": PROMPTS, "failed": 0, "total_output_tokens": PROMPTS * TOKENS}, counts


@case("chat under load")
def chat() -> None:
    bench("openai-chat")


@case("completions under load")
def completions() -> None:
    bench("openai")


@case("completions of random token ids under load")
def token_ids() -> None:
    random = ["--random-input-len", "64", "--random-output-len", str(TOKENS)]
    bench("openai", "--dataset-name", "random", *random, "--prompt-token-ids")


if __name__ == "__main__":
    sys.exit(run("vllm bench", subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout.split()[-1]))
