"""The training loop on real Ray Train and DeepSpeed: ZeRO-2 and ZeRO-3 with two workers, resume, invariances."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import (
    DPOTrainConfig,
    LogisticTrainConfig,
    MarginRankingTrainConfig,
    RewardTrainConfig,
    SFTTrainConfig,
)
from tsalign.data.loading import load
from tsalign.data.shards import Shard, write_shard
from tsalign.runs.artifacts import Dataset, Model
from tsalign.scoring import Item
from tsalign.scoring.logprob import LogProb
from tsalign.toy.world import tasks
from tsalign.training import objectives
from tsalign.training.examples import Batch
from tsalign.training.objectives.sft import SFT
from tsalign.training.stage import train

pytestmark = pytest.mark.usefixtures("ray_session")
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


def dataset(path: Path, rows: list[dict[str, Any]], shards: int = 3) -> Dataset:
    for number in range(shards):
        write_shard(UPath(path) / f"part-{number:05}.parquet", Shard(rows[number::shards]))
    return Dataset(str(path), "data")


def losses(log: Any) -> list[float]:
    return [report["loss"] for report in log.reports if "loss" in report]


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_workers_learn_and_export(
    zero_stage: int,
    models: dict[str, Model],
    make_stage: Callable[..., Any],
    tmp_path: Path,
    released: Callable[[], None],
) -> None:
    stage, log = make_stage("policy", workers=2)
    config = SFTTrainConfig(**FAST, zero_stage=zero_stage, batch_size=16, batch_tokens=200, epochs=2)
    trained = train(stage, models["policy"], [dataset(tmp_path / "rows", sft_rows(96))], config, "policy")
    seen = losses(log)
    assert len(seen) == 12
    assert seen[-1] < 0.75 * seen[0]
    # The exported folder loads by the ordinary door, and scores the training rows as the loop last saw them.
    model = AutoModelForCausalLM.from_pretrained(trained.path)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    items = [Item(row["prompt"], row["completion"]) for row in sft_rows(96)]
    after = LogProb(trained, "mean").load()(items)
    start = LogProb(models["policy"], "mean").load()(items)
    assert sum(after) > sum(start)
    assert not stage.work.exists()
    released()


def test_dpo_starts_at_ln2_and_lifts_the_margin(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    rows = preference_rows(64)
    reference = LogProb(models["policy"]).load()
    for row in rows:
        row["score.reference"] = reference([Item(row["prompt"], row[s][0]["content"]) for s in ("chosen", "rejected")])
    stage, log = make_stage("policy")
    config = DPOTrainConfig(**FAST, reference="previous", nll=0.0, batch_size=32, epochs=3)
    train(stage, models["policy"], [dataset(tmp_path / "rows", rows)], config, "policy")
    seen = losses(log)
    assert seen[0] == pytest.approx(math.log(2), abs=1e-5)
    assert seen[-1] < seen[0]
    assert log["accuracy"] > 0.9


@pytest.mark.parametrize("config_type", [MarginRankingTrainConfig, LogisticTrainConfig])
def test_a_student_learns_an_order_and_replays(
    config_type: type[RewardTrainConfig], models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    stage, log = make_stage("student")
    rows = preference_rows(96)
    new, old = dataset(tmp_path / "new", rows[:64]), dataset(tmp_path / "old", rows[64:])
    config = config_type(**FAST, batch_size=16, epochs=3)
    train(stage, models["student"], [new], config, "student", replay=[old], replay_share=0.25)
    assert log["examples"] == 64 + 16
    assert log["accuracy"] > 0.9


def test_losses_do_not_depend_on_micro_batches_workers_or_zero(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    data = dataset(tmp_path / "rows", sft_rows(40))
    series = {}
    for name, workers, tokens, zero in (("one", 1, 100_000, 0), ("small", 1, 60, 2), ("two", 2, 90, 1)):
        stage, log = make_stage(name, workers=workers)
        config = SFTTrainConfig(**FAST, batch_size=13, batch_tokens=tokens, zero_stage=zero)
        train(stage, models["policy"], [data], config, "policy")
        series[name] = losses(log)
    assert series["small"] == pytest.approx(series["one"], abs=2e-4)
    assert series["two"] == pytest.approx(series["one"], abs=2e-4)


def test_a_cut_training_goes_on_from_its_checkpoint(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    data = dataset(tmp_path / "rows", sft_rows(80))
    settings = {**FAST, "batch_size": 10, "checkpoint_steps": 3}
    whole, whole_log = make_stage("whole")
    expected = train(whole, models["policy"], [data], SFTTrainConfig(**settings), "policy")

    cut, cut_log = make_stage("cut")
    marker = tmp_path / "died"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", lambda _, config: DiesOnce(config, marker, Path(cut.work)))
        resumed = train(cut, models["policy"], [data], SFTTrainConfig(**settings, max_failures=1), "policy")
    assert marker.exists()
    # Killed in its fifth step: the second try starts after the checkpoint of the third.
    assert [report["step"] for report in cut_log.reports if "examples" in report] == [0, 3]
    assert losses(cut_log)[-5:] == pytest.approx(losses(whole_log)[-5:], abs=1e-6)
    weights = [load(model, "causal", torch.float32)[0].state_dict() for model in (expected, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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


def test_rows_that_are_all_too_long_are_an_error(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    stage, _ = make_stage("policy")
    config = SFTTrainConfig(**FAST, max_length=2, max_failures=0)
    with pytest.raises(TsalignError, match="nothing to train on"):
        train(stage, models["policy"], [dataset(tmp_path / "rows", sft_rows(6))], config, "policy")
