"""The evaluation stages: judge the policy's answers against the base's, and the student against the teacher."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from upath import UPath

from tsalign.config import EvaluationConfig
from tsalign.data.shards import Row, Shard, iterate, map_shards, read_rows
from tsalign.evaluation.metrics import agreements, bootstrap_mean, outcome
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.stage import Stage
from tsalign.scoring import Scorer, named
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import add_scores
from tsalign.storage import write_json


def evaluate(
    stage: Stage,
    answers: Dataset,
    base: Dataset,
    evaluation: EvaluationConfig,
    teacher: Scorer,
    students: tuple[Model, Model],
) -> Dataset:
    """Verdicts on every answer, `summary.json` beside them, and the summary in the metrics.

    Args:
        answers: of the policy to the held-out prompts, at each temperature.
        base: of the initial policy to the same prompts, with `score.judge` and `score.teacher`.
        students: before and after this iteration's distillation.
    """
    arguments: dict[str, Any] = {
        "base": base,
        "judge": named(evaluation.judge),
        "teacher": teacher,
        "students": students,
        "temperature": evaluation.temperatures[0],
    }
    verdicts = map_shards(stage, answers, EvaluationWorker, arguments, stage.resources.score)
    summary = summarise(stage, verdicts, evaluation)
    write_json(stage.out / "summary.json", summary)
    stage.log(
        {f"win_rate_t{t}": rate["mean"] for t, rate in summary["win_rate"].items()}
        | {"student_agreement": summary["agreement"]["fixed"]["teacher"]["after"]}
    )
    return verdicts


class EvaluationWorker:
    """Scores the answers, joined row by row with the base's answers to the same prompts."""

    def __init__(
        self, base: Dataset, judge: Scorer, teacher: Scorer, students: tuple[Model, Model], temperature: float
    ) -> None:
        self.base, self.temperature = UPath(base.path), temperature
        self.judge, self.teacher = judge.load(), teacher.load()
        before, after = students
        self.before = RewardModel(before).load()
        self.after = self.before if after == before else RewardModel(after).load()

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        base = {row["prompt_id"]: row for row in read_rows(self.base / shard)}
        failed = add_scores(rows, "score.judge", self.judge)
        newest = [self._pairs(row) for row in rows]
        fixed = [self._pairs(base[row["prompt_id"]]) for row in rows]
        failed |= add_scores(newest, "score.teacher", self.teacher)
        for pairs in (newest, fixed):
            failed |= add_scores(pairs, "score.before", self.before) | add_scores(pairs, "score.after", self.after)
        bad = [{"prompt_id": rows[index]["prompt_id"], "reason": reason} for index, reason in failed.items()]
        good = [i for i in range(len(rows)) if i not in failed]
        return Shard([self._verdict(rows[i], base[rows[i]["prompt_id"]], newest[i], fixed[i]) for i in good], bad)

    def _pairs(self, row: Row) -> Row:
        """The row with the completions at the headline temperature only, and their known scores."""
        at = [i for i, completion in enumerate(row["completions"]) if completion["temperature"] == self.temperature]
        scores = {name: [row[name][i] for i in at] for name in row if name.startswith("score.")}
        return {**row, **scores, "completions": [row["completions"][i] for i in at]}

    def _verdict(self, row: Row, base: Row, newest: Row, fixed: Row) -> Row:
        return {
            **{name: row[name] for name in ("prompt_id", "set", "prompt", "completions")},
            "temperature": [completion["temperature"] for completion in row["completions"]],
            "tokens": [len(completion["token_ids"]) for completion in row["completions"]],
            "base_tokens": [len(completion["token_ids"]) for completion in base["completions"]],
            "base_texts": [completion["text"] for completion in base["completions"]],
            "score.policy": row["score.judge"],
            "score.base": base["score.judge"],
            **{f"newest.{name[6:]}": newest[name] for name in newest if name.startswith("score.")},
            **{f"fixed.{name[6:]}": fixed[name] for name in fixed if name.startswith("score.")},
        }


NUMBERS = ["set", "temperature", "tokens", "base_tokens", "score.policy", "score.base"] + [
    f"{pairs}.{name}" for pairs in ("newest", "fixed") for name in ("judge", "teacher", "before", "after")
]


def summarise(stage: Stage, verdicts: Dataset, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The numbers of `summary.json`, from the verdicts' numeric columns."""
    wins: dict[float, dict[str, list[float]]] = {t: defaultdict(list) for t in evaluation.temperatures}
    lengths: dict[str, list[float]] = {"base": [], "policy": []}
    scores: dict[str, dict[str, list[float]]] = {"base": defaultdict(list), "policy": defaultdict(list)}
    counted: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in iterate([verdicts], NUMBERS):
        for temperature, by_set in wins.items():
            at = [i for i, t in enumerate(row["temperature"]) if t == temperature]
            pairs = [(row["score.policy"][i], row["score.base"][i]) for i in at]
            by_set[row["set"]].append(fmean(outcome(p, b, evaluation.tie_margin) for p, b in pairs))
            if temperature == evaluation.temperatures[0]:
                lengths["policy"] += [row["tokens"][i] for i in at]
                lengths["base"] += [row["base_tokens"][i] for i in at]
                scores["policy"][row["set"]].append(fmean(p for p, _ in pairs))
                scores["base"][row["set"]].append(fmean(b for _, b in pairs))
        for pair_set in ("fixed", "newest"):
            for authority in ("teacher", "judge"):
                for who in ("before", "after", "teacher"):
                    agreeing, pairs_ = agreements(row[f"{pair_set}.{authority}"], row[f"{pair_set}.{who}"])
                    total = counted[pair_set, authority, who]
                    total[0] += agreeing
                    total[1] += pairs_

    def share(pair_set: str, authority: str, who: str) -> float | None:
        agreeing, pairs_ = counted[pair_set, authority, who]
        return agreeing / pairs_ if pairs_ else None

    return {
        "iteration": stage.iteration,
        "temperature": evaluation.temperatures[0],
        "win_rate": {str(t): _win_rate(by_set, stage.seed) for t, by_set in wins.items()},
        "scores": {who: {name: fmean(values) for name, values in by_set.items()} for who, by_set in scores.items()},
        "tokens": {who: fmean(values) for who, values in lengths.items()},
        "agreement": {
            pair_set: {
                authority: {who: share(pair_set, authority, who) for who in ("before", "after")}
                for authority in ("teacher", "judge")
            }
            | {"teacher_judge": share(pair_set, "judge", "teacher")}
            for pair_set in ("fixed", "newest")
        },
    }


def _win_rate(by_set: dict[str, list[float]], seed: int) -> dict[str, Any]:
    means = {name: fmean(outcomes) for name, outcomes in by_set.items()}
    low, high = bootstrap_mean(list(by_set.values()), seed)
    return {"mean": fmean(means.values()), "ci95": [low, high], "by_set": means}
