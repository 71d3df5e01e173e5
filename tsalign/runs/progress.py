"""How far the stages at work are, in the run's folder, for whoever follows the run from another process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from upath import UPath

from tsalign.common.storage import atomic, remove

FILE = "progress.json"
SECONDS = 1.0  # between two writes
REMOTE_SECONDS = 10.0  # the same, where each write is a request to a bucket


@dataclass(frozen=True)
class AtWork:
    """A stage at work.

    Attributes:
        started: when its work began, or what it counts by now began to be counted; the epoch in seconds.
        done: of `total` units; no total is known at first.
        rate: with its unit, such as `11,952 tokens/s`; empty as long as none is known.
        left: seconds that the rest will take, at that rate.
    """

    stage: str
    started: float
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    rate: str = ""
    left: float | None = None


@contextmanager
def written(folder: UPath, look: Callable[[], Sequence[AtWork]]) -> Iterator[None]:
    """Keep `progress.json` at what `look` says, for the length of the block; no file is left behind it."""
    over, path = threading.Event(), folder / FILE
    writer = threading.Thread(target=_write, args=(path, look, over), daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        remove(path)


def read_progress(folder: UPath) -> list[AtWork]:
    """The stages at work in a run, in the order in which they began; none where no driver is at work."""
    try:
        return [AtWork(**stage) for stage in json.loads((folder / FILE).read_bytes())["stages"]]
    except FileNotFoundError:
        return []


def _write(path: UPath, look: Callable[[], Sequence[AtWork]], over: threading.Event) -> None:
    seconds = REMOTE_SECONDS if path.protocol else SECONDS
    while not over.wait(seconds):
        # What a storage refuses once is written a moment later; no run fails of it.
        with suppress(OSError), atomic(path) as file:
            file.write_bytes(json.dumps({"stages": [asdict(stage) for stage in look()]}).encode())
