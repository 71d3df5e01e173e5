"""A run: its directory, its ledger, and the rule that a finished stage is never done twice."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil
import yaml
from upath import UPath

from tsalign.config import RunConfig
from tsalign.errors import TsalignError
from tsalign.runs import loggers
from tsalign.runs.artifacts import Dataset, Model, Rubrics, fingerprint
from tsalign.runs.ledger import Ledger
from tsalign.runs.stage import Stage, console, progress_display
from tsalign.storage import append_line, remove, resolve, write_json
from tsalign.versions import provenance

HEARTBEAT_SECONDS = 10.0
A = TypeVar("A", Dataset, Model, Rubrics)
T = TypeVar("T")


class Run:
    """The driver's handle on a run directory. Recipes call `stage` and `iterations`."""

    def __init__(self, config: RunConfig, name: str) -> None:
        self.config, self.name = config, name
        self.dir = resolve(config.storage) / name
        self.ledger = Ledger(self.dir / "ledger.jsonl")
        self._lock = threading.Lock()
        self._overlapping: list[Future[Any]] = []

    def finished(self) -> bool:
        """Whether this very config, wherever its storage is mounted, was run to its end."""
        path = self.dir / "config.yaml"
        done = status(self.dir) == "done" and {**yaml.safe_load(path.read_text()), "storage": self.config.storage}
        return bool(done == self._content())

    def _content(self) -> dict[str, Any]:
        return {**self.config.model_dump(mode="json"), "run": self.name}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Mark the run as running, keep its heartbeat, and record how it ended.

        Raises:
            TsalignError: another driver is running it.
        """
        if status(self.dir) == "running":
            raise TsalignError(f"run {self.name} is running already in another process; stop that one first.")
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "config.yaml").write_text(yaml.safe_dump(self._content(), sort_keys=False))
        write_json(self.dir / "provenance.json", provenance())
        self.ledger.append(run="started", pid=os.getpid(), host=socket.gethostname())
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(self.dir / "heartbeat", stop), daemon=True)
        beat.start()
        self.sinks = loggers.open_sinks(self.config.loggers, self.dir, self.name)
        try:
            with progress_display, ThreadPoolExecutor() as self._threads:
                yield
                self.wait()
        except KeyboardInterrupt:
            self.ledger.append(run="stopped")
            raise
        except BaseException as error:
            self.ledger.append(run="failed", error=f"{type(error).__name__}: {error}"[:2000])
            raise
        else:
            self.ledger.append(run="done")
        finally:
            stop.set()
            beat.join()
            for sink in self.sinks:
                sink.close()

    def stage(self, name: str, function: Callable[..., A], *args: Any, **kwargs: Any) -> A:
        """Do one stage outside the iterations, or return what it made before. See `Iteration.stage`."""
        return self._stage(0, name, self.dir / name, function, args, kwargs)

    def overlap(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Start `function` beside what follows; `result()` of what is returned waits for it.

        For stages that need not wait for each other: Ray places what fits, the rest waits for resources.
        """
        future = self._threads.submit(function, *args, **kwargs)
        self._overlapping.append(future)
        return future

    def wait(self) -> None:
        """Wait for all that overlaps, and raise what it raised."""
        for future in self._overlapping:
            future.result()

    def iterations(self, count: int) -> Iterator[Iteration]:
        """The rounds of a recipe, numbered from 1."""
        for number in range(1, count + 1):
            yield Iteration(self, number)

    def log(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None:
        """Append metrics to `metrics.jsonl` and to the configured sinks."""
        with self._lock:
            append_line(
                self.dir / "metrics.jsonl",
                {"iteration": iteration, "stage": stage, "time": time.time(), **metrics},
            )
            for sink in self.sinks:
                sink.write(iteration, stage, metrics)

    def _stage(
        self,
        iteration: int,
        name: str,
        out: UPath,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        full = f"{iteration}/{name}" if iteration else name
        known = fingerprint(function.__qualname__, self.config.seed, full, list(args), kwargs)
        if (past := self.ledger.last(full)) and past["fingerprint"] == known and past["state"] == "done":
            if UPath(past["output"]["path"]).exists():
                return _artifact(past["output"])
        elif past and past["fingerprint"] != known:
            remove(out)
        counts: dict[str, Any] = {}

        def log(metrics: dict[str, Any]) -> None:
            counts.update({key: value for key, value in metrics.items() if isinstance(value, int | float)})
            self.log(iteration, name, metrics)

        stage = Stage(
            run=self.name,
            name=full,
            iteration=iteration,
            fingerprint=known,
            seed=self.config.seed,
            out=out,
            work=out.parent / f".{out.name}-{known}",
            quarantine=self.dir / "quarantine" / full.replace("/", "-"),
            resources=self.config.resources,
            log=log,
        )
        inputs = {f"{i}": _lineage(value) for i, value in enumerate(args)} | {k: _lineage(v) for k, v in kwargs.items()}
        self._record(stage=full, state="started", fingerprint=known, inputs=inputs)
        start = time.monotonic()
        try:
            output = function(stage, *args, **kwargs)
        except BaseException as error:
            self._record(
                stage=full,
                state="failed",
                fingerprint=known,
                seconds=_since(start),
                error=f"{error!r}"[:2000],
            )
            raise
        seconds = _since(start)
        self._record(
            stage=full,
            state="done",
            fingerprint=known,
            output={"kind": type(output).__name__, **vars(output)},
            seconds=seconds,
            counts=counts,
        )
        console.print(f"[green]✓[/] {full:<28} {seconds:7.1f} s   {_line(counts)}", highlight=False, soft_wrap=True)
        return output

    def _record(self, **entry: Any) -> None:
        with self._lock:
            self.ledger.append(**entry)


class Iteration:
    """One round of a recipe."""

    def __init__(self, run: Run, number: int) -> None:
        self.run, self.number = run, number

    def stage(self, name: str, function: Callable[..., A], *args: Any, **kwargs: Any) -> A:
        """Do `function(stage, *args, **kwargs)` into `iterations/<n>/<name>`, or return what it made before.

        It is skipped when the ledger has it done with the same function, arguments and input fingerprints;
        it continues from its partial output when it was cut; it starts afresh when any of them changed.
        """
        out = self.run.dir / "iterations" / str(self.number) / name
        return self.run._stage(self.number, name, out, function, args, kwargs)


def status(folder: UPath) -> str:
    """`running`, `done`, `failed` or `stopped`, for a run directory."""
    state = Ledger(folder / "ledger.jsonl").run_state()
    if state is None or state["run"] != "started":
        return state["run"] if state else "stopped"
    if state["host"] == socket.gethostname():
        return "running" if psutil.pid_exists(state["pid"]) and state["pid"] != os.getpid() else "stopped"
    beat = folder / "heartbeat"
    fresh = beat.exists() and time.time() - float(beat.read_text()) < 6 * HEARTBEAT_SECONDS
    return "running" if fresh else "stopped"


def _beat(path: UPath, stop: threading.Event) -> None:
    while True:
        path.write_text(str(time.time()))
        if stop.wait(HEARTBEAT_SECONDS):
            return


def _artifact(output: dict[str, Any]) -> Dataset | Model | Rubrics:
    kind = {"Dataset": Dataset, "Model": Model, "Rubrics": Rubrics}[output["kind"]]
    return kind(**{key: value for key, value in output.items() if key != "kind"})


def _lineage(value: Any) -> Any:
    known = getattr(value, "fingerprint", None)
    return {"path": getattr(value, "path", None), "fingerprint": known} if known else fingerprint(value)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


def _line(counts: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.6g}" for key, value in list(counts.items())[:6])
