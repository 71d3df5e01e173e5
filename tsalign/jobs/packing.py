"""What travels with a job: its config, and the local files that this names. Nothing else of the working directory."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tsalign.common.errors import TsalignError
from tsalign.common.registry import is_builtin
from tsalign.common.storage import is_remote
from tsalign.config import RunConfig
from tsalign.config.locations import Key, Location, locations
from tsalign.runs.joining import refuse_relative
from tsalign.runs.place import INPUTS

CONFIG = "config.yaml"
MAX_BYTES = 400_000_000  # Ray takes packages of up to 500 MiB
CODE = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_]\w*")
SHARED = "put it into storage that all nodes reach, and name it by its URI or, for a shared folder, file:///FOLDER"


@dataclass(frozen=True)
class Luggage:
    """What a job brings along.

    Attributes:
        content: the config as the job runs it, its local files named as they will lie in the run's folder.
        files: where each lies in the job's folder -> the local file.
    """

    content: Mapping[str, Any]
    files: Mapping[str, Path]

    def inputs(self) -> list[str]:
        """Those of the files that the job puts into the run's folder."""
        return [name for name in self.files if name.startswith(f"{INPUTS}/")]

    def write(self, folder: Path) -> None:
        """All of it into an empty folder, which Ray sends."""
        for name, file in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        (folder / CONFIG).write_text(yaml.safe_dump(dict(self.content), sort_keys=False))


def pack(config: RunConfig, name: str, here: Path) -> Luggage:
    """The luggage of a run.

    A file lies in the run's folder under the hash of its content, so that sending a run again resumes it where nothing
    changed, and does anew what read a file that did.

    Args:
        name: of the run.
        here: what relative paths are relative to; also where modules of the user's own are found.

    Raises:
        TsalignError: a file is missing, too large, or a model that is only here; or the storage is relative.
    """
    refuse_relative(config.storage, "on the cluster it would lie on one node, in a job's temporary folder")
    content = {**config.model_dump(mode="json"), "run": name}
    files: dict[str, Path] = {}
    for found in locations(config):
        if is_builtin(found.name) or "://" in found.name or is_remote(found.name):
            continue
        if found.kind == "model":
            _refuse_local_model(found, here)
        elif taken := _local(found, here, config.storage):
            below, pattern = taken
            place = f"{INPUTS}/{_digest(below)}"
            files |= {f"{place}/{inner}": file for inner, file in below.items()}
            _set(content, found.key, f"{config.storage.rstrip('/')}/{name}/{place}/{pattern}")
    files |= _modules(content, here)
    if (total := sum(file.stat().st_size for file in files.values())) > MAX_BYTES:
        largest = max(files.values(), key=lambda file: file.stat().st_size)
        raise TsalignError(
            f"the files that the config names have {total / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:,.0f} MB that "
            f"travel with a job; of {largest}: {SHARED}."
        )
    return Luggage(content, files)


def _refuse_local_model(found: Location, here: Path) -> None:
    path = Path(found.name).expanduser()
    if found.name.startswith((".", "~")) or (not path.is_absolute() and (here / path).exists()):
        raise TsalignError(
            f"{found}: {found.name} is a model of this machine, and models do not travel with a job; {SHARED}, or "
            "use its id on the Hub."
        )


def _local(found: Location, here: Path, storage: str) -> tuple[dict[str, Path], str] | None:
    """Path below a folder -> file, and what names them all there; None for what the cluster has."""
    path = here / Path(found.name).expanduser()
    if not is_remote(storage) and path.is_relative_to(Path(storage.removeprefix("file://")).expanduser()):
        return None
    fixed = next((parent for parent in (path, *path.parents) if not re.search(r"[*?\[]", str(parent))), path)
    if fixed != path:
        files = {str(file.relative_to(fixed)): file for file in fixed.glob(str(path.relative_to(fixed)))}
        pattern = str(path.relative_to(fixed))
    else:
        files = {str(file.relative_to(path.parent)): file for file in _whole(path)}
        pattern = path.name
    if files := {name: file for name, file in sorted(files.items()) if file.is_file()}:
        return files, pattern
    if Path(found.name).is_absolute() or found.name.isidentifier():
        return None  # a path of the cluster's, or a word that is no path
    raise TsalignError(f"{found}: {found.name}: no such file in {here}; only what is here can travel with the job.")


def _whole(path: Path) -> Iterable[Path]:
    """A folder's files, or a file; a task of `arte` has its rows beside it."""
    if path.is_dir():
        return (file for file in path.rglob("*") if not any(p.startswith(".") for p in file.relative_to(path).parts))
    return path.parent.glob(f"{path.stem}.*") if path.suffix == ".yaml" else [path]


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, file in files.items():
        digest.update(f"{name}:{file.stat().st_size}:".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _modules(content: Any, here: Path) -> dict[str, Path]:
    """The modules of the working directory that a config names as `module:attribute`."""
    found: dict[str, Path] = {}
    for text in _texts(content):
        if not (named := CODE.fullmatch(text)) or is_builtin(text):
            continue
        module = here / f"{named[1]}.py"
        package = here / named[1]
        sources = [module] if module.exists() else package.rglob("*") if (package / "__init__.py").exists() else []
        files = (file for file in sources if file.is_file() and "__pycache__" not in file.parts)
        found |= {str(PurePosixPath(file.relative_to(here))): file for file in files}
    return found


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _texts(inner)


def _set(content: Any, key: Key, value: str) -> None:
    *parents, last = key
    for parent in parents:
        content = content[parent]
    content[last] = value
