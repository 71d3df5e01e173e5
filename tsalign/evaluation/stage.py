"""The evaluation stage: answers judged against those of another policy to the same prompts."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from upath import UPath

from tsalign.common.progress import unseen
from tsalign.common.storage import write_json
from tsalign.config import EvaluationConfig
from tsalign.data.shards import Row, Shard, iterate, read_rows, take_counts
from tsalign.data.workers import map_shards
from tsalign.engines import Failed
from tsalign.evaluation.metrics import bootstrap_mean, outcome
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.report import Column, Panel, Point, Report, Table, percent
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import Item, Scorer, items
from tsalign.scoring.stage import add_scores


@stage_function("evaluate", measures=True)
def evaluate(
    stage: Stage, answers: Dataset, base: Dataset, judge: Scorer, evaluation: EvaluationConfig, step: str = ""
) -> Dataset:
    """Verdicts on every answer, `summary.json` and a report beside them, and the win rates in the metrics.

    Args:
        answers: candidate sets of the policy for the held-out prompts, at each temperature.
        base: those of the policy that it is compared with, for the same prompts. With `score.judge` the judge sees
            the answers alone; without, each answer beside the base's of the same number.
        step: the step of a procedure that made the answers, where it is not the last.
    """
    arguments: dict[str, Any] = {"base": base, "judge": judge}
    verdicts = map_shards(stage, answers, EvaluationWorker, arguments, stage.resources.score)
    summary = win_rates(stage, verdicts, evaluation)
    write_json(stage.out / "summary.json", summary)
    report = report_of_step(step, summary) if step else report_of(summary)
    report.write(stage.out)
    stage.log({f"win_rate_t{t}": rate["mean"] for t, rate in summary["win_rate"].items()})
    return verdicts


@evaluate.expects
def _expect_verdicts(
    stage: PlannedStage,
    answers: Dataset,
    base: Dataset,
    judge: Scorer,
    evaluation: EvaluationConfig,
    step: str = "",
) -> Dataset:
    given = expected(answers)
    side_by_side = (times(given.rows, given.completions), 2.0)
    work = judge.work(*side_by_side) if judge.comparative else judge.work(given.rows, given.completions)
    stage.needs(judge.who, stage.resources.score, work)
    return stage.derived(given)


class EvaluationWorker:
    """Scores the answers, joined row by row with the base's answers to the same prompts."""

    def __init__(self, base: Dataset, judge: Scorer) -> None:
        self.base, self.judge, self.role = UPath(base.path), judge.load(), judge.who
        self.report = unseen

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        self.judge.report = self.report
        base = {row["prompt_id"]: row for row in read_rows(self.base / shard)}
        unmatched = [row["prompt_id"] for row in rows if row["prompt_id"] not in base]
        bad = [Failed("the base has no answer").row(missing) for missing in unmatched]
        rows = [row for row in rows if row["prompt_id"] in base]
        others = [base[row["prompt_id"]] for row in rows]
        known = all("score.judge" in other for other in others)
        failed = add_scores(rows, "score.judge", self.judge) if known else self._side_by_side(rows, others)
        bad += [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        verdicts = [_verdict(row, other) for index, (row, other) in enumerate(zip(rows, others)) if index not in failed]
        return Shard(verdicts, bad, take_counts(self.judge, self.role, "judge"))

    def _side_by_side(self, rows: list[Row], others: list[Row]) -> dict[int, Failed]:
        """`score.judge` of rows and others, each answer judged in one group with the other's of the same number."""
        pairs = [
            (index, mine, theirs)
            for index, (row, other) in enumerate(zip(rows, others))
            for mine, theirs in zip(items(row), items(other))
        ]
        asked: list[Item] = []
        for group, (_, mine, theirs) in enumerate(pairs):
            asked += [mine._replace(group=group), theirs._replace(group=group)]
        scores = self.judge.scored(asked)
        failed: dict[int, Failed] = {}
        for row in (*rows, *others):
            row["score.judge"] = []
        for group, (index, _, _) in enumerate(pairs):
            both = scores[2 * group : 2 * group + 2]
            rows[index]["score.judge"].append(both[0])
            others[index]["score.judge"].append(both[1])
            if None in both:
                failed[index] = self.judge.failure("the judge gave no verdict", 2 * group, both)
        return failed


def _verdict(row: Row, base: Row) -> Row:
    return {
        **{name: row[name] for name in ("prompt_id", "set", "prompt", "completions")},
        "temperature": [completion["temperature"] for completion in row["completions"]],
        "tokens": [len(completion["token_ids"]) for completion in row["completions"]],
        "base_tokens": [len(completion["token_ids"]) for completion in base["completions"]],
        "base_texts": [completion["text"] for completion in base["completions"]],
        "score.policy": row["score.judge"],
        "score.base": base["score.judge"],
    }


NUMBERS = ["set", "temperature", "tokens", "base_tokens", "score.policy", "score.base"]


def win_rates(stage: Stage, verdicts: Dataset, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The numbers of `summary.json`, from the verdicts' numeric columns."""
    wins: dict[float, dict[str, list[float]]] = {t: defaultdict(list) for t in evaluation.temperatures}
    lengths: dict[str, list[float]] = {"base": [], "policy": []}
    scores: dict[str, dict[str, list[float]]] = {"base": defaultdict(list), "policy": defaultdict(list)}
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
    return {
        "iteration": stage.iteration,
        "temperature": evaluation.temperatures[0],
        "win_rate": {str(t): _win_rate(by_set, stage.seed) for t, by_set in wins.items()},
        "scores": {who: {name: fmean(values) for name, values in by_set.items()} for who, by_set in scores.items()},
        "tokens": {who: fmean(values) for who, values in lengths.items()},
    }


def _win_rate(by_set: dict[str, list[float]], seed: int) -> dict[str, Any]:
    means = {name: fmean(outcomes) for name, outcomes in by_set.items()}
    low, high = bootstrap_mean(list(by_set.values()), seed)
    return {"mean": fmean(means.values()), "ci95": [low, high], "by_set": means}


def report_of(summary: dict[str, Any]) -> Report:
    """Scores and win rate by set, the win rates over the iterations, and mean lengths."""
    rates, tokens, first = summary["win_rate"], summary["tokens"], str(summary["temperature"])
    scores = {
        f"{who} score": Column(dict(sorted(by_set.items())), fmean(by_set.values()), bar=who)
        for who, by_set in summary["scores"].items()
    }
    won = Column(rates[first]["by_set"], rates[first]["mean"], rates[first]["ci95"], percent=True)
    others = ", ".join(f"{percent(rate['mean'])} at {t}" for t, rate in rates.items() if t != first)
    curves = {f"temperature {t}": Point(rate["mean"], rate["ci95"]) for t, rate in rates.items()}
    return Report(
        results=_results(summary),
        table=Table("set", {**scores, "win rate": won}, f"Judge's score by set, iteration {summary['iteration']}"),
        lines={
            "iterations": f"{summary['iteration']}, sampled at temperature {summary['temperature']:g}",
            **({"other temperatures": others} if others else {}),
            "mean tokens": f"{tokens['base']:.1f} -> {tokens['policy']:.1f}",
        },
        panels={"Win rate against the initial policy": Panel(curves, chance=0.5, percent=True)},
    )


def report_of_step(step: str, summary: dict[str, Any]) -> Report:
    """The win rates of a step that is not the last: a line, and results of their own."""
    results = {f"{step} {name}": rate for name, rate in _results(summary).items()}
    return Report(results, lines={step: percent(next(iter(results.values())))})


def _results(summary: dict[str, Any]) -> dict[str, float]:
    """The first temperature is the headline."""
    return {f"win rate T={t}": rate["mean"] for t, rate in summary["win_rate"].items()}
