"""What a run spent on attempts: seconds of all of them, and what stages asked of models, whether they ended or not."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from upath import UPath

from tsalign.common.storage import read_lines
from tsalign.data.shards import read_counts
from tsalign.runs.artifacts import Dataset
from tsalign.runs.lease import last_sign
from tsalign.runs.ledger import Ledger


@dataclass(frozen=True)
class Asked:
    """The counts of one stage for one set of inputs."""

    stage: str
    measures: bool
    counts: dict[str, float]


def stage_seconds(run_dir: UPath) -> dict[str, float]:
    """Stage -> seconds over all its attempts, in order of first appearance.

    An attempt whose driver died, or that is still at work, counts until the driver's last sign of life: an entry of
    the ledger, a logged number, or the renewal of its lease.
    """
    entries, total = Ledger(run_dir / "ledger.jsonl").entries, defaultdict[str, float](float)
    for entry in entries:
        if "stage" in entry:
            total[entry["stage"]] += entry.get("seconds", 0.0)
    if unended := list(_unended(entries)):
        alive = _signs(run_dir, entries)
        for stage, began, before in unended:
            last = alive[bisect_left(alive, before) - 1]
            total[stage] += max(0.0, last - began)
    return {stage: round(seconds, 2) for stage, seconds in total.items()}


def _unended(entries: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    """Stage, time of its begin, and time of the next driver's begin, of attempts about which no more was recorded."""
    begun: dict[str, float] = {}
    for entry in entries:
        if "stage" not in entry:
            if entry["run"] == "started":
                yield from ((stage, began, entry["time"]) for stage, began in begun.items())
                begun.clear()
        elif entry["state"] == "started":
            begun[entry["stage"]] = entry["time"]
        else:
            begun.pop(entry["stage"], None)
    yield from ((stage, began, float("inf")) for stage, began in begun.items())


def _signs(run_dir: UPath, entries: Sequence[dict[str, Any]]) -> list[float]:
    """All times at which some driver was at work."""
    lines = [*entries, *read_lines(run_dir / "metrics.jsonl")]
    return sorted([line["time"] for line in lines] + ([sign] if (sign := last_sign(run_dir)) else []))


def asked_of_models(run_dir: UPath) -> list[Asked]:
    """What stages counted, in order of first appearance; one that was done for several inputs is there several times.

    Of a stage that is not done, what its committed shards count.
    """
    found: dict[tuple[str, str], Asked] = {}
    newest: dict[str, dict[str, Any]] = {}
    for entry in Ledger(run_dir / "ledger.jsonl").entries:
        if "stage" not in entry:
            continue
        newest[entry["stage"]] = {**newest.get(entry["stage"], {}), **entry}
        if entry["state"] == "done":
            key = entry["stage"], entry.get("fingerprint", "")
            found[key] = Asked(entry["stage"], bool(entry.get("measures")), entry["counts"])
    for stage, entry in newest.items():
        key = stage, entry.get("fingerprint", "")
        if key not in found:
            found[key] = Asked(
                stage, bool(entry.get("measures")), read_counts(Dataset(str(output(run_dir, stage)), ""))
            )
    return list(found.values())


def output(run_dir: UPath, stage: str) -> UPath:
    """The folder of a stage's output."""
    number, name = place(stage)
    return run_dir / "iterations" / str(number) / name if number else run_dir / name


def place(stage: str) -> tuple[int, str]:
    """Iteration and name of a stage; 0 for the run's own."""
    number, slash, name = stage.partition("/")
    return (int(number), name) if slash else (0, stage)
