"""What stages made, as Ray Datasets; Ray starts in this process when the first is asked for."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.runs.artifacts import Dataset
from tsalign.runs.joining import ADDRESS

if TYPE_CHECKING:
    import ray.data


def start_ray() -> bool:
    """Have a Ray in this process for what is read here; whether it had to be started.

    It is the one that RAY_ADDRESS names, or one of this process's own. Runs have theirs, which ends with them.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        return False
    for name in ("ray.data", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    joined = os.environ.get(ADDRESS)
    ray.init(
        address=joined or "local",
        include_dashboard=None if joined else False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    return True


def as_ray(made: Dataset, stage: str) -> ray.data.Dataset:
    """The rows that a stage kept, read when they are asked for; failed rows are not among them.

    Raises:
        TsalignError: it kept none.
    """
    import ray.data

    shards = made.shards()
    schema = _schema(shards)
    if schema is None:
        raise TsalignError(f"{made.path}: {stage} kept no rows; its rows that failed are in the run's quarantine/.")
    filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(shards[0].fs)) if shards[0].protocol else None
    return ray.data.read_parquet([shard.path for shard in shards], schema=schema, filesystem=filesystem)


def _schema(shards: list[UPath]) -> pa.Schema | None:
    """The columns of the first shard that has rows, without what its footer counts: it differs from shard to shard."""
    for shard in shards:
        with shard.open("rb") as file:
            footer = pq.read_metadata(file)
            if footer.num_rows:
                return footer.schema.to_arrow_schema().remove_metadata()
    return None
