"""Candidate sets -> preferences. Pure functions, and the stage that applies them with a teacher."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tsalign.config import MiningConfig
from tsalign.data.shards import Row, Shard, iterate, map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage
from tsalign.scoring import Item, Scorer, items
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


def preference(row: Row, nominees: Sequence[int], labels: Sequence[float], tie_margin: float) -> Row | str:
    """The preference between the nominees with the highest and the lowest label.

    Args:
        labels: one score a nominee: the teacher's, or the student's where no teacher is asked.

    Returns:
        The row, or why there is none: `identical` texts or `tied` labels.
    """
    if len({row["completions"][index]["text"] for index in nominees}) == 1:
        return "identical"
    best, worst = best_and_worst(labels)
    chosen, rejected = row["completions"][nominees[best]], row["completions"][nominees[worst]]
    if labels[best] - labels[worst] <= tie_margin:
        return "tied"
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
        rows = in_share(rows, self.share)
        nominees = [nominate(row, self.mining.strategy, self.seed) for row in rows]
        labels, cost = self._labels(rows, nominees)
        counts: Counter[str] = Counter(cost)
        kept, failed = [], []
        for row, chosen, label in zip(rows, nominees, labels):
            if None in label:
                failed.append({"prompt_id": row["prompt_id"], "reason": "the teacher gave no score"})
                continue
            made = preference(row, chosen, label, self.mining.tie_margin)
            if isinstance(made, str):
                counts[made] += 1
            else:
                kept.append(made)
                counts["flipped"] += made["flipped"]
        return Shard(kept, failed, {"identical": 0, "tied": 0, "flipped": 0, **counts})

    def _labels(self, rows: list[Row], nominees: list[list[int]]) -> tuple[list[list[Any]], dict[str, float]]:
        """A label for each nominee, and what the teacher was asked: evaluations and tokens."""
        if self.teacher is None:
            return [[row["score.student"][i] for i in chosen] for row, chosen in zip(rows, nominees)], {}
        calls, tokens = self.teacher.calls, self.teacher.tokens
        asked: list[Item] = []
        for row, chosen in zip(rows, nominees):
            all_items = items(row)
            asked += [all_items[i] for i in chosen]
        scores = iter(self.teacher(asked))
        labels = [[next(scores) for _ in chosen] for chosen in nominees]
        return labels, {
            "teacher_calls": self.teacher.calls - calls,
            "teacher_tokens": self.teacher.tokens - tokens,
        }
