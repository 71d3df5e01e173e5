"""What the driver hands to the training workers."""

from __future__ import annotations

from dataclasses import dataclass

from ray.util.queue import Queue
from upath import UPath

from tsalign.config import TrainConfig
from tsalign.runs.artifacts import Dataset, Model
from tsalign.training.objectives import Objective


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    Attributes:
        title: of its stage, before each line of its log.
    """

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
    title: str = ""

    @property
    def failure(self) -> UPath:
        """Where a worker leaves the message of an error that another try cannot undo."""
        return UPath(self.work) / "failure.txt"
