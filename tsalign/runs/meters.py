"""What Prometheus reads of a run, through Ray's own metrics: what its stages commit and how long they work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

STAGE = ("run", "stage")
# Counters: Ray exports each as `ray_<name>_total`. Name -> what it counts, and its tags.
COUNTERS = {
    "tsalign_rows": ("Rows that a stage committed.", STAGE),
    "tsalign_failed_rows": ("Rows that failed.", STAGE),
    "tsalign_calls": ("What the model of a role was asked.", (*STAGE, "role")),
    "tsalign_tokens": ("Tokens that the model of a role read or wrote.", (*STAGE, "role")),
    "tsalign_steps": ("Optimiser steps.", STAGE),
    "tsalign_seconds": ("Seconds that actors, or a training, spent in a phase.", (*STAGE, "phase")),
}
# Gauges: as `ray_<name>`.
GAUGES = {"tsalign_training_tokens_per_second": ("Tokens that a training takes in a second.", STAGE)}
# Of a teacher's replica; Ray Serve adds the tags `application`, `deployment` and `replica`.
QUEUE_COUNTERS = {
    "tsalign_teacher_sequences": "Sequences that a replica took on.",
    "tsalign_teacher_refused": "Sequences that a replica refused, as too many were waiting.",
}
QUEUE = ("tsalign_teacher_queue", "Sequences that a replica holds.")

# As Prometheus has them.
EXPORTED = (
    *(f"ray_{name}_total" for name in (*COUNTERS, *QUEUE_COUNTERS)),
    *(f"ray_{name}" for name in (*GAUGES, QUEUE[0])),
)


@dataclass(frozen=True)
class Meter:
    """Counts for one stage, in the process that it is used in. Plain data."""

    run: str
    stage: str

    def committed(self, rows: int, failed: int, counts: Mapping[str, float]) -> None:
        """A shard was committed.

        Args:
            counts: `calls.<role>` and `tokens.<role>`; others are left alone.
        """
        self._add("tsalign_rows", rows)
        self._add("tsalign_failed_rows", failed)
        for name, amount in counts.items():
            what, _, role = name.partition(".")
            if what in ("calls", "tokens") and role:
                self._add(f"tsalign_{what}", amount, role=role)

    def spent(self, phase: str, seconds: float) -> None:
        """An actor, or a training, was so long in a phase."""
        self._add("tsalign_seconds", seconds, phase=phase)

    def stepped(self, tokens_per_second: float) -> None:
        """A training made a step."""
        self._add("tsalign_steps", 1)
        _gauge("tsalign_training_tokens_per_second").set(tokens_per_second, self._tags())

    def _add(self, name: str, amount: float, **tags: str) -> None:
        if amount > 0:  # Ray refuses to add nothing
            _counter(name).inc(amount, self._tags() | tags)

    def _tags(self) -> dict[str, str]:
        return {"run": self.run, "stage": self.stage}


class QueueMeter:
    """Counts for the replica in which it is made."""

    def __init__(self) -> None:
        from ray.serve.metrics import Counter, Gauge

        self._queue = Gauge(*QUEUE)
        self._taken, self._refused = (Counter(*one) for one in QUEUE_COUNTERS.items())

    def took(self, count: int) -> None:
        """So many sequences were taken on."""
        self._taken.inc(count)

    def refused(self, count: int) -> None:
        """So many sequences were refused."""
        self._refused.inc(count)

    def holds(self, pending: int) -> None:
        """So many sequences are there."""
        self._queue.set(pending)


@cache
def _counter(name: str) -> Counter:
    from ray.util.metrics import Counter

    return Counter(name, *COUNTERS[name])


@cache
def _gauge(name: str) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(name, *GAUGES[name])
