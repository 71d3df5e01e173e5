"""Whether a run is active: the last state in its ledger, and the heartbeat of its driver."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from upath import UPath

from tsalign.runs.ledger import Ledger

HEARTBEAT_SECONDS = 10.0


def status(folder: UPath) -> str:
    """`running`, `done`, `failed` or `stopped`, for a run directory."""
    state = Ledger(folder / "ledger.jsonl").run_state()
    if state is None or state["run"] != "started":
        return state["run"] if state else "stopped"
    if state["host"] == socket.gethostname():
        return "running" if psutil.pid_exists(state["pid"]) and state["pid"] != os.getpid() else "stopped"
    beat = folder / "heartbeat"
    fresh = beat.exists() and time.time() - float(beat.read_text()) < 6 * HEARTBEAT_SECONDS
    return "running" if fresh else "stopped"


@contextmanager
def heartbeat(folder: UPath) -> Iterator[None]:
    """Keep the time in the run's `heartbeat`, for other hosts, which cannot ask for the driver's process."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(folder / "heartbeat", stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(path: UPath, stop: threading.Event) -> None:
    while True:
        path.write_text(str(time.time()))
        if stop.wait(HEARTBEAT_SECONDS):
            return
