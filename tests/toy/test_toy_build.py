"""The toy world's models: what ships works, and a short build makes all of it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned import check_against_plan

from tsalign.config import ModelConfig
from tsalign.runs.artifacts import model_from
from tsalign.scoring import Item
from tsalign.scoring.reward_model import RewardModel
from tsalign.toy import build as toy
from tsalign.toy.build import student_preferences
from tsalign.toy.demonstrator import perturb
from tsalign.toy.objective import matches
from tsalign.toy.oracle import grade
from tsalign.toy.world import split_of, tasks


def test_what_ships_is_small_and_loads() -> None:
    files = [file for file in toy.ASSETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}
    for role in toy.SHIPPED:
        assert Path(model_from(ModelConfig(model=f"toy:{role}"), role).path, "model.safetensors").exists()


def test_the_teacher_knows_right_from_nearly_right() -> None:
    import random

    rng = random.Random(0)
    chosen = tasks("tune", 5, 140)
    items = [Item(task.messages, text) for task in chosen for text in (task.response, perturb(rng, task))]
    scores = RewardModel(model_from(ModelConfig(model="toy:teacher"), "teacher")).load()(items)
    oracle = [grade(item.prompt, item.completion) for item in items]
    pairs = [(s1 > s2) == (o1 > o2) for s1, s2, o1, o2 in zip(scores[::2], scores[1::2], oracle[::2], oracle[1::2])]
    assert sum(pairs) / len(pairs) > 0.8


def test_what_the_student_learnt_is_known_and_from_the_training_split() -> None:
    rows = list(student_preferences())
    assert len(rows) == 600
    assert rows == list(student_preferences())
    assert {split_of(row["prompt"][-1]["content"]) for row in rows} == {"train"}


def test_matching_tokens_are_bits() -> None:
    assert matches([5, 6, 7], [5, 9, 7, 8]) == 0b101
    assert matches([1] * 40, [1] * 40) == 2**24 - 1


def test_a_short_build_makes_all_models(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy.build(tmp_path / "assets", short=True)
    for role in toy.SHIPPED:
        made = {file.name for file in (tmp_path / "assets" / role).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= made
    config = (tmp_path / "assets" / "teacher" / "config.json").read_text()
    assert config == (toy.ASSETS / "teacher" / "config.json").read_text()
    check_against_plan(tmp_path / "assets-build")
