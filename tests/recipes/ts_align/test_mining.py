"""Mining: which pair of a candidate set becomes a preference."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.data.pairs import best_and_worst, random_pair
from tsalign.recipes.ts_align.config import MiningConfig
from tsalign.recipes.ts_align.mining import MineWorker, decided, identical, nominate
from tsalign.scoring import Item, LoadedScorer, Scorer


def candidate_set(texts: list[str], student: list[float] | None = None, prompt_id: str = "p") -> dict[str, Any]:
    completions = [
        {"text": t, "token_ids": [i], "finish": "stop", "seed": i, "temperature": 1.0} for i, t in enumerate(texts)
    ]
    row = {
        "prompt_id": prompt_id,
        "set": "s",
        "prompt": [{"role": "user", "content": "q"}],
        "prompt_ids": [7],
        "completions": completions,
        "writer": "w",
        "sampling": "{}",
    }
    return row | ({"score.student": student} if student else {})


class CountingTeacher(Scorer, LoadedScorer):
    """Scores by text length; knows what it was asked."""

    who = "teacher"

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def load(self) -> "CountingTeacher":
        return self

    def __call__(self, items: list[Item]) -> list[float | None]:
        self.asked += len(items)
        self.counts["calls"] += len(items)
        return [None if item.completion == "fails" else float(len(item.completion)) for item in items]


def mined(rows: list[dict[str, Any]], **settings: Any):
    teacher = CountingTeacher()
    worker = MineWorker(teacher, MiningConfig(**settings), seed=1, share=(0.0, 1.0))
    return worker(rows, "part-00000.parquet"), teacher


def test_the_teacher_flips_the_students_order() -> None:
    shard, teacher = mined([candidate_set(["aaaa", "bb", "c"], [0.1, 0.5, 0.9])])
    (row,) = shard.rows
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("aaaa", "c")
    assert row["flipped"] is True
    assert row["score.label"] == [4.0, 1.0]
    assert row["score.student"] == [0.1, 0.9]
    assert (row["chosen_ids"], row["rejected_ids"]) == ([0], [2])
    assert teacher.asked == 2
    assert shard.counts == {"identical": 0, "tied": 0, "flipped": 1, "calls.teacher": 2}


def test_identical_and_tied_pairs_are_dropped_and_counted() -> None:
    rows = [candidate_set(["x", "x"], [0.0, 1.0]), candidate_set(["ab", "cd"], [0.0, 1.0])]
    shard, teacher = mined(rows)
    assert shard.rows == []
    assert (shard.counts["identical"], shard.counts["tied"]) == (1, 1)
    assert teacher.asked == 2


def test_a_completion_without_a_score_is_a_failed_row() -> None:
    shard, _ = mined([candidate_set(["fails", "ok"], [0.0, 1.0])])
    assert shard.rows == []
    assert shard.failed == [{"prompt_id": "p", "reason": "the teacher gave no score", "answered": True}]


def test_teacher_all_asks_for_every_candidate() -> None:
    shard, teacher = mined([candidate_set(["a", "bbb", "cc"])], strategy="teacher-all")
    assert teacher.asked == 3
    assert (shard.rows[0]["chosen"][0]["content"], shard.rows[0]["rejected"][0]["content"]) == ("bbb", "a")
    assert shard.rows[0]["flipped"] is False


def test_student_only_asks_nobody() -> None:
    worker = MineWorker(None, MiningConfig(strategy="student-only"), seed=1, share=(0.0, 1.0))
    shard = worker([candidate_set(["a", "bbb", "cc"], [0.9, 0.1, 0.5])], "part-00000.parquet")
    assert shard.rows[0]["chosen"][0]["content"] == "a"
    assert shard.rows[0]["score.label"] == [0.9, 0.1]


def test_shares_partition_the_prompts() -> None:
    rows = [candidate_set(["a", "bb"], [0.0, 1.0], prompt_id=f"p{i}") for i in range(200)]
    kept = []
    for share in ((0.0, 0.5), (0.5, 1.0)):
        worker = MineWorker(CountingTeacher(), MiningConfig(), seed=1, share=share)
        kept += [row["prompt_id"] for row in worker(rows, "part-00000.parquet").rows]
    assert sorted(kept) == sorted(row["prompt_id"] for row in rows)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_best_and_worst_bound_the_scores(scores: list[float]) -> None:
    best, worst = best_and_worst(scores)
    assert scores[best] == max(scores)
    assert scores[worst] == min(scores)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.integers(0, 1000))
def test_a_random_pair_differs_where_it_can(texts: list[str], seed: int) -> None:
    one, two = random_pair(texts, seed)
    assert (texts[one] != texts[two]) == (len(set(texts)) > 1)
    assert random_pair(texts, seed) == (one, two)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.lists(st.floats(-3, 3), min_size=2, max_size=2))
def test_chosen_never_scores_below_rejected(student: list[float], labels: list[float]) -> None:
    row = candidate_set([f"t{i}" for i in range(len(student))], student)
    nominees = nominate(row, "ts-align", 0)
    assert identical(row, nominees) == (max(student) == min(student))
    made = decided(row, nominees, labels, tie_margin=0.0)
    if made:
        assert made["score.label"][0] > made["score.label"][1]
        assert made["flipped"] == (made["score.student"][0] < made["score.student"][1])
    else:
        assert labels[0] == labels[1]


def test_refresh_needs_the_paper_s_strategy() -> None:
    with pytest.raises(ValueError, match="refresh works with strategy ts-align only"):
        MiningConfig(strategy="random", refresh=0.5)
