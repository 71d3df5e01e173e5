"""What finished stages made, as the ledger keeps it: where it is in the run's folder, and whether it is whole."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.storage import remove
from tsalign.runs.artifacts import Dataset, Folder, Model

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Dataset, Model, Folder)}


def kept(made: Dataset | Model | Folder, run_dir: UPath) -> dict[str, Any]:
    """Keys of a ledger entry: what was made, relative to the run's folder, and how many files of how many bytes."""
    path = made.path.removeprefix(f"{run_dir}/")
    return {"output": {"kind": type(made).__name__, **vars(made), "path": path}, "files": _files(UPath(made.path))}


def found(entry: dict[str, Any], run_dir: UPath) -> Dataset | Model | Folder:
    """What a finished stage made, wherever the run's folder is by now."""
    output = {**entry["output"], "path": str(run_dir / entry["output"]["path"])}
    made: Dataset | Model | Folder = KINDS[output.pop("kind")](**output)
    return made


def whole(entry: dict[str, Any], run_dir: UPath) -> bool:
    """Whether all that a finished stage made is there, by the number and the sizes of its files."""
    return _files(run_dir / entry["output"]["path"]) == entry["files"]


def drop_damaged(folder: UPath) -> None:
    """Remove the shards of a dataset that cannot be read, so that they are made again, and only they."""
    for shard in folder.glob("part-*.parquet"):
        try:
            with shard.open("rb") as file:
                pq.read_metadata(file)
        except pa.ArrowException:
            remove(shard)


def _files(folder: UPath) -> dict[str, int]:
    """One listing, no content."""
    listed = folder.fs.find(folder.path, detail=True).values() if folder.exists() else ()
    return {"files": len(listed), "bytes": sum(int(each["size"]) for each in listed)}
