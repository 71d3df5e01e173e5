"""What a stage function is given: its place on disk, its seed, and ways to report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import ResourceConfig
from tsalign.runs.terminal import Bar

Phase = Literal["start", "load", "encode", "work", "commit"]


@dataclass(frozen=True)
class Stage:
    """One step of an iteration while it runs. Output belongs in `out`; `work` is scratch that outlives an interruption.

    Attributes:
        max_failed_fraction: share of its rows that may fail before it stops.
        retry_failed: ask again, when it resumes, also for rows that were answered badly; those that got no answer
            always are.
        bar: its line in the terminal.
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
    phases: dict[Phase, float] = field(default_factory=dict)

    def spent(self, phase: Phase, seconds: float) -> None:
        """Add to the seconds of a phase: a stage may have several passes."""
        self.phases[phase] = round(self.phases.get(phase, 0.0) + seconds, 2)

    def wait_for(self, replicas: int, cpus: float, gpus: float) -> None:
        """Wait until the cluster's nodes could hold `replicas` actors, for autoscaled nodes to arrive.

        Raises:
            TsalignError: after `resources.wait_seconds`, naming what is missing.
        """
        import ray
        from ray.autoscaler.sdk import request_resources

        deadline = time.monotonic() + self.resources.wait_seconds
        wanted = {"CPU": cpus * replicas, "GPU": gpus * replicas}
        while missing := _missing(wanted, ray.cluster_resources()):
            # A cluster that this driver started by itself has no autoscaler to wait for.
            if time.monotonic() > deadline or "RAY_ADDRESS" not in os.environ:
                raise TsalignError(
                    f"{self.name}: needs {missing} than the cluster has; "
                    "add nodes or lower `resources` in the config (tsalign plan shows who needs what)."
                )
            request_resources(bundles=[{"CPU": cpus, "GPU": gpus}] * replicas)
            time.sleep(2)


def _missing(wanted: dict[str, float], have: dict[str, float]) -> str:
    lacks = {name: amount - have.get(name, 0) for name, amount in wanted.items()}
    return " and ".join(f"{lack:g} more {name}" for name, lack in lacks.items() if lack > 1e-6)
