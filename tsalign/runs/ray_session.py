"""Ray for a driver: the cluster that is named, or one of its own that ends with it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import psutil

from tsalign.common.errors import TsalignError
from tsalign.runs.joining import ADDRESS, check_answer

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
# What Ray says at any level: that it has read the level, and a refused token, which is told in our words.
SAID_ANYWAY = (b"RAY_BACKEND_LOG_LEVEL", b"Failed to get cluster ID from GCS server: Unauthenticated")
SERVERS = ("gcs_server", "raylet")

logger = logging.getLogger("tsalign")
_left: list[psutil.Process] = []


def unrecorded(error: Exception) -> None:
    """For who has nowhere to record how it ended."""


def idle() -> bool:
    """For who calls Ray from one thread only."""
    return False


@contextmanager
def ray_session(lost: Callable[[Exception], None] = unrecorded, busy: Callable[[], bool] = idle) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start a Ray here, whatever else runs beside; leave it as it was.

    Ray keeps to its log files, but for errors, unless the logger `tsalign` is at DEBUG: then the driver's terminal
    shows what Ray and all workers say.

    Args:
        lost: called, in a thread, when a Ray that was started here ends by itself; the process ends after it.
        busy: whether other threads are still inside Ray when the block ends by an error. Shutting it down under them
            may abort the process: what was started here is then left for `leave`.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    verbose = logger.isEnabledFor(logging.DEBUG)
    address, before = os.environ.get(ADDRESS), set(psutil.Process().children())
    for name, value in WORKER_ENVIRONMENT.items() if address is None else ():
        os.environ.setdefault(name, value)
    with nullcontext() if verbose else _quiet():
        _connect(address, verbose)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    started = set(psutil.Process().children()) - before
    try:
        with _watched(started, lost):
            yield
    finally:
        processes = [process for server in started for process in _family(server)]
        if processes and busy():
            _left.extend(processes)
            atexit.register(leave, 1)
        else:
            with nullcontext() if verbose else _silent("ray", "ray.data"):
                ray.shutdown()
            _kill(processes)  # Ray's agents look for its end every few seconds only


def leave(code: int) -> None:
    """End the process, and a Ray that was left; nothing where none was."""
    if _left:
        sys.stdout.flush()
        sys.stderr.flush()
        _kill(_left)
        os._exit(code)


def _connect(address: str | None, verbose: bool) -> None:
    import ray

    if address:
        check_answer(address)
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.INFO if verbose else logging.WARNING,
            log_to_driver=verbose,
            include_dashboard=None if address else False,
        )
    except Exception as error:  # of no narrower class where a server does not come up in time
        where = f"RAY_ADDRESS={address} cannot be joined" if address else "Ray could not be started on this machine"
        raise TsalignError(f"{where}: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def _watched(started: set[psutil.Process], lost: Callable[[Exception], None]) -> Iterator[None]:
    """End the process, and what is left of our Ray, as soon as one of its servers has ended.

    Ray itself would abort the process after a minute, and until then no call to it returns.
    """
    servers = {child: name for child in started if (name := child.name()) in SERVERS}
    over = threading.Event()

    def watch() -> None:
        while servers and not over.is_set():
            gone, _ = psutil.wait_procs(list(servers), timeout=0.2)
            if gone and not over.is_set():
                what = f"Ray's {servers[gone[0]]} has ended; this machine may be short of memory. Resume the run."
                lost(TsalignError(what))
                print(what, file=sys.stderr, flush=True)
                _kill([process for server in started for process in _family(server)])
                os._exit(2)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that came of it; nothing where it is gone."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


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
            os.write(2, b"".join(line for line in held if not any(said in line for said in SAID_ANYWAY)))
