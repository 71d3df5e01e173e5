"""Shards: Parquet files of rows, each written atomically, with its counts in the footer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.storage import atomic, remove
from tsalign.data.schema import to_table
from tsalign.runs.artifacts import Dataset

COUNTS, FAILED, READ = b"tsalign.counts", b"tsalign.failed", b"tsalign.read"
UNREPORTED = "unreported"  # calls of which the service does not say how many tokens they took
ASKED = ("calls", "tokens", UNREPORTED)
Row = dict[str, Any]


@dataclass
class Shard:
    """What a worker made of one shard: rows kept, rows that failed, and sums to report.

    Attributes:
        failed: each with `prompt_id` and `reason`, and `answered: False` where no answer came at all, so that asking
            again may help.
        stop: why no further shard can be done; this one is committed first.
    """

    rows: list[Row]
    failed: list[Row] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    stop: str = ""

    def joined(self, more: Shard) -> Shard:
        """Both together."""
        counts = Counter(self.counts)
        counts.update(more.counts)
        return Shard(self.rows + more.rows, self.failed + more.failed, dict(counts), more.stop)


def read_rows(shard: UPath, columns: list[str] | None = None) -> list[Row]:
    """The rows of one shard; only those of `columns` that it has, where they are given."""
    with shard.open("rb") as file:
        parquet = pq.ParquetFile(file)
        have = [name for name in columns if name in parquet.schema_arrow.names] if columns else None
        return parquet.read(columns=have).to_pylist()


def iterate(datasets: Iterable[Dataset], columns: list[str] | None = None) -> Iterator[Row]:
    """Rows of all shards, one shard in memory at a time."""
    for dataset in datasets:
        for shard in dataset.shards():
            yield from read_rows(shard, columns)


def write_shard(path: UPath, shard: Shard, read: int | None = None) -> None:
    """Commit a shard: Parquet under a temporary name, its counts and failed rows in the footer, then the rename.

    Args:
        read: rows of the shard that it was made of.
    """
    counts = {**shard.counts, "rows": len(shard.rows), "failed": len(shard.failed)}
    footer = {COUNTS: json.dumps(counts).encode(), FAILED: json.dumps(shard.failed).encode()}
    if read is not None:
        footer[READ] = str(read).encode()
    table = to_table(shard.rows).replace_schema_metadata(footer)
    with atomic(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


def write_rows(out: UPath, *portions: Iterable[Row], shard_size: int) -> int:
    """Write rows as the shards of `out`, replacing what is there, with one shard in memory at a time.

    Args:
        portions: each starts a new shard.

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


def read_shard(path: UPath) -> Shard:
    """A committed shard as it was written."""
    footer = _footer(path)
    return Shard(read_rows(path), json.loads(footer.get(FAILED, b"[]")), json.loads(footer[COUNTS]))


def read_failed(path: UPath) -> list[Row]:
    """The failed rows of a committed shard."""
    failed: list[Row] = json.loads(_footer(path).get(FAILED, b"[]"))
    return failed


def row_count(shard: UPath) -> int:
    """How many rows a shard has, by its footer."""
    with shard.open("rb") as file:
        return int(pq.read_metadata(file).num_rows)


def rows_read(path: UPath) -> int | None:
    """How many rows the shard had of which this committed one was made; None where that was not noted."""
    read = _footer(path).get(READ)
    return None if read is None else int(read)


def _footer(path: UPath) -> dict[bytes, bytes]:
    with path.open("rb") as file:
        found: dict[bytes, bytes] = pq.read_schema(file).metadata
        return found


class Counting(Protocol):
    """A loaded scorer or an engine: it counts what it does."""

    counts: Counter[str]


def take_counts(of: Counting, role: str, name: str) -> dict[str, float]:
    """What a loaded scorer or engine counted since it was last asked.

    `calls.<role>`, `tokens.<role>` and `unreported.<role>` are what the model of a role was asked; anything else is
    `<name>_<what>`.
    """
    taken: dict[str, float] = {
        f"{what}.{role}" if what in ASKED else f"{name}_{what}": amount for what, amount in of.counts.items()
    }
    of.counts.clear()
    return taken


def read_counts(dataset: Dataset) -> dict[str, float]:
    """The sum of the counts in all shards' footers."""
    total: Counter[str] = Counter()
    for path in dataset.shards():
        total.update(json.loads(_footer(path)[COUNTS]))
    return dict(total)
