"""What the workers tell the driver while they train: metrics, and which phase begins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ray.exceptions import RayError
from ray.util.queue import Queue

from tsalign.runs.nodes import with_driver
from tsalign.runs.stage import Phase, Stage


@dataclass(frozen=True)
class Begins:
    """A phase begins: `load` the model, `encode` the rows, `work` the steps, `commit` the trained model."""

    phase: Phase


@contextmanager
def followed(stage: Stage) -> Iterator[Queue]:
    """A queue for reports: metrics are logged and move the bar, phases are timed by the driver's clock.

    Seconds from the beginning of the block to the first `Begins` are those of `start`.
    """
    began = time.monotonic()
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": with_driver()})
    follower = threading.Thread(target=_follow, args=(stage, queue, began), daemon=True)
    follower.start()
    try:
        yield queue
    finally:
        queue.put(None)
        follower.join()
        queue.shutdown(force=True)


def _follow(stage: Stage, queue: Queue, since: float) -> None:
    """Until a None comes, or Ray ends. Workers that start again after a failure add to the seconds of their phases."""
    phase: Phase = "start"
    with suppress(RayError):
        while (report := queue.get()) is not None:
            if isinstance(report, Begins):
                now = time.monotonic()
                stage.spent(phase, now - since)
                stage.meter.spent(phase, now - since)
                phase, since = report.phase, now
                continue
            stage.log(report)
            if "examples" in report:
                stage.bar.count(report["steps"], "steps", done=report["step"])
            else:
                stage.meter.stepped(report["tokens_per_second"])
                stage.bar.move(report["step"], rate=f"{report['tokens_per_second']:,.0f} tokens/s")
    stage.spent(phase, time.monotonic() - since)
    stage.meter.spent(phase, time.monotonic() - since)
