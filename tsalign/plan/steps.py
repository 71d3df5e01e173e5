"""What a plan is made of, and how prompts are counted without loading them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq
from upath import UPath

from tsalign.config import AlignConfig, Placement, SamplePlacement, TrainConfig
from tsalign.data.sources import expand
from tsalign.toy.names import PROMPTS
from tsalign.toy.world import FAMILIES


@dataclass(frozen=True)
class Step:
    """One stage: who works, on which actors, and how much in one iteration."""

    stage: str
    model: str
    placement: Placement
    work: str
    asks_teacher: bool = False


@dataclass(frozen=True)
class Count:
    """An upper bound, before bad rows and duplicates drop out: in each iteration, and once for all."""

    each: int
    once: int = 0


@dataclass(frozen=True)
class Plan:
    """What a run would do: one iteration's stages, and the amounts by name."""

    iterations: int
    steps: list[Step]
    counts: Mapping[str, Count]


def training(stage: str, who: str, placement: Placement, settings: TrainConfig) -> Step:
    """A training stage."""
    passes = f"{settings.epochs:g} epochs, ZeRO {settings.zero_stage}, {settings.precision}"
    return Step(stage, who, placement, passes)


def actor_gpus(placement: Placement) -> float:
    """GPUs of one actor; a tensor-parallel one takes several."""
    return placement.gpus * (placement.tensor_parallel if isinstance(placement, SamplePlacement) else 1)


def training_prompts(config: AlignConfig) -> int:
    """Prompts of one iteration, with `data.eval_fraction` held out."""
    every = _every(config)
    return min(every - _held_out(config), config.data.prompts_per_iteration or every)


def questions(config: AlignConfig) -> int:
    """Held-out prompts that evaluation uses; each family of the toy world is a set."""
    exam = config.evaluation
    found = min(exam.prompts_per_set, _held_out(config))
    for location in exam.sets.values():
        sets = len(FAMILIES) if location.startswith("toy:") else 1
        found += sets * min(exam.prompts_per_set, count_prompts(location) // sets)
    return found


def _every(config: AlignConfig) -> int:
    locations = config.data.prompts
    return sum(count_prompts(location) for location in ([locations] if isinstance(locations, str) else locations))


def _held_out(config: AlignConfig) -> int:
    return round(_every(config) * config.data.eval_fraction)


def count_prompts(location: str) -> int:
    """Rows of prompt files: JSONL lines, a JSON array's length, or what a Parquet footer says.

    Raises:
        TsalignError: no such file.
    """
    return PROMPTS[location[4:]] if location[:4] == "toy:" else sum(_rows(file) for file in expand(location))  # type: ignore[index]


def _rows(path: UPath) -> int:
    with path.open("rb", compression="gzip" if path.suffix == ".gz" else None) as file:
        if ".parquet" in path.suffixes:
            return int(pq.ParquetFile(file).metadata.num_rows)
        if ".json" in path.suffixes:
            return len(json.load(file))
        return sum(1 for line in file if line.strip())
