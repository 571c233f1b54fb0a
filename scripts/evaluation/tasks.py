"""The card's tasks: their names in lm-evaluation-harness, settings, and what the card says."""

from dataclasses import dataclass
from typing import Any

import stand_ins
from rouge import rouge_l


@dataclass(frozen=True)
class Task:
    name: str
    # The harness's own task, or one that it does not have.
    card: str | dict[str, Any]
    # Examples before each item: those of the technical report (arXiv 2408.11796), for MBPP those of the harness.
    shots: int
    metric: str
    # In percent, from the model's card.
    value: float

    @property
    def stand_in(self) -> dict[str, Any]:
        return stand_ins.task(self.name)


# The report scores a fifth of the test split and does not say which, nor the prompt: this takes the first, and a plain prompt.
XLSUM: dict[str, Any] = {
    "task": "xlsum_english",
    "dataset_path": "csebuetnlp/xlsum",
    "dataset_name": "english",
    "test_split": "test",
    "fewshot_split": "validation",
    "process_docs": lambda documents: documents.select(range(len(documents) // 5)),
    "output_type": "generate_until",
    "doc_to_text": "Article: {{text}}\nSummary:",
    "doc_to_target": " {{summary}}",
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 128},
    "process_results": rouge_l,
    "metric_list": [{"metric": "rougeL", "aggregation": "mean", "higher_is_better": True}],
    "target_delimiter": "",
}

TASKS = [
    Task("mmlu", "mmlu", 5, "acc", 69.5),
    Task("hellaswag", "hellaswag", 10, "acc_norm", 83.0),
    Task("winogrande", "winogrande", 5, "acc", 80.4),
    Task("gsm8k", "gsm8k", 5, "exact_match,strict-match", 58.5),
    Task("arc_challenge", "arc_challenge", 25, "acc_norm", 64.4),
    Task("xlsum", XLSUM, 3, "rougeL", 32.0),
    Task("mbpp", "mbpp", 3, "pass_at_1", 43.77),
]
