"""Whether what a stage made is still whole: the number and the sizes of its files, as they were when it was done."""

from __future__ import annotations

from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.storage import remove


class Inventory(TypedDict):
    """The files of a folder and all below it."""

    files: int
    bytes: int


def take(folder: UPath) -> Inventory:
    """What is there now: one listing, no content."""
    found = folder.fs.find(folder.path, detail=True).values() if folder.exists() else ()
    return {"files": len(found), "bytes": sum(int(each["size"]) for each in found)}


def drop_damaged(folder: UPath) -> None:
    """Remove the shards of a dataset that cannot be read, so that they are made again."""
    for shard in folder.glob("part-*.parquet"):
        try:
            with shard.open("rb") as file:
                pq.read_metadata(file)
        except pa.ArrowException:
            remove(shard)
