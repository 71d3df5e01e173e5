"""Ray for a driver: the cluster it stands on, or one of its own that ends with it."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import psutil

from tsalign.common.errors import TsalignError

# For workers of a Ray that this driver starts. Without the first two, small tensors leave glibc's heap on every
# free; without the next two, idle OpenMP threads burn a core.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # One machine: it is never preempted, and workers that share it can be asked more often.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",
}
# Whatever still runs when a session ends must not start a Ray of its own. Ray reads this when it is imported.
NO_AUTO_INIT = {"RAY_ENABLE_AUTO_CONNECT": "0"}
SERVERS = ("gcs_server", "raylet")

logger = logging.getLogger("tsalign")


def unwatched(error: Exception) -> None:
    """For who needs no word of a Ray that ends."""


@contextmanager
def ray_session(lost: Callable[[Exception], None] = unwatched) -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS or start Ray here; leave it as it was.

    Ray keeps to its log files, but for errors, unless the logger `tsalign` is at DEBUG: then the driver's terminal
    shows what Ray and all workers say.

    Args:
        lost: called, in a thread, when a Ray that was started here ends by itself.
    """
    os.environ.update(NO_AUTO_INIT)
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    verbose = logger.isEnabledFor(logging.DEBUG)
    own = "RAY_ADDRESS" not in os.environ
    for name, value in WORKER_ENVIRONMENT.items() if own else ():
        os.environ.setdefault(name, value)
    with nullcontext() if verbose else _quiet():
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            logging_level=logging.INFO if verbose else logging.WARNING,
            log_to_driver=verbose,
            include_dashboard=False if own else None,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        with _watched(lost) if own else nullcontext():
            yield
    finally:
        with nullcontext() if verbose else _silent("ray", "ray.data"):
            ray.shutdown()


@contextmanager
def _watched(lost: Callable[[Exception], None]) -> Iterator[None]:
    """Say at once that a server of our Ray has ended: Ray itself waits for a minute, then aborts the process."""
    servers = [child for child in psutil.Process().children() if child.name() in SERVERS]
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(servers, over, lost), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(servers: list[psutil.Process], over: threading.Event, lost: Callable[[Exception], None]) -> None:
    while not over.is_set():
        gone, _ = psutil.wait_procs(servers, timeout=0.2)
        if gone and not over.is_set():
            lost(LostRay(f"Ray's {gone[0].name()} has ended; this machine may be short of memory. Resume the run."))
            return


class LostRay(TsalignError):
    """A server of the Ray that this driver started is gone: no call to Ray returns any more."""


def end_lost_ray() -> None:
    """End all processes of a lost Ray: what is left of them would wait for it for a minute."""
    rays = psutil.Process().children(recursive=True)
    for process in rays:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(rays, timeout=5)


@contextmanager
def _silent(*loggers: str) -> Iterator[None]:
    """What is cut off when Ray ends would be told at length, and bury the first cause."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Start Ray so that it keeps what it says in a run that goes well out of the terminal. What fails is raised."""
    # Its C++ part calls it an error that an actor of Ray Data can be restarted.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray Data has no other way yet to bound the retries of a task.
    warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            # That it has read this variable, it says at any level.
            os.write(2, b"".join(line for line in held if b"RAY_BACKEND_LOG_LEVEL" not in line))
