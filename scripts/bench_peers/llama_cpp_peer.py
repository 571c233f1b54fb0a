"""llama.cpp through its Python package's C bindings, its default KV cache (fp16): see peer.py."""

import sys
import time

import llama_cpp
import numpy as np
import peer

# GGML_LOG_LEVEL_ERROR of ggml.h.
ERROR = 4


@llama_cpp.llama_log_callback
def only_errors(level, text, _):
    if level == ERROR:
        sys.stderr.write(text.decode())


class LlamaCpp:
    def __init__(self, plan, model):
        llama_cpp.llama_log_set(only_errors, None)
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), model_params)
        assert self.model, "llama.cpp cannot load the model"
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        longest = max(len(prompt) for prompts in plan["context"].values() for prompt in prompts)
        together = max(plan["batches"])
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = max(longest, together * (len(plan["prompts"][0]) + plan["steps"])) + 256
        params.n_batch = params.n_ctx
        params.n_ubatch = 512
        params.n_seq_max = together
        params.n_threads = params.n_threads_batch = plan["threads"]
        # One pool for all sequences, so that each may be as long as it needs.
        params.kv_unified = True
        self.context_ = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context_, "llama.cpp cannot make a context"
        self.batch = llama_cpp.llama_batch_init(params.n_ctx, 0, 1)
        self.versions = f"llama-cpp-python {llama_cpp.__version__} ({llama_cpp.llama_print_system_info().decode().strip(' |')})"

    def decode(self, entries):
        """One batch of (token, position, sequence, whether its logits are needed); the best ids of the latter."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted
        assert llama_cpp.llama_decode(self.context_, batch) == 0, "llama_decode failed"
        rows = (llama_cpp.llama_get_logits_ith(self.context_, i) for i, entry in enumerate(entries) if entry[3])
        return [int(np.ctypeslib.as_array(row, (self.vocab_size,)).argmax()) for row in rows]

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context_), False)

    def context(self, prompt, sequence=0):
        if sequence == 0:
            self.clear()
        last = len(prompt) - 1
        return self.decode([(token, i, sequence, i == last) for i, token in enumerate(prompt)])[0]

    def generate(self, prompts, steps):
        ids = [self.context(prompt, sequence) for sequence, prompt in enumerate(prompts)]
        first, times = ids, [time.perf_counter()]
        for step in range(steps - 1):
            position = len(prompts[0]) + step
            ids = self.decode([(token, position, sequence, True) for sequence, token in enumerate(ids)])
            times.append(time.perf_counter())
        return times, first


peer.run(LlamaCpp)
