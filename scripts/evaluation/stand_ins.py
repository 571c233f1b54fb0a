"""Tasks in the shapes of the card's, over items that are here: the examples that lm-evaluation-harness carries of MMLU, and items
written for this project, in stand_ins/. A score on them says nothing of a model; they show that the whole way works."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import datasets

from programs import passes
from rouge import rouge_l

ITEMS = Path(__file__).parent / "stand_ins"

# MMLU's examples are blocks like `Q: … (A) … (B) … (C) … (D) … A: … The answer is (B).` The few that are not are left out.
QUESTION = re.compile(r"(.*?)\n\(A\) (.*?) \(B\) (.*?) \(C\) (.*?) \(D\) (.*?)\nA: .*The answer is \(([ABCD])\)", re.DOTALL)


def task(name: str) -> dict[str, Any]:
    """The stand-in of a task, as lm-evaluation-harness reads tasks."""
    load = mmlu if name == "mmlu" else lambda **_: own(name)
    common = {"task": f"stand_in_{name}", "custom_dataset": load, "test_split": "test", "fewshot_split": "few_shot"}
    return {**common, "fewshot_config": {"sampler": "first_n"}, **SHAPES[name]}


def examples(name: str) -> int:
    """How many items can stand before another as examples."""
    return len((mmlu() if name == "mmlu" else own(name))["few_shot"])


def own(name: str) -> datasets.DatasetDict:
    items = [json.loads(line) for line in (ITEMS / f"{name}.jsonl").read_text().splitlines()]
    return split((item.pop("few_shot"), item) for item in items)


def mmlu(**_: object) -> datasets.DatasetDict:
    """The first questions of the 57 subjects' examples, which are MMLU's `dev` split. The fifth of each is an example."""
    prompts = json.loads(files("lm_eval").joinpath("tasks/mmlu/flan_cot_fewshot/_cot_prompts.json").read_text())
    items = []
    for subject, prompt in prompts.items():
        found = [match for block in prompt.split("\n\nQ: ")[1:] if (match := QUESTION.match(block))]
        for number, match in enumerate(found):
            question, *choices, answer = match.groups()
            item = {"subject": subject, "question": question, "choices": choices, "answer": "ABCD".index(answer)}
            items.append((number == 4, item))
    return split(items)


def split(items) -> datasets.DatasetDict:
    """Examples and items to be scored, from pairs of whether it is an example and the item."""
    few_shot, test = [], []
    for is_example, item in items:
        (few_shot if is_example else test).append(item)
    lists = {"few_shot": few_shot, "test": test}
    return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in lists.items()})


def mean(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def until(*stops: str, tokens: int) -> dict[str, Any]:
    return {"until": list(stops), "do_sample": False, "temperature": 0.0, "max_gen_toks": tokens}


def number(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the answer's number is the item's, as the strict filter of GSM8K has it."""
    found = re.search(r"#### (-?[0-9.,]+)", results[0])
    wanted = document["answer"].split("#### ")[-1]
    return {"exact_match": float(found is not None and found[1].rstrip(".").replace(",", "") == wanted)}


def blank(document: dict) -> int:
    return document["sentence"].index("_")


SHAPES: dict[str, dict[str, Any]] = {
    "mmlu": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": mean("acc"),
    },
    "hellaswag": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{activity_label}}: {{ctx}}",
        "doc_to_choice": "endings",
        "doc_to_target": "label",
        "metric_list": mean("acc", "acc_norm"),
    },
    # The text after the blank is scored, behind each of the two beginnings.
    "winogrande": {
        "output_type": "multiple_choice",
        "doc_to_text": lambda document: int(document["answer"]) - 1,
        "doc_to_choice": lambda document: [
            document["sentence"][: blank(document)] + document[option] for option in ("option1", "option2")
        ],
        "doc_to_target": lambda document: document["sentence"][blank(document) + 1 :].strip(),
        "metric_list": mean("acc"),
    },
    "gsm8k": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": until("Question:", tokens=128),
        "process_results": number,
        "metric_list": mean("exact_match"),
    },
    "arc_challenge": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices.text}}",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "metric_list": mean("acc", "acc_norm"),
    },
    "xlsum": {
        "output_type": "generate_until",
        "doc_to_text": "Article: {{text}}\nSummary:",
        "doc_to_target": "{{summary}}",
        "generation_kwargs": until("\n", tokens=48),
        "process_results": rouge_l,
        "metric_list": mean("rougeL"),
    },
    "mbpp": {
        "output_type": "generate_until",
        "unsafe_code": True,
        "doc_to_text": "{{text}} It should pass these tests:\n{{test_list | join('\n')}}\n[BEGIN]\n",
        "doc_to_target": "{{code}}\n[DONE]",
        "target_delimiter": "",
        "generation_kwargs": until("[DONE]", tokens=96),
        "process_results": passes,
        "metric_list": mean("pass_at_1"),
    },
}
