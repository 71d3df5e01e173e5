"""A training that no longer computes with numbers ends at once: what it would save is worth nothing."""

from __future__ import annotations

import math

import torch
from deepspeed import DeepSpeedEngine

from tsalign.common.errors import TsalignError
from tsalign.data.tensors import finite
from tsalign.training.job import Job

ADVICE = (
    "Lower learning_rate, or set precision: fp32. If it is the first step, the model's weights or the rows' scores "
    "are at fault: look at first_batch.txt in that folder."
)


def check_loss(loss: float, job: Job, step: int) -> None:
    """Called before the optimiser steps.

    Raises:
        TsalignError: the loss is no finite number.
    """
    if not math.isfinite(loss):
        raise TsalignError(f"{job.out}: step {step + 1}: the loss of {job.config.objective} is {loss}. {ADVICE}")


def check_gradient(engine: DeepSpeedEngine, job: Job, step: int) -> None:
    """Called after the optimiser stepped; DeepSpeed leaves a step out, and goes on, where its gradient overflows.

    Raises:
        TsalignError: it did.
    """
    if engine.skipped_steps:
        raise TsalignError(
            f"{job.out}: step {step + 1}: the gradient of {job.config.objective} has infinite or undefined numbers. "
            + ADVICE
        )


def check_weight(name: str, weight: torch.Tensor, job: Job) -> None:
    """Called before a trained weight is saved.

    Raises:
        TsalignError: it holds what is no finite number.
    """
    if not finite(weight):
        raise TsalignError(f"{job.out}: after the last step, {name} has infinite or undefined numbers. {ADVICE}")
