"""Where a run is put: a folder of its own in storage that can be written."""

from __future__ import annotations

import secrets
import tempfile

from fsspec import available_protocols
from fsspec.core import split_protocol
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import is_remote, resolve
from tsalign.runs.joining import check_storage_of_job

LOG = "driver.log"  # what a driver says that a session started, from before it makes anything else

INPUTS = "inputs"  # files that came with a job, from before it runs

# One of these is in the folder of every run.
MARKS = ("ledger.jsonl", "provenance.json", LOG, INPUTS)


def check_storage(storage: str) -> None:
    """Nothing, where a local folder can be written, now or once it is made; other storage is not asked.

    Raises:
        TsalignError: it is a file, cannot be written, or is no kind of storage that there is.
    """
    if is_remote(storage):
        if (protocol := split_protocol(storage)[0]) not in available_protocols():
            raise TsalignError(f"storage: {storage}: no storage is known as {protocol}://; expected a folder or s3://.")
        return
    folder = resolve(storage)
    try:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not there.is_dir():
            raise TsalignError(f"storage: {storage}: {there} is a file; expected a folder.")
        with tempfile.TemporaryFile(dir=str(there)):
            return
    except (OSError, ValueError) as error:
        raise TsalignError(f"storage: {storage}: cannot be written: {error}.") from error


def check_place(storage: str, name: str) -> None:
    """Nothing, where a run of that name can begin or go on.

    Raises:
        TsalignError: its folder holds something else, or the storage is elsewhere and cannot be written from here, or
            would go with the job.
    """
    check_storage_of_job(storage)
    folder = resolve(storage)
    if is_remote(storage):
        _check_writable(folder, storage)
    place = folder / name
    taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if taken and not any((place / mark).exists() for mark in MARKS):
        raise TsalignError(f"run: {place} is there and is not a run; choose another name or storage.")


def _check_writable(folder: UPath, storage: str) -> None:
    probe = folder / f".{secrets.token_hex(4)}"
    try:
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # each kind of storage has errors of its own
        raise TsalignError(f"storage: {storage}: cannot be written: {type(error).__name__}: {error}") from error
