"""Passes of workers over shards, as one Ray Data pipeline: an operator a pass, each a shard behind the one before."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from upath import UPath

from tsalign.common.applications import asked_by, turn
from tsalign.common.errors import TsalignError
from tsalign.config import Placement
from tsalign.data.actors import ShardActor, is_current
from tsalign.data.progress import shown
from tsalign.data.shards import Row
from tsalign.runs.artifacts import Dataset
from tsalign.runs.names import named
from tsalign.runs.nodes import actor_options, size_of
from tsalign.runs.stage import Stage

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy

# Ray Data's requests for nodes, beside what its actors wait for, stay until they expire. Ray reads these when it is
# imported.
for _what in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY"):
    os.environ.setdefault(f"RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_{_what}_UTIL_THRESHOLD", "1e9")


@dataclass(frozen=True)
class Pass:
    """`worker(**arguments)` actors over the shards of `source`, into the folder of `stage`."""

    stage: Stage
    source: Dataset
    worker: Callable[..., Any]
    arguments: dict[str, Any]
    placement: Placement

    @cached_property
    def output(self) -> Dataset:
        """What it makes."""
        return Dataset(str(self.stage.out), self.stage.fingerprint)

    def committed(self, names: set[str]) -> set[str]:
        """Those of the shards that need not be done, as far as is known before the pass before it."""
        source, again = UPath(self.source.path), self.stage.retry_failed
        there = [path for path in self.output.shards() if path.name in names]
        return {path.name for path in there if is_current(path, source / path.name, again)}


def run_passes(passes: Sequence[Pass]) -> None:
    """Have all shards done that are not, those of a later pass as soon as the pass before has made them.

    Raises:
        TsalignError: a worker raised it.
    """
    import ray.data

    shards = passes[0].source.shards()
    committed = [one.committed({path.name for path in shards}) for one in passes]
    missing = [{"shard": path.name} for path in shards if not all(path.name in done for done in committed)]
    if not missing:
        return
    with ExitStack() as stack:
        stack.enter_context(turn(asked_by([one.arguments for one in passes])))
        passes[0].stage.wait_for(1, passes[0].placement)
        began = time.time()
        results: Any = ray.data.from_items(missing, override_num_blocks=len(missing))
        for one, done in zip(passes, committed):
            progress = stack.enter_context(shown(one.stage.bar, shards, done))
            results = results.map_batches(
                **named(ShardActor, one.stage),
                fn_constructor_kwargs={
                    "worker": one.worker,
                    "arguments": one.arguments,
                    "source": one.source.path,
                    "out": str(one.stage.out),
                    "quarantine": str(one.stage.quarantine),
                    "retry_failed": one.stage.retry_failed,
                    "progress": progress,
                    "meter": one.stage.meter,
                },
                batch_size=1,
                compute=pool(one, len(missing)),
                **actor_options(size_of(one.placement)),
            )
        told = list[list[Row]]()
        for row in results.iter_rows():
            if row["error"]:
                break  # and with the iterator end the other actors
            told.append(json.loads(row["told"]))
            for done in committed:
                done.add(row["shard"])
    if row["error"]:
        raise TsalignError(row["error"])
    for one, seconds in zip(passes, zip(*told)):
        _account(one.stage, began, seconds)


def pool(one: Pass, shards: int) -> ActorPoolStrategy:
    """As many actors as are wanted, all from the start: they begin as soon as they have a node.

    What asks a service of ours has no more actors than it must: they would take the room in which its replicas grow.

    Those that wait are what the autoscaler adds nodes for, of their very size and place, and nothing is left of that
    when they end. Ray Data's own elastic pools ask for all kinds of nodes, and for GPUs not at all
    (ray-project/ray issues 56431, 59144).
    """
    from ray.data import ActorPoolStrategy

    # One shard at a time: what waits in front of an actor is lost to those that come later.
    wanted = one.placement.least if asked_by(one.arguments) else one.placement.most
    return ActorPoolStrategy(size=min(wanted, shards), max_tasks_in_flight_per_actor=1)


def _account(stage: Stage, began: float, done: Sequence[Row]) -> None:
    """Add up the seconds of each actor by phase, and give the stage the largest sums."""
    work, commit = defaultdict[str, float](float), defaultdict[str, float](float)
    for row in done:
        work[row["actor"]] += row["work"]
        commit[row["actor"]] += row["commit"]
    stage.spent("start", max(0.0, min(row["began"] for row in done) - began))  # clocks of two nodes may differ
    stage.spent("load", max(row["load"] for row in done))
    stage.spent("work", max(work.values()))
    stage.spent("commit", max(commit.values()))
