"""Candidate sets -> preferences. Pure functions, and the stage that applies them with a teacher."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from tsalign.config import MiningConfig
from tsalign.data.shards import Row, Shard, iterate, map_shards, take_counts
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage
from tsalign.scoring import Item, Scorer, items, why_none
from tsalign.scoring.stage import in_share
from tsalign.seeds import derive
from tsalign.storage import atomic


def best_and_worst(scores: Sequence[float]) -> tuple[int, int]:
    """Indices of the highest and the lowest score; the first of equals."""
    order = range(len(scores))
    return max(order, key=lambda i: scores[i]), min(order, key=lambda i: scores[i])


def random_pair(texts: Sequence[str], seed: int) -> tuple[int, int]:
    """Two candidates with different texts where there are any, else the same one twice."""
    first_of = {text: index for index, text in reversed(list(enumerate(texts)))}
    if len(first_of) < 2:
        return 0, 0
    one, two = random.Random(seed).sample(sorted(first_of.values()), 2)
    return one, two


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


def preference(row: Row, nominees: Sequence[int], labels: Sequence[float], tie_margin: float) -> Row | None:
    """The preference between the nominees with the highest and the lowest label; None where these are tied.

    Args:
        labels: one score a nominee: the teacher's, or the student's where no teacher is asked.
    """
    best, worst = best_and_worst(labels)
    chosen, rejected = row["completions"][nominees[best]], row["completions"][nominees[worst]]
    if labels[best] - labels[worst] <= tie_margin:
        return None
    student = row.get("score.student")
    return {
        **{name: row[name] for name in ("prompt_id", "set", "prompt", "prompt_ids", "writer", "sampling")},
        "chosen": [{"role": "assistant", "content": chosen["text"]}],
        "rejected": [{"role": "assistant", "content": rejected["text"]}],
        "chosen_ids": chosen["token_ids"],
        "rejected_ids": rejected["token_ids"],
        "chosen_origin": {**chosen, "token_ids": None},
        "rejected_origin": {**rejected, "token_ids": None},
        "score.label": [labels[best], labels[worst]],
        "score.student": [student[nominees[best]], student[nominees[worst]]] if student else None,
        "flipped": bool(student and student[nominees[best]] < student[nominees[worst]]),
    }


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
        for row in iterate([preferences], ["prompt", "chosen", "rejected"]):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return preferences


class MineWorker:
    """Nominates, asks the teacher once a shard, and builds the rows."""

    def __init__(self, teacher: Scorer | None, mining: MiningConfig, seed: int, share: tuple[float, float]) -> None:
        self.teacher: Any = teacher.load() if teacher else None
        self.mining, self.seed, self.share = mining, seed, share

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        nominated = [(row, nominate(row, self.mining.strategy, self.seed)) for row in in_share(rows, self.share)]
        asked = [(row, nominees) for row, nominees in nominated if not identical(row, nominees)]
        labels, cost = self._labels(asked)
        kept, failed, tied, start = [], [], 0, 0
        for (row, nominees), label in zip(asked, labels):
            if None in label:
                reason = f"the teacher gave no score{why_none(self.teacher, start + label.index(None))}"
                failed.append({"prompt_id": row["prompt_id"], "reason": reason})
            elif made := preference(row, nominees, label, self.mining.tie_margin):
                kept.append(made)
            else:
                tied += 1
            start += len(label)
        flipped = sum(row["flipped"] for row in kept)
        counts = {"identical": len(nominated) - len(asked), "tied": tied, "flipped": flipped}
        return Shard(kept, failed, counts | cost)

    def _labels(self, nominated: list[tuple[Row, list[int]]]) -> tuple[list[list[Any]], dict[str, float]]:
        """A label for each nominee, and what the teacher was asked: evaluations and tokens."""
        if self.teacher is None:
            return [[row["score.student"][i] for i in nominees] for row, nominees in nominated], {}
        calls, tokens = self.teacher.calls, self.teacher.tokens
        asked: list[Item] = []
        for group, (row, nominees) in enumerate(nominated):
            all_items = items(row, group)
            asked += [all_items[i] for i in nominees]
        scores = iter(self.teacher(asked))
        labels = [[next(scores) for _ in nominees] for _, nominees in nominated]
        cost = take_counts(self.teacher, "teacher")
        cost |= {"teacher_calls": self.teacher.calls - calls, "teacher_tokens": self.teacher.tokens - tokens}
        return labels, cost
