"""Workers on the shards of a dataset: Ray Data spreads the shards over actors, and each shard commits by rename."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import append_line, remove
from tsalign.config import Placement
from tsalign.data.progress import Progress, shown
from tsalign.data.shards import Row, Shard, read_counts, read_failed, read_rows, read_shard, write_shard
from tsalign.runs.artifacts import Dataset
from tsalign.runs.meters import Meter
from tsalign.runs.names import named
from tsalign.runs.nodes import actor_options, size_of
from tsalign.runs.stage import Stage

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy

# Ray Data's requests for nodes, beside what its actors wait for, stay until they expire. Ray reads these when it is
# imported.
for _what in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY"):
    os.environ.setdefault(f"RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_{_what}_UTIL_THRESHOLD", "1e9")


class Worker(Protocol):
    """Lives in an actor, loads what it needs once, and maps the rows of a shard.

    The actor sets its attribute `report`, an `Advance`: a worker that needs long for a shard calls it with the share
    of the shard that it has done since it last did. The shares of a shard add up to at most 1.
    """

    def __call__(self, rows: list[Row], shard: str) -> Shard: ...


def map_shards(
    stage: Stage,
    source: Dataset,
    worker: Callable[..., Worker],
    arguments: dict[str, Any],
    placement: Placement,
) -> Dataset:
    """Run `worker(**arguments)` actors over the shards of `source` into `stage.out`, skipping committed shards.

    Of committed ones, the rows that got no answer are done again, with `stage.retry_failed` all failed ones.

    Raises:
        TsalignError: a worker raised it, or more than `stage.max_failed_fraction` of the rows failed; the message
            shows three of them.
    """
    output, shards = Dataset(str(stage.out), stage.fingerprint), source.shards()
    names = {path.name for path in shards}
    committed = {path.name for path in output.shards() if path.name in names and not _again(path, stage.retry_failed)}
    if len(committed) < len(shards):
        stage.wait_for(1, placement)
        _run(stage, shards, committed, worker, arguments, placement)
    counts = read_counts(output)
    stage.log(counts)
    _check_failures(stage, counts)
    return output


def _run(
    stage: Stage,
    shards: Sequence[UPath],
    committed: set[str],
    worker: Callable[..., Worker],
    arguments: dict[str, Any],
    placement: Placement,
) -> None:
    """Have the shards that are not committed done; adds them to `committed` as they are."""
    import ray.data

    began, done = time.time(), list[Row]()
    missing = [{"shard": str(shard)} for shard in shards if shard.name not in committed]
    with shown(stage.bar, shards, committed) as progress:
        results = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            **named(ShardActor, stage),
            fn_constructor_args=(
                worker,
                arguments,
                str(stage.out),
                str(stage.quarantine),
                stage.retry_failed,
                progress,
                stage.meter,
            ),
            batch_size=1,
            compute=pool(placement, len(missing)),
            **actor_options(size_of(placement)),
            max_task_retries=2,  # a shard that kills its actor is not tried for ever
        )
        for row in results.iter_rows():
            if row["error"]:
                break  # and with the iterator end the other actors
            committed.add(row["shard"])
            done.append(row)
    if row["error"]:
        raise TsalignError(row["error"])
    _account(stage, began, done)


def pool(placement: Placement, shards: int) -> ActorPoolStrategy:
    """As many actors as are wanted, all from the start: they begin as soon as they have a node.

    Those that wait are what the autoscaler adds nodes for, of their very size and place, and nothing is left of that
    when they end. Ray Data's own elastic pools ask for all kinds of nodes, and for GPUs not at all
    (ray-project/ray issues 56431, 59144).
    """
    from ray.data import ActorPoolStrategy

    # One shard at a time: what waits in front of an actor is lost to those that come later.
    return ActorPoolStrategy(size=min(placement.most, shards), max_tasks_in_flight_per_actor=1)


class ShardActor:
    """The actor that Ray Data runs: one shard in, one committed shard out.

    A `TsalignError` goes to the driver as data: Ray Data would drop its type and print its traceback.
    """

    def __init__(
        self,
        worker: Callable[..., Any],
        arguments: dict[str, Any],
        out: str,
        quarantine: str,
        retry_failed: bool,
        progress: Progress,
        meter: Meter,
    ) -> None:
        self.out, self.quarantine, self.progress, self.error = UPath(out), UPath(quarantine), progress, ""
        self.meter = meter
        self.retry_failed = retry_failed
        self.began = time.time()
        try:
            self.worker = worker(**arguments)
            self.worker.report = progress
        except TsalignError as error:
            self.error = str(error)
        self.load = time.time() - self.began
        meter.spent("load", self.load)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do a shard; what comes back has its name or an error, and the seconds that it took."""
        import ray

        path, work, commit = UPath(str(batch["shard"][0])), 0.0, 0.0
        if not self.error:
            try:
                work, commit = self._do(path)
            except TsalignError as error:
                self.error = str(error)
        told = {"shard": path.name, "error": self.error, "actor": ray.get_runtime_context().get_actor_id()}
        seconds = {"began": self.began, "load": self.load, "work": work, "commit": commit}
        return {name: [value] for name, value in {**told, **seconds}.items()}

    def _do(self, path: UPath) -> tuple[float, float]:
        """Work and commit; the seconds of both."""
        began = time.monotonic()
        self.progress.begin(path.name)
        target = self.out / path.name
        made, before = self._made(path, target)
        shard = before.joined(made) if before else made
        worked = time.monotonic()
        bad = self.quarantine / path.with_suffix(".jsonl").name
        remove(bad)
        for row in shard.failed:
            append_line(bad, row)
        write_shard(target, shard)
        self.progress.end()
        self.error = shard.stop
        work, commit = worked - began, time.monotonic() - worked
        self.meter.committed(len(made.rows), len(made.failed), made.counts)
        self.meter.spent("work", work)
        self.meter.spent("commit", commit)
        return work, commit

    def _made(self, path: UPath, target: UPath) -> tuple[Shard, Shard | None]:
        """What is done now, and what was before: of a committed shard only failed rows that are worth it are redone."""
        if not target.exists():
            return self.worker(read_rows(path), path.name), None
        before, again = read_shard(target), _again(target, self.retry_failed)
        before.failed = [row for row in before.failed if row["prompt_id"] not in again]
        rows = [row for row in read_rows(path) if row["prompt_id"] in again]
        return self.worker(rows, path.name), before


