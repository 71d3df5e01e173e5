"""A run: its directory, its ledger, and the rule that a finished stage is never done twice."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar, overload

import yaml
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import append_line, remove, resolve, write_json
from tsalign.common.versions import provenance
from tsalign.config import EndpointConfig, ModelConfig, RunConfig
from tsalign.runs import loggers
from tsalign.runs.artifacts import Dataset, Endpoint, Folder, Model, fingerprint, writer_from
from tsalign.runs.ledger import Ledger
from tsalign.runs.plan import Plan
from tsalign.runs.reader import Reader
from tsalign.runs.report import warnings_of
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import A, P, StageFunction
from tsalign.runs.status import heartbeat, status
from tsalign.runs.terminal import Bar, console, display

T = TypeVar("T")
S = TypeVar("S", covariant=True)


class Serving(Protocol[S]):
    """A service that a run deploys for the length of a `with` block, made from its config."""

    def __init__(self, config: Any) -> None: ...

    def __enter__(self) -> S:
        """What stages ask it with."""

    def __exit__(self, *error: object) -> None: ...

    @classmethod
    def expected(cls, config: Any, plan: Plan) -> S:
        """In a plan: what stages would ask it with; what it would need is noted in `plan`."""


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
            raise TsalignError(f"run {self.name} is already running in another process; stop that one first.")
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "config.yaml").write_text(yaml.safe_dump(self._content(), sort_keys=False))
        write_json(self.dir / "provenance.json", provenance())
        self.ledger.append(run="started", pid=os.getpid(), host=socket.gethostname())
        self.sinks = loggers.open_sinks(self.config.loggers, self.dir, self.name)
        try:
            with heartbeat(self.dir), display, ThreadPoolExecutor() as self._threads:
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
            for sink in self.sinks:
                sink.close()

    @overload
    def model(self, config: ModelConfig, role: str) -> Model: ...
    @overload
    def model(self, config: EndpointConfig, role: str) -> Endpoint: ...
    @overload
    def model(self, config: ModelConfig | EndpointConfig, role: str) -> Model | Endpoint: ...
    def model(self, config: Any, role: str) -> Any:
        """The model that a role's config names; see `writer_from`."""
        return writer_from(config, role)

    def read(self, reader: Reader[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a reader makes of what the config names."""
        return reader(*args, **kwargs)

    def service(self, serving: type[Serving[T]], config: Any) -> AbstractContextManager[T]:
        """A service for the length of a `with` block, which gets what stages ask it with."""
        return serving(config)

    def stage(self, name: str, function: StageFunction[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Do one stage outside the iterations, or return what it made before. See `Iteration.stage`."""
        made: A = self._stage(0, name, self.dir / name, function, args, kwargs)
        return made

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
        function: StageFunction[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        full = f"{iteration}/{name}" if iteration else name
        known = fingerprint(function.name, function.version, self.config.seed, full, list(args), kwargs)
        if (past := self._past(full, known, out)) is not None:
            return past
        counts: dict[str, Any] = {}

        def log(metrics: dict[str, Any]) -> None:
            counts.update({key: value for key, value in metrics.items() if isinstance(value, int | float)})
            self.log(iteration, name, metrics)

        with Bar(full) as bar:
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
                bar=bar,
            )
            return self._do(stage, counts, function, args, kwargs)

    def _past(self, name: str, known: str, out: UPath) -> Any:
        """What the stage made before; None where it has to be done. What other inputs left behind is removed."""
        past = self.ledger.last(name)
        if past and past["fingerprint"] != known:
            remove(out)
        elif past and past["state"] == "done" and UPath(past["output"]["path"]).exists():
            return _artifact(past["output"])
        return None

    def _do(
        self,
        stage: Stage,
        counts: dict[str, Any],
        function: StageFunction[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Do a stage, and record how it went."""
        known = {"stage": stage.name, "fingerprint": stage.fingerprint}
        inputs = {f"{i}": _lineage(value) for i, value in enumerate(args)} | {k: _lineage(v) for k, v in kwargs.items()}
        self._record(**known, state="started", inputs=inputs)
        start = time.monotonic()
        try:
            made = function(stage, *args, **kwargs)
        except BaseException as error:
            self._record(**known, state="failed", seconds=_since(start), error=f"{error!r}"[:2000])
            raise
        seconds, output = _since(start), {"kind": type(made).__name__, **vars(made)}
        told = {"counts": counts, "phases": stage.phases, "measures": function.measures}
        self._record(**known, state="done", output=output, seconds=seconds, **told)
        console.print(_line(stage, seconds, counts), highlight=False, soft_wrap=True)
        for warning in warnings_of(stage.out):
            console.print(f"warning: {stage.name}: {warning}", style="yellow", markup=False, soft_wrap=True)
        return made

    def _record(self, **entry: Any) -> None:
        with self._lock:
            self.ledger.append(**entry)


class Iteration:
    """One round of a recipe."""

    def __init__(self, run: Run, number: int) -> None:
        self.run, self.number = run, number

    def stage(self, name: str, function: StageFunction[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Do `function(stage, *args, **kwargs)` into `iterations/<n>/<name>`, or return what it made before.

        It is skipped when the ledger has it done with the same function, arguments and input fingerprints;
        it continues from its partial output if it was interrupted; it starts afresh if any of them changed.
        """
        out = self.run.dir / "iterations" / str(self.number) / name
        made: A = self.run._stage(self.number, name, out, function, args, kwargs)
        return made


def _artifact(output: dict[str, Any]) -> Dataset | Model | Folder:
    kind: Any = {"Dataset": Dataset, "Model": Model, "Folder": Folder}[output["kind"]]
    return kind(**{key: value for key, value in output.items() if key != "kind"})


def _lineage(value: Any) -> Any:
    known = getattr(value, "fingerprint", None)
    return {"path": getattr(value, "path", None), "fingerprint": known} if known else fingerprint(value)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


def _line(stage: Stage, seconds: float, counts: dict[str, Any]) -> str:
    """A stage that is done: its seconds, those of its longest phase, and the first of its counts."""
    longest = max(stage.phases, key=lambda phase: stage.phases[phase], default=None)
    phase = f"{longest} {stage.phases[longest]:.1f} s" if longest else ""
    figures = "  ".join(f"{key} {value:.6g}" for key, value in list(counts.items())[:6])
    return f"[green]✓[/] {stage.name:<24} {seconds:7.1f} s  [dim]{phase:<14}[/]  {figures}"
