"""The student's agreement: what is scored, and what it cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from upath import UPath

from tsalign.data.shards import Shard, write_shard
from tsalign.recipes.ts_align.agreement import AgreementWorker, PairsWorker, agreement_rates, report_of
from tsalign.runs.artifacts import Dataset, Model
from tsalign.scoring.reward_model import RewardModel


def candidate_set(**scores: list[float]) -> dict[str, Any]:
    """Two completions at temperature 1 and one at 0, which does not count."""
    completions = [
        {"text": text, "token_ids": None, "finish": "stop", "seed": 0, "temperature": temperature}
        for text, temperature in (("the cat", 1.0), ("cat", 1.0), ("the", 0.0))
    ]
    prompt = [{"role": "user", "content": "sort b a"}]
    return {"prompt_id": "one", "set": "easy", "prompt": prompt, "completions": completions, **scores}


def test_a_student_without_a_head_has_no_agreement_before_its_training(
    models: dict[str, Model], tmp_path: Path
) -> None:
    base = candidate_set(**{"score.judge": [1.0, 0.0, 0.0], "score.teacher": [0.5, 0.25, 0.0]})
    write_shard(UPath(tmp_path) / "base" / "part-00000.parquet", Shard([base]))
    students = (models["policy"], models["student"])
    teacher = RewardModel(models["student"])
    newest = PairsWorker(teacher, 1.0)([candidate_set(**{"score.policy": [1.0, 0.0, 0.0]})], "part-00000.parquet")
    worker = AgreementWorker(Dataset(str(tmp_path / "base"), "base"), students, 1.0)
    shard = worker(newest.rows, "part-00000.parquet")
    assert {"newest.after", "fixed.after"} <= set(shard.rows[0])
    assert not {"newest.before", "fixed.before"} & set(shard.rows[0])
    write_shard(UPath(tmp_path) / "scored" / "part-00000.parquet", shard)
    summary = agreement_rates(Dataset(str(tmp_path / "scored"), "scored"))
    assert summary["fixed"]["teacher"]["before"] is None
    assert summary["fixed"]["teacher"]["after"] in (0.0, 1.0)
    assert report_of(summary).trends["student ~ teacher"].before is None


def test_teacher_and_students_are_counted_by_their_roles(models: dict[str, Model], tmp_path: Path) -> None:
    base = candidate_set(**{"score.judge": [1.0, 0.0, 0.0], "score.teacher": [0.5, 0.25, 0.0]})
    write_shard(UPath(tmp_path) / "part-00000.parquet", Shard([base]))
    student = replace(models["student"], role="student")
    teacher = RewardModel(replace(models["student"], role="teacher"))
    verdict = candidate_set(**{"score.policy": [1.0, 0.0, 0.0]})
    newest = PairsWorker(teacher, 1.0)([verdict], "part-00000.parquet")
    # The teacher scored the base's completions before.
    assert newest.counts["calls.teacher"] == len(newest.rows[0]["score.teacher"]) == 2
    for after in (student, replace(student, fingerprint="other")):
        worker = AgreementWorker(Dataset(str(tmp_path), "base"), (student, after), 1.0)
        shard = worker([dict(row) for row in newest.rows], "part-00000.parquet")
        assert [len(shard.rows[0][f"newest.{who}"]) for who in ("teacher", "before", "after")] == [2, 2, 2]
        assert shard.counts["tokens.student"] > newest.counts["tokens.teacher"] > 0
        # Each student scores both pairs, before and after.
        assert shard.counts["calls.student"] == 8
