"""What the driver hands to the training workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.util.queue import Queue

from tsalign.config import TrainConfig
from tsalign.runs.artifacts import Dataset, Model
from tsalign.training.objectives import Objective


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know."""

    model: Model
    datasets: list[Dataset]
    replay: list[Dataset]
    replay_share: float
    objective: Objective
    config: TrainConfig
    seed: int
    work: str
    out: str
    reports: Queue


def train_worker(settings: dict[str, Any]) -> None:
    """What Ray Train calls in each worker. DeepSpeed is imported there only: it takes seconds."""
    from tsalign.training.loop import run

    run(settings["job"])
