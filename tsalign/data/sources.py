"""Rows of prompt files: JSONL, JSON and Parquet on any filesystem, and built-in ones."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow.parquet as pq
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.registry import builtin, is_builtin
from tsalign.common.storage import resolve
from tsalign.runs.artifacts import content_fingerprint

COLUMNS = ("prompt", "messages", "instruction")
ROLES = ("system", "user", "assistant")
FORMATS = "expected .jsonl, .json or .parquet, each also with .gz"
Message = dict[str, str]


class BadRow(Exception):
    """A row that cannot become a prompt; the text is the reason."""


@dataclass(frozen=True)
class Record:
    """One row as it is in a file: `line` counts from 1, rows in JSON and Parquet; `flaw` says why it is unreadable."""

    file: str
    line: int
    set: str
    row: Any
    flaw: str = ""


def absolute(location: str) -> str:
    """A location that every node understands; built-in names stay as they are."""
    return location if is_builtin(location) else str(resolve(location))


def expand(location: str) -> list[UPath]:
    """The prompt files that a path, a folder or a glob names, sorted.

    Raises:
        TsalignError: nothing is there, or a name has no known format.
    """
    if not (files := find_files(location)):
        raise TsalignError(
            f"{location}: no prompt file found; {FORMATS}, a folder or glob of such files, or toy:train."
        )
    return files


def find_files(location: str) -> list[UPath]:
    """As `expand`, but an empty list where nothing is there."""
    path = resolve(location)
    if path.is_dir():
        files = [file for file in path.iterdir() if _format(file) and not file.name.startswith(".")]
    else:
        files = [path] if path.exists() else _glob(path)
    for file in files:
        if not _format(file):
            raise TsalignError(f"{file}: unknown format; {FORMATS}.")
    return sorted(files, key=str)


def contents(locations: Iterable[str]) -> dict[str, str]:
    """Each location -> a fingerprint of the files that it names, empty where there are none any more.

    Built-in rows are known by their name.
    """
    return {location: _content(location) for location in sorted(set(locations))}


def _content(location: str) -> str:
    if is_builtin(location):
        return location
    return content_fingerprint(files) if (files := find_files(location)) else ""


def read(locations: list[str]) -> Iterator[Record]:
    """All rows of all locations, file by file in the order of their names, each file once.

    Raises:
        TsalignError: a location names nothing, or a file cannot be read or has no column that holds prompts.
    """
    ours = sorted({location for location in locations if is_builtin(location)})
    files = {str(file): file for location in locations if location not in ours for file in expand(location)}
    for location in ours:
        for line, (name, row) in enumerate(builtin("rows", location), 1):
            yield Record(location, line, name, row)
    for name in sorted(files):
        yield from _read_file(files[name])


def to_messages(record: Record, system: str | None) -> list[Message]:
    """The conversation of a row, ending with a user's turn, `system` first where it has no system message.

    Raises:
        BadRow: the row has no prompt or a malformed one.
    """
    if record.flaw:
        raise BadRow(record.flaw)
    row = record.row
    if not isinstance(row, dict):
        raise BadRow(f"expected an object, got {type(row).__name__}")
    column = next((name for name in COLUMNS if row.get(name) is not None), None)
    if column is None:
        raise BadRow(f"has none of the columns {', '.join(COLUMNS)}")
    messages = _conversation(row, column)
    if messages[-1]["role"] != "user":
        raise BadRow(f"{column} must end with a user turn")
    if system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def _conversation(row: dict[str, Any], column: str) -> list[Message]:
    value = row[column]
    if column == "instruction":
        extra = row.get("input")
        parts = [_text(value, column)] + ([_text(extra, "input")] if extra not in (None, "") else [])
        return [{"role": "user", "content": "\n\n".join(parts)}]
    if column == "prompt" and isinstance(value, str):
        return [{"role": "user", "content": _text(value, column)}]
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} must be a non-empty list of messages")
    messages = [_message(item, f"{column}[{index}]", index) for index, item in enumerate(value)]
    answered = column == "messages" and len(messages) > 1 and messages[-1]["role"] == "assistant"
    return messages[:-1] if answered else messages


def _message(item: Any, name: str, index: int) -> Message:
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        raise BadRow(f"{name} must have role and content")
    role = item["role"]
    if role not in ROLES:
        raise BadRow(f"{name}: unknown role {role!r}, expected {', '.join(ROLES)}")
    if role == "system" and index:
        raise BadRow(f"{name}: a system message must come first")
    return {"role": role, "content": _text(item["content"], f"{name}.content")}


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text, got {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"{name} is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRow(f"{name} is not valid Unicode")
    return value


def _read_file(path: UPath) -> Iterator[Record]:
    found = dict[str, None]()
    with opened(path) as (file, kind, name):
        for line, row, flaw in READERS[kind](file):
            found |= dict.fromkeys(row if isinstance(row, dict) and len(found) < 100 else ())
            yield Record(str(path), line, name, row, flaw)
    if found and not found.keys() & set(COLUMNS):
        raise TsalignError(
            f"{path}: no column with prompts; expected prompt, messages, or instruction (and input), "
            f"found {', '.join(list(found)[:20])}. Rename the column that holds them."
        )


@contextmanager
def opened(path: UPath) -> Iterator[tuple[IO[bytes], str, str]]:
    """A prompt file's content, its format, and the name of the set that it is.

    Raises:
        TsalignError: it cannot be read as that.
    """
    kind = _format(path)
    try:
        with path.open("rb", compression="gzip" if path.suffix == ".gz" else None) as file:
            yield file, kind, path.name.removesuffix(".gz").removesuffix(kind)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise TsalignError(f"{path}: cannot be read as {kind}: {error}") from error


def _read_jsonl(file: IO[bytes]) -> Iterator[tuple[int, Any, str]]:
    for line, raw in enumerate(file, 1):
        if not raw.strip():
            continue
        row, flaw = raw.rstrip().decode("utf-8-sig", "backslashreplace"), ""
        try:
            row = json.loads(raw.rstrip().decode("utf-8-sig"))
        except UnicodeDecodeError:
            flaw = "not UTF-8"
        except json.JSONDecodeError as error:
            flaw = f"not JSON: {error.msg}, column {error.colno}"
        except RecursionError:
            flaw = "not JSON: nested too deeply"
        yield line, row, flaw


def read_json(file: IO[bytes]) -> Iterator[tuple[int, Any, str]]:
    """Number, row and flaw of each entry of an array.

    Raises:
        ValueError: it is none.
    """
    try:
        rows = json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{error}; name a file with one object per line .jsonl") from error
    if not isinstance(rows, list):
        raise ValueError(f"expected an array of objects, got {type(rows).__name__}")
    for line, row in enumerate(rows, 1):
        yield line, row, ""


def _read_parquet(file: IO[bytes]) -> Iterator[tuple[int, Any, str]]:
    batches = pq.ParquetFile(file).iter_batches(batch_size=1024)
    for line, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
        yield line, row, ""


READERS = {".jsonl": _read_jsonl, ".json": read_json, ".parquet": _read_parquet}


def _format(path: UPath) -> str:
    return next((kind for kind in READERS if path.name.removesuffix(".gz").endswith(kind)), "")


def _glob(path: UPath) -> list[UPath]:
    found = path.fs.glob(path.path, detail=True).items()
    return [
        UPath(name, protocol=path.protocol, **path.storage_options) for name, info in found if info["type"] == "file"
    ]
