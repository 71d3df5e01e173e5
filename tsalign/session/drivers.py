"""Drivers of runs, as processes of their own: interrupting or restarting a kernel leaves them alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import psutil
import yaml
from upath import UPath

from tsalign import api
from tsalign.common.errors import TsalignError
from tsalign.common.storage import is_remote
from tsalign.config import RunConfig
from tsalign.runs.lease import holder
from tsalign.runs.place import LOG
from tsalign.runs.run import Run

# A kernel sets these for what it shows itself; a log takes no colours.
OF_KERNELS = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "MPLBACKEND", "JPY_PARENT_PID")


class Driver(Protocol):
    """A driver that was started, or found.

    Attributes:
        log: where to read what it says.
    """

    log: str

    def running(self) -> bool: ...

    def ending(self) -> str:
        """How it ended, as far as that is known apart from the run's folder: `failed`, `stopped`, or nothing."""

    def stop(self) -> None:
        """Ask it to end its run, which then can be resumed."""

    def said(self) -> str:
        """What it said."""


class Drivers(Protocol):
    """How drivers are started and found: on this machine, or on a cluster."""

    def start(self, config: RunConfig, name: str, retry_failed: bool) -> Driver:
        """Drive a run of a config, or go on with that of its name, once it is checked."""

    def resume(self, folder: UPath, retry_failed: bool) -> Driver:
        """Go on with a run as its folder has it."""

    def find(self, folder: UPath) -> Driver | None:
        """The driver of a run, whoever started it; None where none lives."""


class LocalDriver:
    """A process on this machine, whose output from `start` on is in a log."""

    def __init__(self, process: psutil.Process, log: str, start: int = 0) -> None:
        self.process, self.log, self.start = process, log, start

    def running(self) -> bool:
        """Whether it lives; one that nobody waited for is over."""
        if isinstance(self.process, psutil.Popen):
            return self.process.poll() is None
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def ending(self) -> str:
        """By its exit status, which only who started it gets; negative after a signal."""
        code = isinstance(self.process, psutil.Popen) and self.process.poll()
        return ("failed" if code > 0 else "stopped") if code else ""

    def stop(self) -> None:
        """With SIGTERM, to the driver alone: it ends its Ray itself."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)

    def said(self) -> str:
        """What it wrote to its log."""
        return Path(self.log).read_bytes()[self.start :].decode("utf-8", "replace").strip()


class Here:
    """Drivers on this machine, each with a Ray of its own, or all on the cluster that RAY_ADDRESS names."""

    def start(self, config: RunConfig, name: str, retry_failed: bool) -> LocalDriver:
        """See `Drivers`.

        Raises:
            TsalignError: what is wrong with the config, a line each.
        """
        run = Run(config, name, retry_failed)
        api.check(run)
        content = yaml.safe_dump({**config.model_dump(mode="json"), "run": name}, sort_keys=False)
        return _started(["run", "/dev/stdin"], run.dir, retry_failed, content)

    def resume(self, folder: UPath, retry_failed: bool) -> LocalDriver:
        """See `Drivers`."""
        return _started(["resume", folder.name, "--storage", str(folder.parent)], folder, retry_failed)

    def find(self, folder: UPath) -> LocalDriver | None:
        """The one that holds the run's lease.

        Raises:
            TsalignError: it lives on another machine.
        """
        if (held := holder(folder)) is None:
            return None
        if held.host != socket.gethostname():
            raise TsalignError(
                f"run {folder.name}: process {held.pid} on {held.host} drives it, which cannot be reached from here; "
                "stop it there, or open the session with the address of its cluster."
            )
        try:
            return LocalDriver(psutil.Process(held.pid), str(log_of(folder)))
        except psutil.NoSuchProcess:  # it has just ended
            return None


def _started(arguments: list[str], folder: UPath, retry_failed: bool, config: str = "") -> LocalDriver:
    """`tsalign <arguments>` in a process group of its own, its output in a log; it reads `config` as `/dev/stdin`."""
    log = log_of(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.exists() else 0
    environment = {name: value for name, value in os.environ.items() if name not in OF_KERNELS}
    with log.open("ab") as said:
        process = psutil.Popen(
            # Not the script, which may be elsewhere than its interpreter.
            [sys.executable, "-c", "from tsalign.cli import app; app(prog_name='tsalign')", *arguments]
            + ["--retry-failed"] * retry_failed,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**environment, "COLUMNS": "120"},
            start_new_session=True,
        )
    process.stdin.write(config.encode())
    process.stdin.close()
    return LocalDriver(process, str(log), start)


def log_of(folder: UPath) -> Path:
    """In the run's folder, or of a run elsewhere in a temporary one of this machine."""
    if not is_remote(str(folder)):
        return Path(folder.path) / LOG
    return Path(tempfile.gettempdir()) / f"tsalign-{os.getuid()}" / f"{folder.name}.log"
