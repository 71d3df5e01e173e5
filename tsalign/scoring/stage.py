"""The scoring stage: named score columns added to candidate sets or preferences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsalign.common.progress import unseen
from tsalign.common.seeds import fraction
from tsalign.data.shards import Row, Shard, take_counts
from tsalign.data.workers import map_shards
from tsalign.engines import Failed
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import LoadedScorer, Scorer, items, placement


@stage_function("score")
def score(
    stage: Stage, data: Dataset, scorers: Mapping[str, Scorer], share: tuple[float, float] = (0.0, 1.0)
) -> Dataset:
    """Add the column `score.<name>` for each scorer: one float a completion.

    Args:
        share: only prompts whose hash, as a fraction, lies in [low, high).

    Raises:
        TsalignError: a scorer failed on more rows than allowed.
    """
    arguments: dict[str, Any] = {"scorers": scorers, "share": share}
    return map_shards(stage, data, ScoreWorker, arguments, placement(scorers.values(), stage.resources))


@score.expects
def _expect_scores(
    stage: PlannedStage, data: Dataset, scorers: Mapping[str, Scorer], share: tuple[float, float] = (0.0, 1.0)
) -> Dataset:
    items = expected(data)
    rows = times(items.rows, share[1] - share[0])
    place = placement(scorers.values(), stage.resources)
    for scorer in scorers.values():
        scorer.check(stage.plan)
        stage.needs(scorer.who, place, scorer.work(rows, items.completions))
    return stage.derived(items, rows=rows)


class ScoreWorker:
    """Loads the scorers once and scores shard after shard."""

    def __init__(self, scorers: Mapping[str, Scorer], share: tuple[float, float]) -> None:
        self.scorers = {name: scorer.load() for name, scorer in scorers.items()}
        self.roles = {name: scorer.who for name, scorer in scorers.items()}
        self.share, self.report = share, unseen
        for loaded in self.scorers.values():
            loaded.report = lambda share: self.report(share / len(self.scorers))

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        rows = in_share(rows, self.share)
        failed: dict[int, Failed] = {}
        for name, scorer in self.scorers.items():
            found = add_scores(rows, f"score.{name}", scorer)
            failed |= {index: one for index, one in found.items() if index not in failed or one.unanswered}
        good = [row for index, row in enumerate(rows) if index not in failed]
        bad = [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        counts = {"scored": float(sum(len(items(row)) for row in good))}
        for name, scorer in self.scorers.items():
            for what, amount in take_counts(scorer, self.roles[name], name).items():
                counts[what] = counts.get(what, 0.0) + amount
        return Shard(good, bad, counts, next((scorer.stop for scorer in self.scorers.values() if scorer.stop), ""))


def in_share(rows: list[Row], share: tuple[float, float]) -> list[Row]:
    """The rows whose prompt falls into a share of [0, 1)."""
    return [row for row in rows if share[0] <= fraction(row["prompt_id"], "share") < share[1]]


def add_scores(rows: list[Row], column: str, scorer: LoadedScorer) -> dict[int, Failed]:
    """Score all completions of all rows in one call, in place. Returns row index -> what failed."""
    flat = [item for group, row in enumerate(rows) for item in items(row, group)]
    scores, start, failed = scorer.scored(flat), 0, dict[int, Failed]()
    for index, row in enumerate(rows):
        row[column] = scores[start : start + len(items(row))]
        if None in row[column]:
            what = f"{column}: no score for completion {row[column].index(None)}"
            failed[index] = scorer.failure(what, start, row[column])
        start += len(row[column])
    return failed
