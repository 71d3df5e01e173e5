"""Paths on any filesystem that all nodes reach, and writes that are complete or absent."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec import get_filesystem_class
from fsspec.core import split_protocol
from upath import UPath

from tsalign.common.errors import TsalignError

logger = logging.getLogger("tsalign")

# Protocol of a URI -> our extra that installs its filesystem.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def is_remote(location: str) -> bool:
    """Whether a location is on another filesystem than this machine's, judged by its name alone."""
    return split_protocol(location)[0] not in (None, "file", "local")


def resolve(location: str) -> UPath:
    """A folder or URI (`s3://bucket/runs`) as an absolute path object.

    Raises:
        TsalignError: no such kind of URI, or the package that reads it is not installed.
    """
    protocol = split_protocol(location)[0]
    if protocol is None:
        return UPath(location).expanduser().absolute()
    try:
        get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        install = f"pip install 'tsalign[{EXTRAS[protocol]}]'" if protocol in EXTRAS else str(error)
        raise TsalignError(f"{location}: cannot open {protocol}:// here: {install}") from error
    return UPath(location)


def text_or_file(given: str, key: str, folder: UPath | None = None) -> str:
    """A template from a config: Jinja text as it is, otherwise the content of the file that it names.

    Args:
        key: where it was given, for the error.
        folder: what a relative path is relative to; None for the working directory.

    Raises:
        TsalignError: no such file, or none of text.
    """
    if "{" in given or "\n" in given:
        return given
    path = folder / given if folder else resolve(given)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TsalignError(f"{key}: {path}: is not UTF-8 text; expected a file of Jinja text.") from error
    except OSError as error:
        raise TsalignError(f"{key}: {given[:80]}: cannot be read: {error.strerror}.") from error
    raise TsalignError(f"{key}: {path}: no such file; expected Jinja text or the path of a file that holds it.")


@contextmanager
def atomic(path: UPath) -> Iterator[UPath]:
    """A temporary name beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex[:8]}.{path.name}"
    try:
        yield temporary
        # Object stores rename by copy and show an object only once it is complete; a local rename must replace.
        temporary.rename(path) if path.protocol else temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()


def create(path: UPath, content: bytes) -> bool:
    """Write a file where there is none of that name; False, and nothing written, where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.protocol:
            path.fs.pipe_file(path.path, content, mode="create")
        else:
            with path.open("xb") as file:
                file.write(content)
    except FileExistsError:
        return False
    return True


def write_json(path: UPath, content: Any) -> None:
    """`content` as indented JSON at `path`, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def write_text(path: UPath, content: str) -> None:
    """`content` at `path`, atomically; nothing is written where it is there already."""
    if path.exists() and path.read_bytes() == content.encode("utf-8", "backslashreplace"):
        return
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace"))


def append_line(path: UPath, content: dict[str, Any]) -> None:
    """One JSON line at the end of a file that only one process writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(content, ensure_ascii=False, default=str) + "\n"
    with path.open("ab") as file:
        # A lone surrogate, which UTF-8 cannot hold, is written as its JSON escape.
        file.write(line.encode("utf-8", "backslashreplace"))


def read_lines(path: UPath) -> list[dict[str, Any]]:
    """The JSON objects of a file's lines; a last line that a crash cut short, or left half written, is left out.

    Raises:
        TsalignError: any other line is none; with file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found = [_object(line) for line in lines[:-1]]
    if found and found[-1] is None:
        logger.warning("%s:%d: the last line is damaged, as a crash leaves it; going on without it", path, len(found))
        found.pop()
    if None in found:
        raise TsalignError(
            f"{path}:{found.index(None) + 1}: not a JSON object; the file is damaged. Restore it, or delete this line."
        )
    return [entry for entry in found if entry is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def drop_cut_line(path: UPath) -> None:
    """Remove a last line that is no JSON object, or has no end, so that the next append starts a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    kept = content[: content.rfind(b"\n") + 1]
    start = kept.rfind(b"\n", 0, -1) + 1
    if kept and _object(kept[start:]) is None:
        kept = kept[:start]
    if kept != content:
        with atomic(path) as temporary:
            temporary.write_bytes(kept)


def remove(path: UPath) -> None:
    """The file or folder and all below it, if it is there."""
    if path.exists():
        path.fs.rm(path.path, recursive=True)


@contextmanager
def local_folder(location: str) -> Iterator[str]:
    """`location` itself when local, else a copy of the remote folder that lives as long as the block."""
    path = UPath(location)
    if not path.protocol:
        yield location
        return
    with tempfile.TemporaryDirectory() as copy:
        path.fs.get(path.path.rstrip("/") + "/", copy, recursive=True)
        yield copy


def put_folder(source: str, target: UPath) -> None:
    """A local folder's files under `target` on any filesystem."""
    target.mkdir(parents=True, exist_ok=True)
    target.fs.put(source.rstrip("/") + "/", target.path, recursive=True)
