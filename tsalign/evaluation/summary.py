"""Verdicts -> the numbers of `summary.json`: win rates, scores, and what the answers look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from statistics import fmean
from typing import Any

from tsalign.config import EvaluationConfig
from tsalign.data.shards import Row, iterate
from tsalign.evaluation.metrics import bootstrap_mean, outcome
from tsalign.evaluation.quality import Answer, Quality, answers_of, quality
from tsalign.evaluation.samples import lowest, sample_of
from tsalign.evaluation.thresholds import warnings
from tsalign.runs.artifacts import Dataset

NUMBERS = ["set", "temperature", "score.policy", "score.base"]
ANSWERS = ["prompt_id", "prompt", "temperature", "completions", "base_completions", "log_prob", "base_log_prob"]


def summarise(verdicts: Dataset, evaluation: EvaluationConfig, iteration: int, seed: int) -> dict[str, Any]:
    """All numbers; those beside the win rates are of the first temperature."""
    first = evaluation.temperatures[0]
    rates = win_rates(iterate([verdicts], NUMBERS), evaluation, seed)
    base, policy, words = qualities(iterate([verdicts], ANSWERS), first)
    samples = [sample_of(row, row["temperature"].index(first)) for row in lowest(iterate([verdicts], ANSWERS))]
    return {
        "iteration": iteration,
        "temperature": first,
        **rates,
        "unit": "words" if words else "tokens",
        "quality": {"base": asdict(base), "policy": asdict(policy)},
        "warnings": warnings(base, policy, rates["tied"]),
        "samples": [asdict(sample) for sample in samples],
    }


def win_rates(rows: Iterable[Row], evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
    """Win rate by temperature; scores by set, and the share of ties, at the first temperature."""
    wins: dict[float, dict[str, list[float]]] = {t: defaultdict(list) for t in evaluation.temperatures}
    scores: dict[str, dict[str, list[float]]] = {"base": defaultdict(list), "policy": defaultdict(list)}
    ties: list[bool] = []
    for row in rows:
        for temperature, by_set in wins.items():
            pairs = [(row["score.policy"][i], row["score.base"][i]) for i in _at(row, temperature)]
            outcomes = [outcome(p, b, evaluation.tie_margin) for p, b in pairs]
            by_set[row["set"]].append(fmean(outcomes))
            if temperature == evaluation.temperatures[0]:
                ties += [won == 0.5 for won in outcomes]
                scores["policy"][row["set"]].append(fmean(p for p, _ in pairs))
                scores["base"][row["set"]].append(fmean(b for _, b in pairs))
    return {
        "win_rate": {str(t): _win_rate(by_set, seed) for t, by_set in wins.items()},
        "scores": {who: {name: fmean(values) for name, values in by_set.items()} for who, by_set in scores.items()},
        "tied": fmean(ties),
    }


def _win_rate(by_set: dict[str, list[float]], seed: int) -> dict[str, Any]:
    means = {name: fmean(outcomes) for name, outcomes in by_set.items()}
    low, high = bootstrap_mean(list(by_set.values()), seed)
    return {"mean": fmean(means.values()), "ci95": [low, high], "by_set": means}


def qualities(rows: Iterable[Row], temperature: float) -> tuple[Quality, Quality, bool]:
    """What the base's answers and the policy's look like at a temperature, and whether they were counted in words.

    Words are counted where a side has no token ids, on both sides, so that the numbers compare.
    """
    base, policy, words = list[Answer](), list[Answer](), False
    for row in rows:
        words = words or not all(made["token_ids"] for made in (*row["completions"], *row["base_completions"]))
        base += _answers(row, "base_", temperature, words)
        policy += _answers(row, "", temperature, words)
    return quality(base), quality(policy), words


def _answers(row: Row, side: str, temperature: float, words: bool) -> Iterator[Answer]:
    made = answers_of(row[f"{side}completions"], row.get(f"{side}log_prob"), words)
    return (made[i] for i in _at(row, temperature))


def _at(row: Row, temperature: float) -> list[int]:
    return [i for i, at in enumerate(row["temperature"]) if at == temperature]
