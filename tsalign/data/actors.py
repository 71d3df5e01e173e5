"""The actor of a pass over shards: one shard in, one committed shard out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import append_line, remove
from tsalign.data.progress import Progress
from tsalign.data.shards import Row, Shard, read_failed, read_rows, read_shard, row_count, rows_read, write_shard
from tsalign.runs.meters import Meter

# Nodes may go, and actors with them; a shard that kills its actor is not tried for ever.
TRIES = 4


class ShardActor:
    """What Ray Data runs.

    A `TsalignError` goes to the driver as data: Ray Data would drop its type and print its traceback.
    """

    def __init__(
        self,
        worker: Callable[..., Any],
        arguments: dict[str, Any],
        source: str,
        out: str,
        quarantine: str,
        retry_failed: bool,
        progress: Progress,
        meter: Meter,
    ) -> None:
        self.source, self.out, self.quarantine = UPath(source), UPath(out), UPath(quarantine)
        self.retry_failed, self.progress, self.meter, self.error = retry_failed, progress, meter, ""
        self.began = time.time()
        try:
            self.worker = worker(**arguments)
            self.worker.report = progress
        except TsalignError as error:
            self.error = str(error)
        self.load = time.time() - self.began
        meter.spent("load", self.load)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do a shard; what comes back has its name, or an error, and what each pass says of it so far, as JSON."""
        import ray

        name, work, commit = str(batch["shard"][0]), 0.0, 0.0
        told, error = json.loads(str(batch["told"][0])) if "told" in batch else [], _error(batch)
        if not (error or self.error):
            try:
                work, commit = self._do(name)
            except TsalignError as problem:
                self.error = str(problem)
        seconds = {"began": self.began, "load": self.load, "work": work, "commit": commit}
        told.append({"actor": ray.get_runtime_context().get_actor_id(), **seconds})
        return {"shard": [name], "error": [error or self.error], "told": [json.dumps(told)]}

    def _do(self, name: str) -> tuple[float, float]:
        """Work and commit; the seconds of both."""
        began, source, target = time.monotonic(), self.source / name, self.out / name
        if (tries := self.progress.begin(name)) > TRIES:
            raise TsalignError(
                f"{name}: {tries - 1} actors were lost while they worked on it. Look for the cause in Ray's logs: most "
                "often a node's memory; then resume."
            )
        if target.exists() and is_current(target, source, self.retry_failed):
            self.progress.end()  # only a pass before this one had something to do
            return 0.0, 0.0
        rows = read_rows(source)
        before, wanted = self._before(rows, target) if target.exists() else (None, rows)
        made = self.worker(wanted, name)
        shard = before.joined(made) if before else made
        worked = time.monotonic()
        bad = self.quarantine / f"{name.removesuffix('.parquet')}.jsonl"
        remove(bad)
        for row in shard.failed:
            append_line(bad, row)
        write_shard(target, shard, read=len(rows))
        self.progress.end()
        self.error = shard.stop
        work, commit = worked - began, time.monotonic() - worked
        self.meter.committed(len(made.rows), len(made.failed), made.counts)
        self.meter.spent("work", work)
        self.meter.spent("commit", commit)
        return work, commit

    def _before(self, rows: list[Row], target: UPath) -> tuple[Shard, list[Row]]:
        """The committed shard without those of its failed rows that are worth another try; these, and rows it lacks."""
        before, again = read_shard(target), _again(target, self.retry_failed)
        if rows_read(target) != len(rows):
            known = {row["prompt_id"] for row in (*before.rows, *before.failed)}
            again |= {row["prompt_id"] for row in rows} - known
        before.failed = [row for row in before.failed if row["prompt_id"] not in again]
        return before, [row for row in rows if row["prompt_id"] in again]


def is_current(shard: UPath, source: UPath, retry_failed: bool) -> bool:
    """Whether a committed shard was made of all rows that its source has by now, and none is worth another try.

    A source that is not there is one that the pass before has yet to make.
    """
    if _again(shard, retry_failed) or not source.exists():
        return False
    read = rows_read(shard)
    return read is None or read == row_count(source)


def _again(shard: UPath, retry_failed: bool) -> set[str]:
    """The `prompt_id` of the failed rows of a committed shard that are to be done again.

    A row of which a part was kept is not: that part would be there twice.
    """
    wanted = {row["prompt_id"] for row in read_failed(shard) if retry_failed or not row.get("answered", True)}
    return wanted - {row["prompt_id"] for row in read_rows(shard, ["prompt_id"])} if wanted else wanted


def _error(batch: dict[str, Any]) -> str:
    """What stopped a pass before this one."""
    return str(batch["error"][0]) if "error" in batch else ""
