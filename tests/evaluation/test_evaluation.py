"""Evaluation by a judge that compares: answers are put side by side with the base's, not scored alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from upath import UPath

from tsalign.config import EvaluationConfig
from tsalign.data.shards import Shard, write_shard
from tsalign.evaluation.stage import EvaluationWorker, evaluate
from tsalign.runs.artifacts import Dataset
from tsalign.runs.report import Report, Sample, Trend, read_report
from tsalign.scoring import Item, LoadedScorer, Scorer, scorer_from_name


@dataclass(frozen=True)
class LongerWins(Scorer):
    """Scores 1 for the longest completion of a group, 0 for others; None where a completion is empty."""

    who = ""
    comparative = True

    def load(self) -> LoadedScorer:
        return Longest()


class Longest(LoadedScorer):
    def __call__(self, items: list[Item]) -> list[float | None]:
        scores: list[float | None] = []
        for _, group in groupby(items, key=lambda item: item.group):
            lengths = [len(item.completion) for item in group]
            scores += [float(n == max(lengths)) if n else None for n in lengths]
        return scores


def candidate_set(prompt_id: str, *texts: str) -> dict[str, Any]:
    made = [
        {"text": text, "token_ids": list(range(len(text))), "finish": "stop", "seed": 0, "temperature": 1.0}
        for text in texts
    ]
    return {
        "prompt_id": prompt_id,
        "set": "easy",
        "prompt": [{"role": "user", "content": prompt_id}],
        "completions": made,
    }


def stored(folder: Path, *rows: dict[str, Any]) -> Dataset:
    write_shard(UPath(folder) / "part-00000.parquet", Shard(list(rows)))
    return Dataset(str(folder), folder.name)


def test_a_comparing_judge_sees_answers_of_the_same_number_together(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", candidate_set("one", "aa", "bbbb"), candidate_set("two", "c", "dd"))
    worker = EvaluationWorker(base, LongerWins())
    rows = [candidate_set("one", "aaa", "b"), candidate_set("two", "", "dd"), candidate_set("three", "x", "y")]
    shard = worker(rows, "part-00000.parquet")
    (verdict,) = shard.rows
    assert (verdict["score.policy"], verdict["score.base"]) == ([1.0, 0.0], [0.0, 1.0])
    assert {(row["prompt_id"], row["reason"]) for row in shard.failed} == {
        ("two", "the judge gave no verdict"),
        ("three", "the base has no answer"),
    }


def length(prompt: list[dict[str, str]], completion: str) -> float:
    return float(len(completion))


def test_a_judge_of_single_answers_uses_the_base_scores_that_are_known(
    tmp_path: Path, make_stage: Callable, ray_session: None
) -> None:
    known = {**candidate_set("one", "aa", "bbbb"), "score.judge": [100.0, 2.0]}
    base = stored(tmp_path / "base", known)
    answers = stored(tmp_path / "answers", candidate_set("one", "aaaaa", "bbb"))
    stage, log = make_stage("evaluation")
    judge = "test_evaluation:length"
    evaluate(stage, answers, base, scorer_from_name(judge), EvaluationConfig(judge=judge))
    summary = json.loads((stage.out / "summary.json").read_text())
    assert summary["win_rate"]["1.0"]["mean"] == 0.5  # loses to the 100 that the base is said to have, beats the 2
    assert summary["scores"] == {"base": {"easy": 51.0}, "policy": {"easy": 4.0}}
    assert {who: found["length"] for who, found in summary["quality"].items()} == {"base": 3.0, "policy": 4.0}
    assert log["win_rate_t1.0"] == 0.5
    report = read_report(stage.out)
    assert report.results == {"win rate T=1.0": 0.5}
    columns = report.table.columns
    assert [(name, column.mean) for name, column in columns.items()] == [
        *[("base score", 51.0), ("policy score", 4.0), ("win rate", 0.5)]
    ]
    assert columns["win rate"].ci95 == (0.5, 0.5)  # of a single prompt
    assert report.lines == {
        "iterations": "1, sampled at temperature 1",
        "tied by the judge": "0.0 %",
        "mean tokens": "3.0 -> 4.0",
    }
    assert report.trends["log-prob per token"] == Trend(None, None)  # nothing has scored the answers
    assert report.samples == (Sample("one", "aa", "aaaaa"),)


def test_a_step_that_is_not_the_last_reports_its_win_rates_under_its_name(
    tmp_path: Path, make_stage: Callable, ray_session: None
) -> None:
    base = stored(tmp_path / "base", candidate_set("one", "aa", "bbbb"))
    answers = stored(tmp_path / "answers", candidate_set("one", "aaaaa", "bbb"))
    stage, _ = make_stage("evaluation_draft")
    judge = "test_evaluation:length"
    evaluate(stage, answers, base, scorer_from_name(judge), EvaluationConfig(judge=judge), "draft")
    assert read_report(stage.out) == Report({"draft win rate T=1.0": 0.5}, lines={"draft": "50.0 %"})
