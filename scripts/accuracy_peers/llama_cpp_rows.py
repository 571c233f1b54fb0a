"""llama.cpp's types of weights beside its own bf16, over the token ids that the engines were compared on.

    llama_cpp_rows.py MODEL_BF16.gguf WINDOWS.json ROWS.json DIR THREADS

Quantizes the model into DIR, once for each type, without an importance matrix, as `llama-quantize` does; runs all of them side by side through
the C bindings of its Python package, with its default KV cache; writes rows as `accuracy compare` does, with the same arithmetic.
"""

import json
import os
import sys

import llama_cpp
import numpy as np

# GGML_LOG_LEVEL_ERROR of ggml.h.
ERROR = 4
TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]
ROWS = 32


@llama_cpp.llama_log_callback
def only_errors(level, text, _):
    if level == ERROR:
        sys.stderr.write(text.decode())


def quantize(source, path, kind, threads):
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(source.encode(), path.encode(), params) != 0:
        sys.exit(f"llama.cpp cannot quantize {source} to {kind}")


class Model:
    def __init__(self, name, path, longest, threads):
        self.name, self.bytes = name, os.path.getsize(path)
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = longest
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"llama.cpp cannot make a context of {path}")
        self.batch = llama_cpp.llama_batch_init(longest, 0, 1)
        self.divergences, self.same_best, self.differences, self.surprise = [], 0, 0.0, 0.0

    def read(self, tokens):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, i, True
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            sys.exit(f"{self.name}: llama_decode failed")
        logits = llama_cpp.llama_get_logits(self.context)
        self.logits = np.ctypeslib.as_array(logits, (len(tokens), self.vocab_size))

    def log_probs(self, rows):
        logits = self.logits[rows]
        largest = logits.max(axis=1, keepdims=True)
        sums = np.exp(logits - largest).sum(axis=1, keepdims=True, dtype=np.float64)
        return logits.astype(np.float64) - (largest + np.log(sums))

    def gather(self, expected, rows, following):
        found = self.log_probs(rows)
        divergences = (np.exp(expected) * (expected - found)).sum(axis=1)
        self.divergences.extend(np.maximum(divergences, 0.0))
        self.same_best += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
        at = np.arange(len(following)), following
        self.differences += np.abs(expected[at] - found[at]).sum()
        self.surprise -= found[at].sum()

    def row(self):
        count = len(self.divergences)
        return {
            "name": f"llama.cpp {self.name}",
            "bytes": self.bytes,
            "positions": count,
            "mean_kl": float(np.mean(self.divergences)),
            "kl_99": float(np.sort(self.divergences)[-(-count * 99 // 100) - 1]),
            "same_best": self.same_best / count,
            "mean_difference": float(self.differences / count),
            "perplexity": float(np.exp(self.surprise / count)),
        }


def main(source, windows, output, directory, threads):
    threads = int(threads)
    llama_cpp.llama_log_set(only_errors, None)
    llama_cpp.llama_backend_init()
    with open(windows) as opened:
        windows = json.load(opened)
    longest = max(map(len, windows))
    models = [Model("bf16", source, longest, threads)]
    for kind in TYPES:
        path = os.path.join(directory, f"{kind}.gguf")
        quantize(source, path, kind, threads)
        models.append(Model(kind, path, longest, threads))
    for number, tokens in enumerate(windows, 1):
        for model in models:
            model.read(tokens)
        for start in range(0, len(tokens) - 1, ROWS):
            rows = slice(start, min(start + ROWS, len(tokens) - 1))
            expected = models[0].log_probs(rows)
            following = np.array(tokens[rows.start + 1 : rows.stop + 1])
            for model in models:
                model.gather(expected, rows, following)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number} of {len(windows)} windows" + "\n" * (number == len(windows)))
    with open(output, "w") as opened:
        json.dump([model.row() for model in models], opened)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
