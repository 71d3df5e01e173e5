"""The door for notebooks: runs are started, found again and compared here, and go on without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from upath import UPath

from tsalign import api
from tsalign.common.errors import TsalignError
from tsalign.common.storage import resolve
from tsalign.report.summary import find_run, list_runs
from tsalign.runs.run import Run
from tsalign.runs.status import status
from tsalign.session.datasets import start_ray
from tsalign.session.drivers import Driver, find_here, start_here
from tsalign.session.handle import RunHandle
from tsalign.session.markup import Html, badge, table, tag, together
from tsalign.session.state import shown


class Session:
    """Runs in one storage. Each has a driver in a process of its own, which neither an interrupt nor a restart of
    the kernel ends.

    Args:
        storage: folder or URI where runs are; relative to the working directory of now.
    """

    def __init__(self, storage: str = "runs") -> None:
        self.storage = resolve(storage)
        self._handles: dict[str, RunHandle] = {}
        self._own_ray = False

    def run(self, config: str | Path | dict[str, Any], *, retry_failed: bool = False, **overrides: Any) -> RunHandle:
        """Start a run, or go on with the one of that name, and return at once.

        Args:
            config: a YAML file, or its keys; its `storage` is the session's.
            retry_failed: ask again also for failed rows that were answered badly, in stages that are not done.
            overrides: keys with `__` for dots: `tune__beta=0.2`.

        Raises:
            TsalignError: what is wrong with the config, a line each; or a driver is at work on that run.
        """
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        loaded = api.load(config, {**dotted, "storage": str(self.storage)})
        name = loaded.run or self._unused(api.name_of(loaded))
        run = Run(loaded.model_copy(update={"run": name}), name, retry_failed)
        if self._at_work(run.dir):
            raise TsalignError(f"run {name} is running; session.open({name!r}) follows it.")
        api.check(run)
        content = yaml.safe_dump({**run.config.model_dump(mode="json"), "run": name}, sort_keys=False)
        driver = self._start(run.dir, ["run", "/dev/stdin"], retry_failed, content)
        self._handles[name] = self._handle(run.dir, driver)
        return self._handles[name]

    def open(self, name: str) -> RunHandle:
        """A run of the storage, whoever started it, and whether it goes on or not.

        Raises:
            TsalignError: there is none of that name; the message lists the nearest ones.
        """
        if name not in self._handles:
            self._handles[name] = self._handle(find_run(name, str(self.storage)), None)
        return self._handles[name]

    __getitem__ = open

    def close(self) -> None:
        """Release the Ray that this session started to read datasets. Runs that go on go on."""
        if self._own_ray:
            import ray

            ray.shutdown()
            self._own_ray = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _unused(self, name: str) -> str:
        """Names that are made of the time may be the same within a second."""
        taken = (number for number in range(2, 1000) if not (self.storage / f"{name}-{number}").exists())
        return f"{name}-{next(taken)}" if (self.storage / name).exists() else name

    def _at_work(self, folder: UPath) -> bool:
        known = self._handles.get(folder.name)
        return (known.status if known else status(folder)) == "running"

    def _start(self, folder: UPath, command: list[str], retry_failed: bool, config: str = "") -> Driver:
        return start_here([*command, *(["--retry-failed"] if retry_failed else [])], folder, config)

    def _restart(self, folder: UPath, retry_failed: bool) -> Driver:
        return self._start(folder, ["resume", folder.name, "--storage", str(folder.parent)], retry_failed)

    def _handle(self, folder: UPath, driver: Driver | None) -> RunHandle:
        return RunHandle(folder, driver, find_here, self._restart, self._start_ray)

    def _start_ray(self) -> None:
        self._own_ray = start_ray() or self._own_ray

    def _repr_html_(self) -> Html:
        rows = [
            (line["run"], line["recipe"], badge(line["status"]), *_started(line), _headline(line))
            for line in list_runs(str(self.storage))
        ]
        headers = ("run", "recipe", "status", "started", "iterations", "result")
        return together(tag("div", tag("b", "runs in "), self.storage), table(headers, rows) if rows else "none yet")

    def __repr__(self) -> str:
        lines = [
            "  ".join((f"{line['run']:<32}", f"{line['status']:<8}", *map(str, _started(line)), _headline(line)))
            for line in list_runs(str(self.storage))
        ]
        return "\n".join([f"runs in {self.storage}", *(lines or ["none yet"])])


def _started(line: dict[str, Any]) -> tuple[str, int]:
    return line["started"][:16].replace("T", " "), line["iterations_done"]


def _headline(line: dict[str, Any]) -> str:
    first = next((f"{name} {shown(value)}" for name, value in line["results"].items()), "")
    return first or str(line.get("error", ""))
