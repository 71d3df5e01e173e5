"""The toy world's models: what ships works, and a short build makes all of it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned import check_against_plan

from tsalign import api
from tsalign.config import ModelConfig
from tsalign.runs.artifacts import model_from
from tsalign.runs.dry_run import plan
from tsalign.runs.run import Run
from tsalign.scoring import Item
from tsalign.scoring.reward_model import RewardModel
from tsalign.toy.build import build_config, generate, grow_teacher, ship, student_preferences, toy
from tsalign.toy.demonstrator import perturb
from tsalign.toy.names import ASSETS, MODELS
from tsalign.toy.objective import matches
from tsalign.toy.oracle import grade
from tsalign.toy.world import split_of, tasks


def test_what_ships_is_small_and_loads() -> None:
    files = [file for file in ASSETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}
    for role in MODELS:
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
    rows = [row for _, row in student_preferences()]
    assert len(rows) == 600
    assert rows == [row for _, row in student_preferences()]
    assert {split_of(row["prompt"][-1]["content"]) for row in rows} == {"train"}


def test_matching_tokens_are_bits() -> None:
    assert matches([5, 6, 7], [5, 9, 7, 8]) == 0b101
    assert matches([1] * 40, [1] * 40) == 2**24 - 1


def same_shape(one: Path, other: Path) -> bool:
    return (one / "config.json").read_text() == (other / "config.json").read_text()


def test_every_shipped_model_is_a_stage_of_the_build(tmp_path: Path) -> None:
    planned = plan(build_config(tmp_path / "assets"), toy.function)
    assert set(MODELS) <= {need.stage for need in planned.needs if "optimiser steps" in need.work}


def test_a_short_build_grows_the_teacher(tmp_path: Path, ray_session: None) -> None:
    config = build_config(tmp_path / "assets", short=True)
    run = Run(config, "build")
    with run.open():
        clean = run.stage("clean_rows", generate, "clean_rows", 64 * config.policy_steps // 4)
        grown = grow_teacher(run, config, clean)
    assert RewardModel(grown).load()([Item(task.messages, task.response) for task in tasks("tune", 0, 2)])
    assert same_shape(Path(grown.path), ASSETS / "teacher")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_short_build_makes_all_models(tmp_path: Path, ray_session: None) -> None:
    api.run(build_config(tmp_path / "assets", short=True))
    ship(tmp_path / "assets")
    for role in MODELS:
        made = {file.name for file in (tmp_path / "assets" / role).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= made
    assert same_shape(tmp_path / "assets" / "teacher", ASSETS / "teacher")
    check_against_plan(tmp_path / "assets-build")
