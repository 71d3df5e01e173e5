"""What a stage function is given: its place on disk, its seed, and ways to report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from upath import UPath

from tsalign.config import Placement, ResourceConfig
from tsalign.runs.meters import Meter
from tsalign.runs.nodes import size_of, wait_for_room
from tsalign.runs.terminal import Bar
from tsalign.runs.together import Seat

Phase = Literal["start", "load", "encode", "work", "commit"]


@dataclass(frozen=True)
class Stage:
    """One step of an iteration while it runs. Output belongs in `out`; `work` is scratch that outlives an interruption.

    Attributes:
        max_failed_fraction: share of its rows that may fail before it stops.
        retry_failed: ask again, when it resumes, also for rows that were answered badly; those that got no answer
            always are.
        bar: its line in the terminal.
        seat: among stages whose passes are one pipeline.
        phases: seconds by phase, as the ledger has them: `start` until the first actor begins to load, `load` what
            it needs, `encode` the rows of a training, `work`, `commit` what was made. Of actors side by side, those
            of the one that took longest.
    """

    run: str
    name: str
    iteration: int
    fingerprint: str
    seed: int
    out: UPath
    work: UPath
    quarantine: UPath
    resources: ResourceConfig
    log: Callable[[dict[str, Any]], None]
    max_failed_fraction: float = 0.01
    retry_failed: bool = False
    bar: Bar = field(default_factory=Bar)
    seat: Seat | None = None
    phases: dict[Phase, float] = field(default_factory=dict)

    @property
    def meter(self) -> Meter:
        """What counts for Prometheus."""
        return Meter(self.run, self.name)

    def spent(self, phase: Phase, seconds: float) -> None:
        """Add to the seconds of a phase: a stage may have several passes."""
        self.phases[phase] = round(self.phases.get(phase, 0.0) + seconds, 2)

    def wait_for(self, actors: int, placement: Placement) -> None:
        """Wait until the cluster has nodes for so many actors; see `wait_for_room`.

        Raises:
            TsalignError: after `resources.wait_seconds`, naming what is missing.
        """
        wait_for_room(self.name, actors, size_of(placement), self.resources.wait_seconds)
