"""Ray for a driver: the cluster it stands on, or one of its own that ends with it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# For workers of a Ray that this driver starts. Without the first two, small tensors leave glibc's heap on every
# free; without the next two, idle OpenMP threads burn a core.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # One machine: nobody preempts it, and workers that share it can be asked more often.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",
}


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS or start Ray here; leave it as it was."""
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    _quiet()
    own = "RAY_ADDRESS" not in os.environ
    for name, value in WORKER_ENVIRONMENT.items() if own else ():
        os.environ.setdefault(name, value)
    ray.init(
        address=os.environ.get("RAY_ADDRESS"),
        logging_level=logging.WARNING,
        log_to_driver=bool(os.environ.get("TSALIGN_WORKER_LOGS")),
        include_dashboard=False if own else None,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def _quiet() -> None:
    """Keep Ray's notices on its own defaults out of the terminal; errors stay."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray Data has no other way yet to bound the retries of a task.
    warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
