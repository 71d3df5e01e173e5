"""A teacher's scores of candidate sets -> rankings to distil, or the best/worst pair for the baselines."""

from __future__ import annotations

import math
from collections.abc import Callable

from tsalign.data.pairs import preference_of
from tsalign.data.shards import Row, Shard
from tsalign.data.workers import map_shards
from tsalign.recipes.pad.config import TeacherScoreConfig
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, expected
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function


def teacher_scores(row: Row, scoring: TeacherScoreConfig) -> list[float]:
    """beta * (alpha * mean log-prob + (1 - alpha) * log selection probability) of each completion (PAD).

    Of `score.logprob` and `score.choice` the one whose weight is 0 may be missing.
    """
    nothing = [0.0] * len(row["completions"])
    both = zip(row.get("score.logprob", nothing), row.get("score.choice", nothing))
    return [scoring.beta * (scoring.alpha * logprob + (1 - scoring.alpha) * choice) for logprob, choice in both]


def decided(row: Row) -> bool:
    """Whether some completion is picked more often than not, and some is not (the filter of PAD's released data)."""
    picked = [math.exp(choice) > 0.5 for choice in row["score.choice"]]
    return any(picked) and not all(picked)


def ranking(row: Row, scoring: TeacherScoreConfig) -> Row | None:
    """The row with `score.teacher`; None where `keep_decided` drops it."""
    if scoring.keep_decided and not decided(row):
        return None
    return {**row, "score.teacher": teacher_scores(row, scoring)}


def best_worst_pair(row: Row) -> Row | None:
    """The preference between the teacher's best and worst; None where it scores all equally."""
    return preference_of(row, range(len(row["completions"])), row["score.teacher"], tie_margin=0.0)


@stage_function("pad/rank")
def rank(stage: Stage, scored: Dataset, scoring: TeacherScoreConfig) -> Dataset:
    """Candidate sets with `score.teacher`; what the filter drops is counted as `undecided`."""
    return map_shards(stage, scored, RankWorker, {"scoring": scoring}, stage.resources.mine)


@rank.expects
def _expect_rankings(stage: PlannedStage, scored: Dataset, scoring: TeacherScoreConfig) -> Dataset:
    stage.needs("", stage.resources.mine, {"rows": expected(scored).rows})
    return stage.derived(scored)


@stage_function("pad/pair")
def pair(stage: Stage, rankings: Dataset) -> Dataset:
    """The best/worst preference of each ranking; those without one are counted as `tied`."""
    return map_shards(stage, rankings, PairWorker, {}, stage.resources.mine)


@pair.expects
def _expect_pairs(stage: PlannedStage, rankings: Dataset) -> Dataset:
    stage.needs("", stage.resources.mine, {"rows": expected(rankings).rows})
    return stage.derived(rankings, completions=2.0)


class RankWorker:
    """Combines the scores of a shard."""

    def __init__(self, scoring: TeacherScoreConfig) -> None:
        self.scoring = scoring

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        return _viewed(rows, lambda row: ranking(row, self.scoring), "undecided")


class PairWorker:
    """Takes the pair out of each ranking of a shard."""

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        return _viewed(rows, best_worst_pair, "tied")


def _viewed(rows: list[Row], view: Callable[[Row], Row | None], dropped: str) -> Shard:
    kept = [made for row in rows if (made := view(row))]
    return Shard(kept, counts={dropped: len(rows) - len(kept)})
