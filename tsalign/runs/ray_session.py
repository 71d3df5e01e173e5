"""Ray for a driver: the cluster it stands on, or one of its own that ends with it."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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


logger = logging.getLogger("tsalign")


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS or start Ray here; leave it as it was.

    Ray keeps to its log files, but for errors, unless the logger `tsalign` is at DEBUG: then the driver's terminal
    shows what Ray and all workers say.
    """
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
        yield
    finally:
        ray.shutdown()


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
