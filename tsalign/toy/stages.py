"""Stages that build the toy world's models: rows from a generator, and how a small language model is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import ray
from upath import UPath

from tsalign.common.storage import remove
from tsalign.config import SFTTrainConfig
from tsalign.data.shards import Row, Shard, iterate, write_shard
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage

SHARD = 2000


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
    ray.get(ray.remote(num_cpus=1)(_write).remote(stage.out, make, *arguments))
    return Dataset(str(stage.out), stage.fingerprint)


def _write(out: UPath, make: Callable[..., Iterator[Row]], *arguments: Any) -> None:
    remove(out)
    rows, number = make(*arguments), 0
    while chunk := list(islice(rows, SHARD)):
        write_shard(out / f"part-{number:05}.parquet", Shard(chunk))
        number += 1


def texts(samples: list[Dataset]) -> dict[str, list[str]]:
    """The completions of candidate sets, by prompt."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in iterate(samples):
        found[row["prompt"][-1]["content"]] += [completion["text"] for completion in row["completions"]]
    return found
