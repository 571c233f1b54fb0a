"""What is measured: every engine with every type of weights, and what it is run on. See scripts/bench-peers."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    engine: str
    # The engine's own name of it.
    weights: str
    # Compared are columns of one width, by the name that this project's type has.
    width: str
    # Below the work folder, or the model itself.
    model: str
    # In this folder; None is this project.
    script: str | None = None

    @property
    def name(self):
        return f"{self.engine} {self.weights}"

    def result(self, work):
        return os.path.join(work, "results", f"{self.engine}-{self.weights}.json")


OURS = "trtllm"
WIDTHS = {"bf16": "bf16", "int8": "8 bits", "int4": "4 bits"}


def llama_cpp(weights, width):
    return Column("llama.cpp", weights, width, f"gguf/{weights}.gguf", "llama_cpp_peer.py")


COLUMNS = (
    *(Column(OURS, width, width, f"engines/{width}") for width in WIDTHS),
    Column("Transformers", "bf16", "bf16", "model", "transformers_peer.py"),
    llama_cpp("BF16", "bf16"),
    llama_cpp("Q8_0", "int8"),
    llama_cpp("Q4_0", "int4"),
    llama_cpp("Q4_K_M", "int4"),
    *(Column("OpenVINO", width, width, f"openvino/{width}", "openvino_peer.py") for width in WIDTHS),
)


def chosen(widths, peers):
    """The columns of these widths, of this project and of these peers."""
    engines = {OURS.lower(), *(peer.lower() for peer in peers)}
    for what, unknown in (
        ("type", set(widths) - set(WIDTHS)),
        ("peer", engines - {column.engine.lower() for column in COLUMNS}),
    ):
        if unknown:
            raise SystemExit(f"no such {what}: {', '.join(sorted(unknown))}")
    return [column for column in COLUMNS if column.width in widths and column.engine.lower() in engines]
