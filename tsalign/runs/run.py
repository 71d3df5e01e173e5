"""A run: its directory, its ledger, and the rule that a finished stage is never done twice."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, overload

import yaml
from rich.markup import escape

from tsalign.common.errors import TsalignError
from tsalign.common.storage import append_line, remove, resolve, write_json, write_text
from tsalign.common.versions import provenance
from tsalign.config import EndpointConfig, ModelConfig, RunConfig, read_yaml
from tsalign.runs import loggers, outputs
from tsalign.runs.artifacts import Dataset, Endpoint, Model, fingerprint, writer_from
from tsalign.runs.changes import changes, inputs_of
from tsalign.runs.interrupts import Interrupts, Terminated
from tsalign.runs.iteration import Call, Iteration
from tsalign.runs.lease import leased
from tsalign.runs.ledger import Ledger
from tsalign.runs.progress import written
from tsalign.runs.reader import Reader
from tsalign.runs.report import warnings_of
from tsalign.runs.serving import Serving
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import A, P, StageFunction
from tsalign.runs.status import status
from tsalign.runs.terminal import Bar, Display, console
from tsalign.runs.threads import Threads
from tsalign.runs.together import Missing, Seat

CLOSING_SECONDS = 1.0  # for threads to end whose Ray is gone
MADE = ("iterations", "prompts", "quarantine", "metrics.jsonl")  # what only stages make

T = TypeVar("T")


class Cancelled(Exception):
    """The run has ended; a stage that was about to begin beside it does not."""


def no_session(lost: Callable[[Exception], None], busy: Callable[[], bool]) -> AbstractContextManager[None]:
    """For runs whose stages need no Ray, or one that is there already."""
    return nullcontext()


class Run:
    """The driver's handle on a run directory. Recipes call `stage` and `iterations`.

    Stages run in threads, so that the main one can end the run at any moment: on an error of any of them, on Ctrl-C,
    on SIGTERM, and when Ray is lost.

    Args:
        retry_failed: when a stage resumes, ask again also for rows that were answered badly.
    """

    def __init__(self, config: RunConfig, name: str, retry_failed: bool = False) -> None:
        self.config, self.name, self.retry_failed = config, name, retry_failed
        self.dir = resolve(config.storage) / name
        self.ledger = Ledger(self.dir / "ledger.jsonl")
        self._lock = threading.RLock()
        self._threads, self._interrupts, self._display = Threads(), Interrupts(), Display(name)
        self._over = False

    def finished(self) -> bool:
        """Whether this very config, wherever its storage is mounted, was run to its end, and all of it is there."""
        if status(self.dir) != "done":
            return False
        before = read_yaml(self.dir / "config.yaml")
        whole = all(outputs.whole(entry, self.dir) for entry in self.ledger.done().values())
        return whole and {**before, "storage": self.config.storage} == self._content()

    def _content(self) -> dict[str, Any]:
        return {**self.config.model_dump(mode="json"), "run": self.name}

    @contextmanager
    def open(
        self,
        session: Callable[[Callable[[Exception], None], Callable[[], bool]], AbstractContextManager[None]] = no_session,
    ) -> Iterator[None]:
        """Hold the run's lease and a session of Ray, and record how the run ended.

        However it ends, what overlaps ends with it: no stage begins any more, and those at work are cut off when the
        session closes.

        Args:
            session: made with a function that records an error as the end, and one that says whether stages are
                still at work.

        Raises:
            TsalignError: another driver is running it, or its ledger is gone.
        """
        with self._interrupts.armed(), leased(self.dir, self._interrupts.interrupt):
            self._begin()
            try:
                with session(self._end, self._threads.busy), self._interrupts.armed(), self._shown():
                    try:
                        yield
                        self.wait()
                    except BaseException as error:
                        self._end(error)
                        raise
                self._end(None)
            except BaseException as error:
                self._end(error)
                raise
            finally:
                self._threads.join(CLOSING_SECONDS)
                for sink in self.sinks:
                    sink.close()

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Show how far its stages are, in the terminal and to who follows the run from elsewhere."""
        with self._display, written(self.dir, self._display.at_work):
            yield

    def _begin(self) -> None:
        self._over, self._threads = False, Threads()
        self.ledger = Ledger(self.dir / "ledger.jsonl")
        if not self.ledger.entries and (made := [one.name for one in self.dir.iterdir() if one.name in MADE]):
            raise TsalignError(
                f"run {self.name}: {self.ledger.path} is gone, but {made[0]} is there: what of it is finished cannot "
                "be told any more. Restore the ledger, or choose another name for the run."
            )
        write_text(self.dir / "config.yaml", yaml.safe_dump(self._content(), sort_keys=False))
        write_json(self.dir / "provenance.json", provenance())
        self._record(run="started", pid=os.getpid(), host=socket.gethostname())
        self.sinks = loggers.open_sinks(self.config.loggers, self.dir, self.name)

    def _end(self, error: BaseException | None) -> None:
        """Record how the run ended, the first time that it is called; no stage begins any more."""
        with self._lock:
            if self._over:
                return
            self._over = True
        if error is None:
            self._record(run="done")
        elif isinstance(error, KeyboardInterrupt):
            self._record(run="stopped", error="SIGTERM" if isinstance(error, Terminated) else "Ctrl-C")
        else:
            self._record(run="failed", error=f"{type(error).__name__}: {error}"[:2000])

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
        made: A = self._stage(Call(0, name, self.dir / name, function, args, kwargs))
        return made

    def overlap(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Start `function` beside what follows; `result()` of what is returned waits for it.

        For stages that need not wait for each other: Ray places what fits, the rest waits for resources. If it fails,
        so does the stage that runs meanwhile, or the next one.
        """
        return self._threads.start(function, *args, **kwargs)

    def wait(self) -> None:
        """Wait for all that overlaps, and raise what it raised."""
        self._threads.wait_for()

    def iterations(self, count: int, streaming: bool = False) -> Iterator[Iteration]:
        """The rounds of a recipe, numbered from 1.

        Args:
            streaming: whether stages that are streamed are done at once; see `Iteration.stream`.
        """
        for number in range(1, count + 1):
            iteration = Iteration(self, number, streaming)
            yield iteration
            self._flow(iteration)

    def log(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None:
        """Append metrics to `metrics.jsonl` and to the configured sinks."""
        with self._lock:
            append_line(
                self.dir / "metrics.jsonl",
                {"iteration": iteration, "stage": stage, "time": time.time(), **metrics},
            )
            for sink in self.sinks:
                sink.write(iteration, stage, metrics)

    def _stage(self, call: Call) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return self._in_turn(call)
        doing = self._threads.start(self._in_turn, call)
        self._threads.wait_for(doing)
        return doing.result()

    def _stream(self, iteration: Iteration, call: Call) -> Dataset:
        """Start a stage that is done together with those that are streamed beside it; what it will make."""
        with iteration.streamed as streamed:
            streamed.doing.append(self._threads.start(self._seated, call, streamed.seat()))
        return Dataset(str(call.out), self._known(call)[0])

    def _flow(self, iteration: Iteration) -> None:
        """Have all that is streamed done, and wait for it."""
        doing = iteration.streamed.close()
        if threading.current_thread() is threading.main_thread() and doing:
            self._threads.wait_for(*doing)
        for one in doing:
            one.result()

    def _seated(self, call: Call, seat: Seat) -> Any:
        failed = True
        try:
            made = self._in_turn(call, seat)
            failed = False
            return made
        finally:
            seat.leave(failed)

    def _known(self, call: Call) -> tuple[str, dict[str, str]]:
        """The fingerprint by which the stage is found when it is done, and those of the files that it reads."""
        function, args, kwargs = call.function, call.args, call.kwargs
        files = self._contents(call.full, function.files(*args, **kwargs))
        whole = fingerprint(function.name, function.version, self.config.seed, call.full, list(args), kwargs, files)
        return whole, files

    def _in_turn(self, call: Call, seat: Seat | None = None) -> Any:
        full, out, (known, files) = call.full, call.out, self._known(call)
        inputs = inputs_of(call.function.do, call.args, call.kwargs, self.config, files)
        past = self.ledger.last(full)
        if past and past["fingerprint"] == known and past["state"] == "done":
            if outputs.whole(past, self.dir):
                console.print(f"[dim]· {full:<24} done before[/]", highlight=False)
                return outputs.found(past, self.dir)
            outputs.drop_damaged(out)
        counts: dict[str, Any] = {}

        def log(metrics: dict[str, Any]) -> None:
            counts.update({key: value for key, value in metrics.items() if isinstance(value, int | float)})
            self.log(call.iteration, call.name, metrics)

        with Bar(full, self._display) as bar:
            stage = Stage(
                run=self.name,
                name=full,
                iteration=call.iteration,
                fingerprint=known,
                seed=self.config.seed,
                out=out,
                work=out.parent / f".{out.name}-{known}",
                quarantine=self.dir / "quarantine" / full.replace("/", "-"),
                resources=self.config.resources,
                log=log,
                max_failed_fraction=self.config.max_failed_fraction,
                retry_failed=self.retry_failed,
                bar=bar,
                seat=seat,
            )
            anew = self._clear(stage, past, call.function, inputs)
            return self._do(stage, counts, call, {"inputs": inputs, **anew})

    def _contents(self, stage: str, files: dict[str, str]) -> dict[str, str]:
        """The fingerprints of what a stage reads; of files that are gone, those of when it last began."""
        began = self.ledger.inputs(stage)
        return {place: known or began.get(place, {}).get("fingerprint", "") for place, known in files.items()}

    def _clear(
        self, stage: Stage, past: dict[str, Any] | None, function: StageFunction[..., Any], inputs: dict[str, Any]
    ) -> dict[str, str]:
        """Remove what other inputs left behind; why the stage is done anew, where it was begun or done before."""
        if past is None or (past["fingerprint"] == stage.fingerprint and past["state"] != "done"):
            return {}
        if past["fingerprint"] == stage.fingerprint:
            why = f"{stage.out} is not whole any more"
        else:
            remove(stage.out)
            why = (
                changes(self.ledger.inputs(stage.name), inputs)
                or f"the seed, or the version of {function.name}, changed"
            )
        console.print(f"[yellow]·[/] {stage.name:<24} done anew: {escape(why)}", highlight=False, soft_wrap=True)
        return {"anew": why}

    def _do(
        self,
        stage: Stage,
        counts: dict[str, Any],
        call: Call,
        begins: dict[str, Any],
    ) -> Any:
        """Do a stage, and record how it went."""
        known, measures = {"stage": stage.name, "fingerprint": stage.fingerprint}, call.function.measures
        if self._over:
            raise Cancelled(stage.name)
        self._record(**known, state="started", measures=measures, **begins)
        start = time.monotonic()
        try:
            made = call.function(stage, *call.args, **call.kwargs)
        except BaseException as error:
            # Once the run has ended, or a stage beside has failed, what a stage raises is only how it was cut off.
            cut_off = self._over or isinstance(error, Missing)
            how = {"state": "stopped"} if cut_off else {"state": "failed", "error": f"{error!r}"[:2000]}
            self._record(**known, **how, seconds=_since(start))
            raise
        seconds, told = _since(start), {"counts": counts, "phases": stage.phases, "measures": measures}
        self._record(**known, state="done", seconds=seconds, **outputs.kept(made, self.dir), **told)
        console.print(_line(stage, seconds, counts), highlight=False, soft_wrap=True)
        for warning in warnings_of(stage.out):
            console.print(f"warning: {stage.name}: {warning}", style="yellow", markup=False, soft_wrap=True)
        return made

    def _record(self, **entry: Any) -> None:
        with self._lock:
            self.ledger.append(**entry)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


def _line(stage: Stage, seconds: float, counts: dict[str, Any]) -> str:
    """A stage that is done: its seconds, those of its longest phase, and the first of its counts."""
    longest = max(stage.phases, key=lambda phase: stage.phases[phase], default=None)
    phase = f"{longest} {stage.phases[longest]:.1f} s" if longest else ""
    figures = "  ".join(f"{key} {value:.6g}" for key, value in list(counts.items())[:6])
    return f"[green]✓[/] {stage.name:<24} {seconds:7.1f} s  [dim]{phase:<14}[/]  {figures}"
