"""Stages that build the toy world's models: rows from a generator, and how a small language model is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from upath import UPath

from tsalign.config import SFTTrainConfig
from tsalign.data.shards import Row, iterate, write_rows
from tsalign.data.tasks import in_one_task
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage

SHARD_SIZE = 2000


def language(steps: int, rate: float, epochs: float = 4) -> SFTTrainConfig:
    """Settings of a supervised training of `steps` steps of 64 replies."""
    return SFTTrainConfig(
        epochs=epochs,
        batch_size=64,
        learning_rate=rate,
        betas=(0.9, 0.95),
        schedule="linear",
        warmup=0.05,
        precision="fp32",
        zero_stage=0,
        checkpoint_steps=max(steps // 4, 1),
    )


def shards(stage: Stage, make: Callable[..., Iterator[Row]], *arguments: Any) -> Dataset:
    """Rows into shards, made in a task so that the driver holds none."""
    return in_one_task(stage, _write, make, *arguments)


def _write(out: UPath, make: Callable[..., Iterator[Row]], *arguments: Any) -> dict[str, int]:
    return {"rows": write_rows(out, make(*arguments), shard_size=SHARD_SIZE)}


def texts(samples: list[Dataset]) -> dict[str, list[str]]:
    """The completions of candidate sets, by prompt."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in iterate(samples):
        found[row["prompt"][-1]["content"]] += [completion["text"] for completion in row["completions"]]
    return found
