"""Work that makes a dataset in one Ray task, on a node with room for it, so that the driver never holds rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tsalign.common.errors import surfaced
from tsalign.config import Placement
from tsalign.runs.artifacts import Dataset
from tsalign.runs.nodes import actor_options, size_of
from tsalign.runs.stage import Stage


def in_one_task(
    stage: Stage, work: Callable[..., Mapping[str, float]], *arguments: Any, placement: Placement | None = None
) -> Dataset:
    """Run `work(stage.out, *arguments)`, which writes shards and returns counts, on one CPU or one of `placement`.

    Raises:
        TsalignError: what `work` raised.
    """
    import ray

    place = size_of(placement or Placement())
    task = ray.remote(**actor_options(place))(work)
    with surfaced():
        stage.log(dict(ray.get(task.remote(stage.out, *arguments))))
    return Dataset(str(stage.out), stage.fingerprint)
