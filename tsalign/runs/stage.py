"""What a stage function is given: its place on disk, its seed, and ways to report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import ResourceConfig

console = Console(stderr=True)
progress_display = Progress(
    TextColumn("{task.description:<24}"),
    BarColumn(),
    TaskProgressColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[unit]}"),
    TimeElapsedColumn(),
    transient=True,
    console=console,
)


@dataclass(frozen=True)
class Stage:
    """One step of an iteration while it runs. Its output belongs in `out`; `work` is scratch that survives a cut."""

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

    @contextmanager
    def progress(self, total: int, done: int = 0, unit: str = "rows") -> Iterator[Callable[[float], None]]:
        """A progress bar in the terminal; the block gets a function that advances it."""
        task = progress_display.add_task(self.name, total=total, completed=done, unit=unit)
        try:
            yield lambda amount: progress_display.advance(task, amount)
        finally:
            progress_display.remove_task(task)

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
