"""One driver a run: a lease in the run's folder, which its driver renews, and others take over once it is stale."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psutil
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import atomic, create, remove

RENEW_SECONDS = 10.0
STALE_SECONDS = 6 * RENEW_SECONDS

logger = logging.getLogger("tsalign")


@dataclass(frozen=True)
class Lease:
    """Who drives a run.

    Attributes:
        began: when the process started, as the epoch in seconds: a process id alone may be another process by now.
        renewed: when the driver last said that it lives.
    """

    host: str
    pid: int
    began: float
    renewed: float

    def alive(self) -> bool:
        """Whether its driver lives: asked of the system on this host, judged by the last renewal on another."""
        if self.host != socket.gethostname():
            return time.time() - self.renewed < STALE_SECONDS
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.began and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def ours(self) -> bool:
        """Whether this very process holds it."""
        return (self.host, self.pid, self.began) == (socket.gethostname(), os.getpid(), _began())


def driven(folder: UPath) -> bool:
    """Whether a living driver other than this process holds the run's lease."""
    found = _newest(folder)
    held = _read(found)
    return _alive(found, held) and not (held and held.ours())


def holder(folder: UPath) -> Lease | None:
    """The lease of the run's living driver; None where none lives, or its lease is just being written."""
    held = _read(_newest(folder))
    return held if held and held.alive() else None


def last_sign(folder: UPath) -> float | None:
    """When the run's driver last said that it lives; None where no lease is left."""
    held = _read(_newest(folder))
    return held.renewed if held else None


@contextmanager
def leased(folder: UPath, lost: Callable[[TsalignError], None]) -> Iterator[None]:
    """Hold the run's lease for the length of the block.

    Leases are numbered files, each created only where none of its number is: of two drivers that find the same stale
    lease, or none, one gets the next number.

    Args:
        lost: called, in a thread, once another driver has taken over.

    Raises:
        TsalignError: another driver holds it.
    """
    found = _newest(folder)
    held = _read(found)
    if _alive(found, held):
        raise _taken(folder, held)
    mine = folder / f"lease-{_number(found) + 1:06}.json"
    if not create(mine, _content()):
        raise _taken(folder, _read(mine))
    # While one takes over, a listing may have shown neither the old lease nor the new one.
    if _number(newest := _newest(folder)) > _number(mine):
        remove(mine)
        raise _taken(folder, _read(newest))
    if held:
        logger.warning("run %s: process %d on %s ended without a word; taking over", folder.name, held.pid, held.host)
    for old in _leases(folder):
        if _number(old) < _number(mine):
            remove(old)
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(folder, mine, over, lost), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        remove(mine)


def _renew(folder: UPath, mine: UPath, over: threading.Event, lost: Callable[[TsalignError], None]) -> None:
    while not over.wait(RENEW_SECONDS):
        newest = _newest(folder)
        if _number(newest) > _number(mine):
            lost(_taken(folder, _read(newest)))
            return
        with atomic(mine) as file:
            file.write_bytes(_content())


def _taken(folder: UPath, by: Lease | None) -> TsalignError:
    who = f"process {by.pid} on {by.host}" if by else "another process"
    return TsalignError(f"run {folder.name} is already running: {who} drives it; stop that one first.")


def _content() -> bytes:
    return json.dumps(asdict(Lease(socket.gethostname(), os.getpid(), _began(), time.time()))).encode()


def _began() -> float:
    return float(psutil.Process().create_time())


def _leases(folder: UPath) -> list[UPath]:
    return sorted(folder.glob("lease-*.json"), key=_number)


def _newest(folder: UPath) -> UPath | None:
    found = _leases(folder)
    return found[-1] if found else None


def _number(path: UPath | None) -> int:
    return int(path.stem.removeprefix("lease-")) if path else 0


def _alive(path: UPath | None, held: Lease | None) -> bool:
    """Whether a lease is somebody's; one that cannot be read is being written, or a crash left it a while ago."""
    if held or path is None:
        return held is not None and held.alive()
    return path.exists() and time.time() - path.stat().st_mtime < STALE_SECONDS


def _read(path: UPath | None) -> Lease | None:
    """What a lease says; None where there is none, or a crash left it empty."""
    try:
        return Lease(**json.loads(path.read_text())) if path else None
    except (FileNotFoundError, ValueError, TypeError):
        return None