def _again(shard: UPath, retry_failed: bool) -> set[str]:
    """The `prompt_id` of the failed rows of a committed shard that are to be done again.

    A row of which a part was kept is not: that part would be there twice.
    """
    wanted = {row["prompt_id"] for row in read_failed(shard) if retry_failed or not row.get("answered", True)}
    return wanted - {row["prompt_id"] for row in read_rows(shard, ["prompt_id"])} if wanted else wanted


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


def _check_failures(stage: Stage, counts: dict[str, float]) -> None:
    failed, limit = counts.get("failed", 0), stage.max_failed_fraction
    total = failed + counts.get("rows", 0)
    if total == 0 or failed > limit * total:
        examples: list[str] = []
        for file in sorted(stage.quarantine.glob("*.jsonl"), key=str) if stage.quarantine.exists() else []:
            examples += [line[:300] for line in file.read_text().splitlines()[: 3 - len(examples)]]
        raise TsalignError(
            f"{stage.name}: {failed:.0f} of {total:.0f} rows failed, more than max_failed_fraction = {limit:g} allows. "
            "What is done stays: raise the limit and resume; rows without an answer are asked again, those answered "
            f"badly with --retry-failed. All are in {stage.quarantine}, the first are:\n  " + "\n  ".join(examples)
        )
