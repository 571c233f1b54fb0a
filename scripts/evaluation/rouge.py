"""ROUGE-L of a summary, as XLSum is scored."""

from rouge_score.rouge_scorer import RougeScorer

_SCORER = RougeScorer(["rougeL"])


def rouge_l(document: dict, results: list[str]) -> dict[str, float]:
    return {"rougeL": _SCORER.score(document["summary"], results[0].strip())["rougeL"].fmeasure}
