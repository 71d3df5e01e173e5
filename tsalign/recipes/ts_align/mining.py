"""Candidate sets -> preferences. Pure functions, and the stage that applies them with a teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tsalign.common.progress import unseen
from tsalign.common.seeds import derive
from tsalign.common.storage import atomic
from tsalign.data.pairs import best_and_worst, preference_of, random_pair
from tsalign.data.shards import Row, Shard, iterate, read_counts, take_counts
from tsalign.data.workers import map_shards
from tsalign.recipes.ts_align.config import MiningConfig
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, at_most, expected, times
from tsalign.runs.report import mostly, warn
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import Item, Scorer, items
from tsalign.scoring.stage import in_share

EXPORTED = ["prompt", "chosen", "rejected", "chosen_finish", "rejected_finish"]


def nominate(row: Row, strategy: str, seed: int) -> list[int]:
    """The candidates that become a pair, or that the teacher chooses from: best first where the student ranked."""
    texts = [completion["text"] for completion in row["completions"]]
    if strategy == "teacher-all":
        return list(range(len(texts)))
    if strategy == "random":
        return list(random_pair(texts, derive(seed, row["prompt_id"])))
    return list(best_and_worst(row["score.student"]))


def identical(row: Row, nominees: Sequence[int]) -> bool:
    """Whether all nominees have the same text, so that there is nothing to ask."""
    return len({row["completions"][index]["text"] for index in nominees}) == 1


def decided(row: Row, nominees: Sequence[int], labels: Sequence[float], tie_margin: float) -> Row | None:
    """The preference between the nominees with the highest and the lowest label; None where these are tied.

    Args:
        labels: one score a nominee: the teacher's, or the student's where no teacher is asked.

    Returns:
        the row, with the student's scores of both (None where it gave none), and `flipped`, whether it had them the
        other way round.
    """
    made = preference_of(row, nominees, labels, tie_margin)
    if made is None:
        return None
    best, worst = (nominees[index] for index in best_and_worst(labels))
    student = row.get("score.student")
    return {
        **made,
        "score.student": [student[best], student[worst]] if student else None,
        "flipped": bool(student and student[best] < student[worst]),
    }


@stage_function("ts_align/mine")
def mine(
    stage: Stage,
    candidates: Dataset,
    teacher: Scorer,
    mining: MiningConfig,
    share: tuple[float, float] = (0.0, 1.0),
) -> Dataset:
    """Preferences from candidate sets by `mining.strategy`; also as `preferences.jsonl`, which TRL reads.

    Args:
        teacher: asked only where the strategy needs it.
        share: only prompts whose hash, as a fraction, lies in [low, high).

    Raises:
        TsalignError: no pair is left, or the teacher failed on too many.
    """
    asked = None if mining.strategy == "student-only" else teacher
    arguments = {
        "teacher": asked,
        "mining": mining,
        "seed": derive(stage.seed, stage.iteration),
        "share": share,
    }
    preferences = map_shards(stage, candidates, MineWorker, arguments, stage.resources.mine)
    with atomic(stage.out / "preferences.jsonl") as path, path.open("w") as file:
        for row in iterate([preferences], EXPORTED):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = read_counts(preferences)
    ties = f"of the pairs are ties of the {asked.who if asked else 'student'} and dropped; see mining.tie_margin."
    warn(stage.out, *mostly(counts["tied"], counts["tied"] + counts["rows"], ties))
    return preferences


@mine.expects
def _expect_preferences(
    stage: PlannedStage,
    candidates: Dataset,
    teacher: Scorer,
    mining: MiningConfig,
    share: tuple[float, float] = (0.0, 1.0),
) -> Dataset:
    sets = expected(candidates)
    rows, nominees = times(sets.rows, share[1] - share[0]), at_most(sets.completions, 2)
    if mining.strategy == "student-only":
        stage.needs("", stage.resources.mine, {"rows": rows}, mining.strategy)
    else:
        teacher.check(stage.plan)
        asked = teacher.work(rows, sets.completions if mining.strategy == "teacher-all" else nominees)
        stage.needs(teacher.who, stage.resources.mine, asked, mining.strategy)
    return stage.derived(sets, rows=rows, completions=2.0, temperatures=1)


class MineWorker:
    """Nominates, asks the teacher once a shard, and builds the rows."""

    def __init__(self, teacher: Scorer | None, mining: MiningConfig, seed: int, share: tuple[float, float]) -> None:
        self.teacher = teacher.load() if teacher else None
        self.role, self.report = teacher.who if teacher else "", unseen
        self.mining, self.seed, self.share = mining, seed, share

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        nominated = [(row, nominate(row, self.mining.strategy, self.seed)) for row in in_share(rows, self.share)]
        asked = [(row, nominees) for row, nominees in nominated if not identical(row, nominees)]
        labels, cost = self._labels(asked)
        kept, failed, tied, start = [], [], 0, 0
        for (row, nominees), label in zip(asked, labels):
            if self.teacher and None in label:
                failed.append(self.teacher.failure("the teacher gave no score", start, label).row(row["prompt_id"]))
            elif made := decided(row, nominees, label, self.mining.tie_margin):
                kept.append(made)
            else:
                tied += 1
            start += len(label)
        flipped = sum(row["flipped"] for row in kept)
        counts = {"identical": len(nominated) - len(asked), "tied": tied, "flipped": flipped}
        return Shard(kept, failed, counts | cost, self.teacher.stop if self.teacher else "")

    def _labels(self, nominated: list[tuple[Row, list[int]]]) -> tuple[list[list[Any]], dict[str, float]]:
        """A label for each nominee, and what the teacher was asked: evaluations and tokens."""
        if self.teacher is None:
            return [[row["score.student"][i] for i in nominees] for row, nominees in nominated], {}
        asked: list[Item] = []
        for group, (row, nominees) in enumerate(nominated):
            all_items = items(row, group)
            asked += [all_items[i] for i in nominees]
        self.teacher.report = self.report
        scores = iter(self.teacher.scored(asked))
        labels = [[next(scores) for _ in nominees] for _, nominees in nominated]
        return labels, take_counts(self.teacher, self.role, "teacher")
