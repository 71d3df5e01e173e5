"""Losses, gradients and weights that are no finite numbers: each ends the training, by an error with the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import FAST, dataset, losses, preference_rows, sft_rows

from tsalign.common.errors import TsalignError
from tsalign.config import DPOTrainConfig, SFTTrainConfig
from tsalign.runs.artifacts import Model
from tsalign.training import objectives
from tsalign.training.examples import Batch
from tsalign.training.objectives.sft import SFT
from tsalign.training.stage import train

Alone = Callable[..., list[dict[str, float]]]


class Breaks(SFT):
    """SFT whose loss, or only its gradient, is spoilt in its `at`-th call."""

    def __init__(self, config: SFTTrainConfig, at: int, by: float, gradient_only: bool = False) -> None:
        super().__init__(config)
        self.at, self.by, self.gradient_only, self.calls = at, by, gradient_only, 0

    def loss(self, model: Any, batch: Batch) -> Any:
        self.calls += 1
        total, report = super().loss(model, batch)
        if self.calls != self.at:
            return total, report
        if self.gradient_only:
            return total + (total * 0).sqrt(), report  # the derivative of sqrt at 0 is infinite
        return total * self.by, report


def broken(**how: Any) -> Any:
    return lambda _, config: Breaks(config, **how)


def config(**changes: Any) -> SFTTrainConfig:
    return SFTTrainConfig(**{**FAST, "batch_size": 8, "batch_tokens": 100_000, "zero_stage": 0, **changes})


@pytest.mark.parametrize("by", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [1, 3])
def test_a_loss_that_is_no_number_names_step_and_objective(
    by: float, at: int, alone: Alone, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "build", broken(at=at, by=by))
    with pytest.raises(TsalignError, match=rf"policy: step {at}: the loss of sft is {by}\. Lower learning_rate"):
        alone(models["policy"], dataset(tmp_path / "rows", sft_rows(32)), config(), tmp_path / "policy")
    assert not (tmp_path / "policy" / "config.json").exists()


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_overflows_is_not_left_out_in_silence(
    zero_stage: int,
    precision: str,
    alone: Alone,
    models: dict[str, Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objectives, "build", broken(at=2, by=1.0, gradient_only=True))
    chosen = config(zero_stage=zero_stage, precision=precision)
    with pytest.raises(TsalignError, match=r"policy: step [23]: the (gradient|loss) of sft (has infinite|is nan)"):
        alone(models["policy"], dataset(tmp_path / "rows", sft_rows(32)), chosen, tmp_path / "policy")


def test_the_last_step_too_is_looked_at_before_its_weights_are_saved(
    alone: Alone, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "build", broken(at=4, by=1.0, gradient_only=True))
    with pytest.raises(TsalignError, match=r"after the last step, model\.embed_tokens\.weight has infinite or undef"):
        alone(models["policy"], dataset(tmp_path / "rows", sft_rows(32)), config(), tmp_path / "policy")
    assert not (tmp_path / "policy" / "config.json").exists()


def test_rows_with_an_infinite_reference_are_an_error(alone: Alone, models: dict[str, Model], tmp_path: Path) -> None:
    rows = [{**row, "score.reference": [-1.0, -math.inf]} for row in preference_rows(8)]
    chosen = DPOTrainConfig(**FAST, reference="previous", batch_size=8)
    with pytest.raises(TsalignError, match=r"step 1: the loss of dpo is (inf|nan)\..*look at first_batch\.txt"):
        alone(models["policy"], dataset(tmp_path / "rows", rows), chosen, tmp_path / "policy")
    assert "inf" in (tmp_path / "policy" / "first_batch.txt").read_text()


def test_ordinary_training_goes_through(alone: Alone, models: dict[str, Model], tmp_path: Path) -> None:
    reports = alone(models["policy"], dataset(tmp_path / "rows", sft_rows(32)), config(), tmp_path / "policy")
    assert len(losses(reports)) == 4
    assert all(torch.isfinite(torch.tensor(losses(reports))))


@pytest.mark.usefixtures("ray_session")
def test_ray_train_starts_no_second_worker_for_it(
    models: dict[str, Model], make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    stage, log = make_stage("policy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", broken(at=2, by=math.nan))
        with pytest.raises(TsalignError, match="step 2: the loss of sft is nan"):
            train(stage, models["policy"], [dataset(tmp_path / "rows", sft_rows(32))], config(max_failures=2), "policy")
    assert [report["step"] for report in log.reports if "examples" in report] == [0], "one try"
