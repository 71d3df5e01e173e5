"""One worker pass over a dataset: Ray Data spreads shards over actors, each shard commits by rename."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.errors import TsalignError, surfaced
from tsalign.common.storage import append_line, atomic, remove
from tsalign.config import Placement
from tsalign.data.schema import to_table
from tsalign.runs.artifacts import Dataset

if TYPE_CHECKING:
    from tsalign.runs.stage import Stage

COUNTS = b"tsalign.counts"
Row = dict[str, Any]


@dataclass
class Shard:
    """What a worker made of one shard: rows kept, rows failed (each with `reason`), and sums to report."""

    rows: list[Row]
    failed: list[Row] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


class Worker(Protocol):
    """Lives in an actor, loads what it needs once, and maps the rows of a shard."""

    def __call__(self, rows: list[Row], shard: str) -> Shard: ...


def read_rows(shard: UPath, columns: list[str] | None = None) -> list[Row]:
    """The rows of one shard; only `columns` where given, and of those the ones it has."""
    with shard.open("rb") as file:
        parquet = pq.ParquetFile(file)
        have = [name for name in columns if name in parquet.schema_arrow.names] if columns else None
        return parquet.read(columns=have).to_pylist()


def iterate(datasets: Iterable[Dataset], columns: list[str] | None = None) -> Iterator[Row]:
    """Rows of all shards, one shard in memory at a time."""
    for dataset in datasets:
        for shard in dataset.shards():
            yield from read_rows(shard, columns)


def write_shard(path: UPath, shard: Shard) -> None:
    """Commit a shard: Parquet under a temporary name, its counts in the footer, then the rename."""
    table = to_table(shard.rows)
    counts = {"rows": len(shard.rows), "failed": len(shard.failed), **shard.counts}
    table = table.replace_schema_metadata({COUNTS: json.dumps(counts).encode()})
    with atomic(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


def write_rows(out: UPath, *portions: Iterable[Row], shard_size: int) -> int:
    """Rows as the shards of `out`, in place of what is there, one shard in memory at a time.

    Args:
        portions: each begins a new shard.

    Returns:
        How many rows there were.
    """
    remove(out)
    total = 0
    for number, rows in enumerate(chunk for portion in portions for chunk in _chunks(portion, shard_size)):
        write_shard(out / f"part-{number:05}.parquet", Shard(rows))
        total += len(rows)
    return total


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk


class Counting(Protocol):
    """A loaded scorer or an engine: it counts what it does."""

    counts: Counter[str]


def take_counts(of: Counting, name: str) -> dict[str, float]:
    """What a loaded scorer or engine counted since it was last asked, as `<name>_<what>`."""
    taken: dict[str, float] = {f"{name}_{what}": amount for what, amount in of.counts.items()}
    of.counts.clear()
    return taken


def read_counts(dataset: Dataset) -> dict[str, float]:
    """The sum of the counts in all shards' footers."""
    total: Counter[str] = Counter()
    for path in dataset.shards():
        with path.open("rb") as file:
            total.update(json.loads(pq.read_schema(file).metadata[COUNTS]))
    return dict(total)


def map_shards(
    stage: Stage,
    source: Dataset,
    worker: Callable[..., Worker],
    arguments: dict[str, Any],
    placement: Placement,
    max_failed_fraction: float = 0.01,
) -> Dataset:
    """Run `worker(**arguments)` actors over the shards of `source` into `stage.out`, skipping committed shards.

    Raises:
        TsalignError: more than `max_failed_fraction` of the rows failed; the message shows three of them.
    """
    import ray.data

    output = Dataset(str(stage.out), stage.fingerprint)
    committed = {path.name for path in output.shards()}
    missing = [str(path) for path in source.shards() if path.name not in committed]
    with stage.progress(len(missing) + len(committed), done=len(committed), unit="shards") as advance:
        if missing:
            stage.wait_for(placement.replicas, placement.cpus, placement.actor_gpus)
            reports = ray.data.from_items(
                [{"shard": shard} for shard in missing], override_num_blocks=len(missing)
            ).map_batches(
                _ShardActor,
                fn_constructor_args=(worker, arguments, str(stage.out), str(stage.quarantine)),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(placement.replicas, len(missing))),
                num_cpus=placement.cpus,
                num_gpus=placement.actor_gpus,
                max_task_retries=2,  # a shard that kills its actor is not tried for ever
            )
            with surfaced():
                for _ in reports.iter_rows():
                    advance(1)
    counts = read_counts(output)
    stage.log(counts)
    _check_failures(stage, counts, max_failed_fraction)
    return output


class _ShardActor:
    """The actor that Ray Data runs: one shard in, one committed shard out."""

    def __init__(self, worker: Callable[..., Worker], arguments: dict[str, Any], out: str, quarantine: str) -> None:
        self.worker = worker(**arguments)
        self.out, self.quarantine = UPath(out), UPath(quarantine)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        path = UPath(str(batch["shard"][0]))
        shard = self.worker(read_rows(path), path.name)
        bad = self.quarantine / path.with_suffix(".jsonl").name
        remove(bad)
        for row in shard.failed:
            append_line(bad, row)
        write_shard(self.out / path.name, shard)
        return {"shard": [path.name]}


def _check_failures(stage: Stage, counts: dict[str, float], limit: float) -> None:
    failed, total = counts.get("failed", 0), counts.get("failed", 0) + counts.get("rows", 0)
    if total == 0 or failed > limit * total:
        examples: list[str] = []
        for file in sorted(stage.quarantine.glob("*.jsonl"), key=str) if stage.quarantine.exists() else []:
            examples += [line[:300] for line in file.read_text().splitlines()[: 3 - len(examples)]]
        raise TsalignError(
            f"{stage.name}: {failed:.0f} of {total:.0f} rows failed (limit {limit:.1%}); "
            f"all are in {stage.quarantine}, the first are:\n  " + "\n  ".join(examples)
        )
