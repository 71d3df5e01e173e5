"""Training on real DeepSpeed: under Ray Train with ZeRO-2, ZeRO-3, a lost worker, an error; the loop in this process.

A worker takes seconds to start, so that what needs no second one runs the loop here, as the only member of its group.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import (
    CustomTrainConfig,
    DPOTrainConfig,
    LogisticTrainConfig,
    MarginRankingTrainConfig,
    Placement,
    Range,
    ResourceConfig,
    SFTTrainConfig,
    TrainConfig,
)
from tsalign.data.loading import load
from tsalign.data.shards import Shard, write_shard
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import ExpectedDataset, ExpectedModel, Plan, PlannedStage
from tsalign.scoring import Item
from tsalign.scoring.logprob import LogProb
from tsalign.toy.world import tasks
from tsalign.training import objectives
from tsalign.training.examples import Batch
from tsalign.training.objectives.ranking import PairwiseRanking, logistic
from tsalign.training.objectives.sft import SFT
from tsalign.training.stage import train

FAST: dict[str, Any] = {"precision": "fp32", "learning_rate": 3e-3, "schedule": "constant", "warmup": 0.0}


def sft_rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": task.messages, "completion": task.response} for task in tasks("train", 0, count)]


def preference_rows(count: int) -> list[dict[str, Any]]:
    rng, rows = random.Random(0), []
    for task in tasks("train", 1, count):
        wrong = rng.choice(["cat dog", "1 2 3 4", "the answer is 5"])
        sides = {"chosen": task.response, "rejected": wrong}
        rows.append(
            {"prompt_id": task.prompt, "prompt": task.messages}
            | {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        )
    return rows


RANGE = Range(min=1, max=4)


def dataset(path: Path, rows: list[dict[str, Any]], shards: int = 3) -> Dataset:
    for number in range(shards):
        write_shard(UPath(path) / f"part-{number:05}.parquet", Shard(rows[number::shards]))
    return Dataset(str(path), "data")


def losses(reports: list[dict[str, float]]) -> list[float]:
    return [report["loss"] for report in reports if "loss" in report]


LEARNS: dict[str, Any] = {**FAST, "batch_size": 13, "epochs": 2}


@pytest.fixture(scope="module")
def learnt(
    alone: Callable[..., list[dict[str, float]]], models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory
) -> list[float]:
    """The losses of a training in one process without ZeRO, each step in one micro-batch."""
    folder = tmp_path_factory.mktemp("learnt")
    config = SFTTrainConfig(**LEARNS, batch_tokens=100_000, zero_stage=0)
    return losses(alone(models["policy"], dataset(folder / "rows", sft_rows(96)), config, folder / "policy"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_workers_learn_as_one_and_export(
    zero_stage: int,
    learnt: list[float],
    models: dict[str, Model],
    make_stage: Callable[..., Any],
    tmp_path: Path,
    released: Callable[[], None],
) -> None:
    stage, log = make_stage("policy", workers=2)
    config = SFTTrainConfig(**LEARNS, zero_stage=zero_stage, batch_tokens=90)
    began = time.monotonic()
    trained = train(stage, models["policy"], [dataset(tmp_path / "rows", sft_rows(96))], config, "policy")
    took = time.monotonic() - began
    seen = losses(log.reports)
    assert len(seen) == 16
    assert seen[-1] < 0.75 * seen[0]
    assert seen == pytest.approx(learnt, abs=2e-4)
    # The exported folder loads by the ordinary door, and scores the training rows as the loop last saw them.
    model = AutoModelForCausalLM.from_pretrained(trained.path)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    items = [Item(row["prompt"], row["completion"]) for row in sft_rows(96)]
    after = LogProb(trained, "mean").load()(items)
    start = LogProb(models["policy"], "mean").load()(items)
    assert sum(after) > sum(start)
    assert not stage.work.exists()
    # The seconds of its phases are all of its time; the first batch is on record.
    spent = [stage.phases[phase] for phase in ("start", "load", "encode", "work", "commit")]
    assert all(seconds > 0 for seconds in spent)
    assert sum(spent) == pytest.approx(took, rel=0.1)
    first = (Path(trained.path) / "first_batch.txt").read_text()
    assert any(f" {row['completion']}" in first for row in sft_rows(96))
    assert first.count("  completion\n") == first.count("example ")
    released()


def test_losses_do_not_depend_on_micro_batches(
    alone: Callable[..., list[dict[str, float]]], learnt: list[float], models: dict[str, Model], tmp_path: Path
) -> None:
    config = SFTTrainConfig(**LEARNS, batch_tokens=60, zero_stage=1)
    reports = alone(models["policy"], dataset(tmp_path / "rows", sft_rows(96)), config, tmp_path / "policy")
    assert losses(reports) == pytest.approx(learnt, abs=2e-4)


def test_dpo_starts_at_ln2_and_lifts_the_margin(
    alone: Callable[..., list[dict[str, float]]], models: dict[str, Model], tmp_path: Path
) -> None:
    rows = preference_rows(64)
    reference = LogProb(models["policy"]).load()
    for row in rows:
        row["score.reference"] = reference([Item(row["prompt"], row[s][0]["content"]) for s in ("chosen", "rejected")])
    config = DPOTrainConfig(**FAST, reference="previous", nll=0.0, batch_size=32, epochs=3)
    reports = alone(models["policy"], dataset(tmp_path / "rows", rows), config, tmp_path / "policy")
    seen, last = losses(reports), reports[-1]
    assert seen[0] == pytest.approx(math.log(2), abs=1e-5)
    assert seen[-1] < seen[0]
    assert last["accuracy"] > 0.9
    assert last["chosen_reward"] > last["rejected_reward"]
    assert last["chosen_reward"] - last["rejected_reward"] == pytest.approx(last["margin"], abs=1e-5)


class Own(PairwiseRanking):
    """An objective that a config names as module:Class."""

    def __init__(self, config: CustomTrainConfig) -> None:
        super().__init__(logistic, **config.options)


@pytest.mark.parametrize(
    "config",
    [
        MarginRankingTrainConfig(**FAST, batch_size=16, epochs=3),
        LogisticTrainConfig(**FAST, batch_size=16, epochs=3),
        CustomTrainConfig(**FAST, batch_size=16, epochs=3, objective=f"{__name__}:Own", options={"margin": 0.5}),
    ],
    ids=["margin_ranking", "logistic", "own"],
)
def test_a_student_learns_an_order_and_replays(
    config: TrainConfig, alone: Callable[..., list[dict[str, float]]], models: dict[str, Model], tmp_path: Path
) -> None:
    rows = preference_rows(96)
    new, old = dataset(tmp_path / "new", rows[:64]), dataset(tmp_path / "old", rows[64:])
    reports = alone(models["student"], new, config, tmp_path / "student", replay=[old], share=0.25)
    assert reports[0]["examples"] == 64 + 16
    assert reports[-1]["accuracy"] > 0.9
    assert reports[-1]["better_score"] > reports[-1]["worse_score"]


@pytest.mark.usefixtures("ray_session")
def test_a_cut_training_goes_on_from_its_checkpoint(
    alone: Callable[..., list[dict[str, float]]],
    models: dict[str, Model],
    make_stage: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data = dataset(tmp_path / "rows", sft_rows(80))
    settings = {**FAST, "batch_size": 10}
    expected = alone(models["policy"], data, SFTTrainConfig(**settings), tmp_path / "whole")

    cut, cut_log = make_stage("cut")
    marker = tmp_path / "died"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", lambda _, config: DiesOnce(config, marker, Path(cut.work)))
        config = SFTTrainConfig(**settings, checkpoint_steps=3, max_failures=1)
        resumed = train(cut, models["policy"], [data], config, "policy")
    assert marker.exists()
    # Killed in its fifth step: the second try starts after the checkpoint of the third.
    assert [report["step"] for report in cut_log.reports if "examples" in report] == [0, 3]
    assert losses(cut_log.reports)[-5:] == pytest.approx(losses(expected)[-5:], abs=1e-6)
    whole = Model(str(tmp_path / "whole"), "whole")
    weights = [load(model, "causal", torch.float32)[0].state_dict() for model in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    first = [(Path(model.path) / "first_batch.txt").read_text() for model in (whole, resumed)]
    assert first[0] == first[1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_training_goes_on_with_fewer_workers(
    alone: Callable[..., list[dict[str, float]]],
    models: dict[str, Model],
    make_stage: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data, settings = dataset(tmp_path / "rows", sft_rows(80)), {**FAST, "batch_size": 10, "zero_stage": 0}
    expected = losses(alone(models["policy"], data, SFTTrainConfig(**settings), tmp_path / "whole"))
    stage, log = make_stage("elastic")
    stage = replace(stage, resources=ResourceConfig(train_policy=Placement(replicas=Range(min=1, max=2))))
    config, marker = SFTTrainConfig(**settings, checkpoint_steps=3, max_failures=0), tmp_path / "died"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception, match=r"died|killed|exited|unexpectedly"):
        patch.setattr(objectives, "build", lambda _, config: DiesOnce(config, marker, Path(stage.work)))
        train(stage, models["policy"], [data], config, "policy")
    before = losses(log.reports)
    assert before == pytest.approx(expected[: len(before)], abs=1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", lambda _, config: Counting(config, tmp_path / "workers"))
        one = replace(stage, resources=ResourceConfig(train_policy=Placement(replicas=1)))
        train(one, models["policy"], [data], config, "policy")
    assert [report["step"] for report in log.reports if "examples" in report] == [0, 3]
    assert losses(log.reports)[-5:] == pytest.approx(expected[-5:], abs=1e-4)
    assert (tmp_path / "workers").read_text() == "1"


class Counting(SFT):
    """SFT that notes how many workers there are."""

    def __init__(self, config: SFTTrainConfig, file: Path) -> None:
        super().__init__(config)
        self.file = file

    def loss(self, model: Any, batch: Batch) -> Any:
        self.file.write_text(str(torch.distributed.get_world_size()))
        return super().loss(model, batch)


@pytest.mark.parametrize(
    ("keys", "replicas", "refused"),
    [
        ({"zero_stage": 0, "precision": "fp32"}, RANGE, False),
        ({"zero_stage": 0, "precision": "bf16"}, RANGE, True),
        ({"zero_stage": 1, "precision": "fp32"}, RANGE, True),
        ({"zero_stage": 3, "precision": "bf16"}, 2, False),
    ],
)
def test_a_range_of_workers_needs_checkpoints_that_fit_any_number(
    keys: dict[str, Any], replicas: Any, refused: bool
) -> None:
    place, config = Placement(replicas=replicas), SFTTrainConfig(**{**FAST, **keys})
    stage = PlannedStage("policy", 1, False, ResourceConfig(train_policy=place), Plan())
    train.expect(stage, ExpectedModel("m", "m"), [ExpectedDataset("d", "d", rows=10)], config, "policy")
    assert [problem[:45] for problem in stage.plan.problems] == [
        "resources.train_policy.replicas: a range need"
    ] * refused


class DiesOnce(SFT):
    """SFT whose process is killed in its fifth loss, once Ray Train knows the checkpoint, the first time."""

    def __init__(self, config: SFTTrainConfig, marker: Path, work: Path) -> None:
        super().__init__(config)
        self.marker, self.work, self.calls = marker, work, 0

    def loss(self, model: Any, batch: Batch) -> Any:
        self.calls += 1
        if self.calls == 5 and not self.marker.exists():
            self.marker.touch()
            while not any("checkpoint_" in file.read_text() for file in self.work.glob("*/checkpoint_manager_*.json")):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch)


@pytest.mark.usefixtures("ray_session")
def test_rows_that_are_all_too_long_are_an_error_at_once(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    stage, _ = make_stage("policy")
    tries = tmp_path / "tries"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", lambda _, config: Noted(config, tries))
        with pytest.raises(TsalignError, match="nothing to train on") as raised:
            train(
                stage,
                models["policy"],
                [dataset(tmp_path / "rows", sft_rows(6))],
                SFTTrainConfig(**FAST, max_length=2, max_failures=2),
                "policy",
            )
    assert type(raised.value) is TsalignError
    assert len(set(tries.read_text().split())) == 1  # no second worker for what cannot succeed


class Noted(SFT):
    """SFT that notes which process encodes."""

    def __init__(self, config: SFTTrainConfig, tries: Path) -> None:
        super().__init__(config)
        self.tries = tries

    def encode(self, row: dict[str, Any], tokenizer: Any) -> Any:
        with self.tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().encode(row, tokenizer)
