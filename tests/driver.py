"""`tsalign run` in a process of its own, as a user starts it, and as a machine kills it; and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tsalign.data.shards import read_rows
from tsalign.runs.artifacts import Dataset

EXAMPLE = Path(__file__).parent / "example_recipe"
START_SECONDS = 300


@dataclass(frozen=True)
class Driver:
    """Runs `folder/config.yaml` under any name; `packages` are folders with more packages."""

    folder: Path
    packages: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """`tsalign` in a process group of its own."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "tsalign"), *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.packages)), **self.environment},
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("a"),
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments: str) -> str:
        """What a command prints."""
        process = self.command(*arguments)
        printed, _ = process.communicate()
        assert process.returncode == 0, self.log()
        return printed

    def run(self, name: str) -> None:
        """Run or resume to the end."""
        self.call("run", "config.yaml", f"run={name}")

    def watch(self, name: str) -> str:
        """Run or resume to the end; what its standard error shows on a terminal."""
        terminal, end = os.openpty()
        command = [str(Path(sys.executable).parent / "tsalign"), "run", "config.yaml", f"run={name}"]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=end)
        os.close(end)
        shown = bytearray()
        with suppress(OSError):  # what a terminal says once nobody holds its other end
            while chunk := os.read(terminal, 4096):
                shown += chunk
        os.close(terminal)
        assert process.wait() == 0, shown.decode()
        return shown.decode()

    def kill_when(self, name: str, ready: Callable[[], bool]) -> None:
        """Run or resume, and kill the driver as soon as `ready()`."""
        process = self.command("run", "config.yaml", f"run={name}")
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        rays = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        # Ray's processes follow their driver; two of them starting and stopping at once would only be slow.
        for survivor in psutil.wait_procs(rays, timeout=30)[1]:
            survivor.kill()

    def log(self) -> str:
        """The end of what its processes wrote to stderr."""
        return (self.folder / "log").read_text()[-3000:]


@dataclass(frozen=True)
class Quickstart:
    """A finished `tsalign quickstart --recipe best-of-n`: its run directory, and what it printed."""

    driver: Driver
    folder: Path
    printed: str


def parts(folder: Path) -> list[Path]:
    """The committed shards."""
    return sorted(folder.glob("part-*.parquet"))


def checkpointed(stage: Path) -> bool:
    """Whether Ray Train knows a checkpoint of a training, given its output folder."""
    known = stage.parent.glob(f".{stage.name}-*/*/checkpoint_manager_snapshot.json")
    return any("checkpoint_" in file.read_text() for file in known)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows, in an order that does not depend on the shards."""
    rows = [row for shard in Dataset(str(folder), "").shards() for row in read_rows(shard)]
    return sorted(rows, key=lambda row: row["prompt_id"])


def row_hashes(folder: Path, without: Collection[str] = ()) -> list[str]:
    """A hash of each row but for some columns."""
    rows = [{name: value for name, value in row.items() if name not in without} for row in rows_of(folder)]
    return [hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest() for row in rows]
