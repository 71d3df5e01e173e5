"""The door for notebooks: runs are started, found again and compared here, and go on without it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from upath import UPath

from tsalign import api
from tsalign.common.storage import resolve
from tsalign.report.summary import find_run, list_runs
from tsalign.session.datasets import start_ray
from tsalign.session.drivers import Drivers, Here
from tsalign.session.handle import RunHandle
from tsalign.session.markup import Html, badge, table, tag, together
from tsalign.session.state import shown


class Session:
    """Runs in one storage. Each has a driver in a process of its own, which neither an interrupt nor a restart of
    the kernel ends.

    Args:
        address: job server of a cluster, `http://HEAD:8265`; None for this machine.
        storage: folder or URI where runs are, relative to the working directory of now; for a cluster one that all of
            its nodes and this process reach.
        package: runs on a cluster bring the tsalign that is installed here, for nodes without one.
    """

    def __init__(self, address: str | None = None, storage: str = "runs", package: bool = False) -> None:
        self.drivers = _drivers(address, package)
        # On a cluster a relative folder would be another one on each node: it is refused when a run is sent.
        self.storage = storage if address else str(resolve(storage))
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
        loaded = api.load(config, {**dotted, "storage": self.storage})
        name = loaded.run or self._unused(api.name_of(loaded))
        named = loaded.model_copy(update={"run": name})
        handle = self._handles.get(name) or self._handle(resolve(self.storage) / name)
        handle.begin(lambda again: self.drivers.start(named, name, again), retry_failed)
        self._handles[name] = handle
        return handle

    def open(self, name: str) -> RunHandle:
        """A run of the storage, whoever started it, and whether it goes on or not.

        Raises:
            TsalignError: there is none of that name; the message lists the nearest ones.
        """
        if name not in self._handles:
            self._handles[name] = self._handle(find_run(name, self.storage))
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
        numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(one for one in numbered if not (resolve(self.storage) / one).exists())

    def _handle(self, folder: UPath) -> RunHandle:
        return RunHandle(folder, self.drivers, self._start_ray)

    def _start_ray(self) -> None:
        self._own_ray = start_ray() or self._own_ray

    def _repr_html_(self) -> Html:
        rows = [
            (line["run"], line["recipe"], badge(line["status"]), *_started(line), _headline(line))
            for line in list_runs(self.storage)
        ]
        headers = ("run", "recipe", "status", "started", "iterations", "result")
        return together(tag("div", tag("b", "runs in "), self.storage), table(headers, rows) if rows else "none yet")

    def __repr__(self) -> str:
        lines = [
            "  ".join((f"{line['run']:<32}", f"{line['status']:<8}", *map(str, _started(line)), _headline(line)))
            for line in list_runs(self.storage)
        ]
        return "\n".join([f"runs in {self.storage}", *(lines or ["none yet"])])


def _drivers(address: str | None, package: bool) -> Drivers:
    if address is None:
        return Here()
    from tsalign.session.cluster import Cluster

    return Cluster(address, package)


def _started(line: dict[str, Any]) -> tuple[str, int]:
    return line["started"][:16].replace("T", " "), line["iterations_done"]


def _headline(line: dict[str, Any]) -> str:
    first = next((f"{name} {shown(value)}" for name, value in line["results"].items()), "")
    return first or str(line.get("error", ""))
