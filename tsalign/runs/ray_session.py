"""Ray for a driver: the cluster it stands on, or one of its own that ends with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Small tensors leave glibc's heap on every free otherwise, and idle OpenMP threads burn a core.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS or start Ray here; leave it as it was."""
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address=os.environ.get("RAY_ADDRESS"),
        logging_level=logging.WARNING,
        log_to_driver=bool(os.environ.get("TSALIGN_WORKER_LOGS")),
        include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()
