"""OpenVINO's CPU plugin on a stateful model of to_openvino.py; arithmetic in bf16, its default KV cache: see peer.py."""

import os
import time

import numpy as np
import openvino
import peer


class OpenVino:
    def __init__(self, plan, model):
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": plan["threads"],
            "INFERENCE_PRECISION_HINT": "bf16",
        }
        compiled = openvino.compile_model(os.path.join(model, "model.xml"), "CPU", properties)
        self.request = compiled.create_infer_request()
        self.inputs = {name for port in compiled.inputs for name in port.get_names()}
        told = {name: compiled.get_property(name) for name in ("KV_CACHE_PRECISION", "DYNAMIC_QUANTIZATION_GROUP_SIZE")}
        told["KV_CACHE_PRECISION"] = told["KV_CACHE_PRECISION"].get_type_name()
        self.versions = f"openvino {openvino.__version__}, " + ", ".join(f"{name} {value}" for name, value in told.items())

    def step(self, ids, start):
        """One pass over `ids`, as many for each sequence, at positions from `start`; the best next id of each."""
        count, length = ids.shape
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones((count, start + length), np.int64),
            "position_ids": np.tile(np.arange(start, start + length, dtype=np.int64), (count, 1)),
            "beam_idx": np.arange(count, dtype=np.int32),
        }
        self.request.infer({name: value for name, value in inputs.items() if name in self.inputs}, share_inputs=True)
        logits = self.request.get_tensor("logits").data
        assert logits.shape[1] == 1
        return logits[:, -1].argmax(axis=-1)

    def context(self, prompt):
        self.request.reset_state()
        return int(self.step(np.array([prompt], np.int64), 0)[0])

    def generate(self, prompts, steps):
        self.request.reset_state()
        prompts = np.array(prompts, np.int64)
        ids = self.step(prompts, 0)
        first, times = ids.tolist(), [time.perf_counter()]
        for step in range(steps - 1):
            ids = self.step(ids[:, None].astype(np.int64), prompts.shape[1] + step)
            times.append(time.perf_counter())
        return times, first


peer.run(OpenVino)
