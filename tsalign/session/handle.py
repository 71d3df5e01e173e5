"""A run, as a session has it at hand: followed, stopped and resumed from any process, and looked into."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import read_lines
from tsalign.config import SamplingConfig, read_yaml
from tsalign.data.sources import Message
from tsalign.report.attempts import place
from tsalign.report.summary import RunSummary, failure, summarise_run
from tsalign.runs import outputs
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.ledger import Ledger
from tsalign.runs.status import status
from tsalign.session import policies
from tsalign.session.cell import open_cell
from tsalign.session.datasets import as_ray
from tsalign.session.drivers import Driver, Drivers
from tsalign.session.pairs import Pairs, first_pairs
from tsalign.session.report import RunReport
from tsalign.session.state import State, state_of

if TYPE_CHECKING:
    import pandas
    import ray.data
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tsalign.report.plots import Picture

INTERRUPTED = "The wait was interrupted; the run goes on. wait() follows it again, stop() ends it."
COLOURED = re.compile(r"\x1b\[[\d;]*m")  # as Ray's errors are
SECONDS, REMOTE_SECONDS = 1.0, 5.0  # between two looks at a run's folder, here and in a bucket

A = TypeVar("A", Dataset, Model)


class RunHandle:
    """A run of a session, whoever drives it: all that it says is read from the run's folder.

    Attributes:
        dir: the run's folder.
        driver: the one that this session started last, if it did.
    """

    def __init__(self, folder: UPath, drivers: Drivers, start_ray: Callable[[], None]) -> None:
        self.dir, self.name = folder, folder.name
        self.driver: Driver | None = None
        self._drivers, self._start_ray = drivers, start_ray
        self._before: int | None = None  # entries of the ledger when a driver was started here

    def begin(self, start: Callable[[bool], Driver], retry_failed: bool = False) -> RunHandle:
        """Start a driver.

        Raises:
            TsalignError: one is at work.
        """
        if self.status == "running":
            raise TsalignError(f"run {self.name} is running; wait() follows it, stop() ends it.")
        self._before, self._start = len(self._ledger().entries), start
        self.driver = start(retry_failed)
        return self

    @property
    def status(self) -> str:
        """`running`, `done`, `failed` or `stopped`."""
        if self.driver and self.driver.running():
            return "running"
        return self._unrecorded() or status(self.dir)

    def _unrecorded(self) -> str:
        """How our driver ended, where it did so before it could record anything: failed or stopped."""
        if self.driver is None or len(self._ledger().entries) != self._before:
            return ""
        return self.driver.ending()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the run's end, and show how it goes on; interrupting the wait leaves the run alone.

        Args:
            timeout: seconds.

        Returns:
            `done`, `stopped`, or `running` after the timeout.

        Raises:
            TsalignError: the run failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        cell, seconds = open_cell(), REMOTE_SECONDS if self.dir.protocol else SECONDS
        try:
            while (now := self.status) == "running" and (deadline is None or time.monotonic() < deadline):
                cell.show(state_of(self.dir, now))
                time.sleep(seconds)
        except KeyboardInterrupt:
            cell.show(state_of(self.dir, "running", INTERRUPTED))
            raise
        cell.show(self.state())
        if now == "failed":
            raise TsalignError(self._why())
        return now

    def stop(self) -> str:
        """End the run where it is, so that it can be resumed; wait for that, and say how it ended."""
        ours = self.driver if self.driver and self.driver.running() else None
        if (driver := ours or self._drivers.find(self.dir)) is not None:
            driver.stop()
            while self.status == "running":
                time.sleep(0.2)
        return self.status

    def resume(self, retry_failed: bool = False) -> RunHandle:
        """Go on where the run ended; finished stages are not done again.

        Args:
            retry_failed: ask again also for failed rows that were answered badly.

        Raises:
            TsalignError: it is running.
        """
        start = self._start if self._unrecorded() else lambda again: self._drivers.resume(self.dir, again)
        return self.begin(start, retry_failed)

    def state(self) -> State:
        """How the run stands: its status, its stages with their seconds, and its results."""
        now = self.status
        return state_of(self.dir, now, self._why() if now == "failed" else "")

    @property
    def metrics(self) -> pandas.DataFrame:
        """Every logged number so far: a row for each report, with its `iteration`, `stage` and `time`."""
        import pandas as pd

        frame = pd.DataFrame(read_lines(self.dir / "metrics.jsonl"))
        return frame.assign(time=pd.to_datetime(frame["time"], unit="s")) if len(frame) else frame

    def candidates(self, iteration: int | None = None) -> ray.data.Dataset:
        """The completions that the policy wrote, a row for each prompt; of the last iteration that has some."""
        return self._rows("candidates", iteration)

    def preferences(self, iteration: int | None = None) -> ray.data.Dataset:
        """The preferences that were learnt from; of the last iteration that has some."""
        return self._rows("preferences", iteration)

    def dataset(self, stage: str) -> ray.data.Dataset:
        """The rows of any stage that makes some, by its name in the ledger, such as `1/scores`."""
        number, name = place(stage)
        return self._rows(name, number)

    def pairs(self, iteration: int | None = None, count: int = 5) -> Pairs:
        """The first preferences for reading: both texts side by side, with scores, flips marked."""
        return first_pairs(self._made(Dataset, "preferences", iteration)[1], count)

    def policy(self, iteration: int | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model that the last finished iteration made, in memory for inference, and its tokenizer."""
        engine = self._engine("policy", iteration)
        return engine.model, engine.tokenizer

    def sample(
        self,
        prompts: Sequence[str | list[Message]],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        iteration: int | None = None,
        role: str = "policy",
    ) -> list[str]:
        """What the policy answers, written in this process: for a few prompts, not for a data set.

        Args:
            prompts: each the user's text, or a conversation that ends with a user's turn.
            temperature, max_tokens: instead of those of the run's `sampling`.
            role: the stage that trained the writer: `student` for ARTE's.
        """
        config = self._config()
        sampling = SamplingConfig(**config.get("sampling") or config.get("answering") or {})
        drawn = {
            "temperature": sampling.temperature if temperature is None else temperature,
            "max_tokens": max_tokens or sampling.max_tokens,
            "top_p": sampling.top_p,
            "stop": sampling.stop,
        }
        system = config.get("data", {}).get("system")
        return policies.write(self._engine(role, iteration), prompts, drawn, system, seed)

    def plot(self) -> Picture:
        """The run as one picture: curves and bars of what its stages report, and the seconds."""
        from tsalign.report.plots import draw_run

        return draw_run(self.dir)

    def report(self) -> RunReport:
        """What `tsalign show` prints."""
        return RunReport(self.dir)

    def summary(self) -> RunSummary:
        """What `tsalign show --json` prints: results, reports, seconds and cost as plain data."""
        return summarise_run(self.dir)

    def _engine(self, role: str, iteration: int | None) -> Any:
        model = self._made(Model, role, iteration)[1]
        config = self._config()
        sampling = config.get("sampling") or config.get("answering") or {}
        return policies.engine_of(model, sampling.get("max_model_len", SamplingConfig().max_model_len))

    def _rows(self, name: str, iteration: int | None) -> ray.data.Dataset:
        stage, made = self._made(Dataset, name, iteration)
        self._start_ray()
        return as_ray(made, stage)

    def _made(self, kind: type[A], name: str, iteration: int | None) -> tuple[str, A]:
        """The newest stage of a name, or that of one iteration, and what it made.

        Raises:
            TsalignError: no such stage is done; why the run failed, where it did.
        """
        done = self._ledger().done()
        kinds = {stage: entry["output"]["kind"] for stage, entry in done.items()}
        named = {place(stage)[0]: stage for stage in done if place(stage)[1] == name and kinds[stage] == kind.__name__}
        number = max(named, default=None) if iteration is None else iteration
        if number in named:
            stage = named[number]
            made: A = outputs.found(done[stage], self.dir)  # type: ignore[assignment]
            return stage, made
        if (now := self.status) == "failed":
            raise TsalignError(self._why())
        wanted = f"{iteration}/{name}" if iteration else name
        has = ", ".join(stage for stage in done if kinds[stage] == kind.__name__) or "none yet"
        hint = "; wait() follows it" if now == "running" else ""
        raise TsalignError(f"run {self.name} ({now}{hint}): {wanted} is not done. Done, of that kind: {has}.")

    def _ledger(self) -> Ledger:
        return Ledger(self.dir / "ledger.jsonl")

    def _config(self) -> dict[str, Any]:
        return read_yaml(self.dir / "config.yaml")

    def _why(self) -> str:
        """Why the run failed: what the ledger says, or of a driver that did not come so far what it said."""
        if self.driver and self._unrecorded():
            return f"run {self.name} did not start: {self.driver.said()}"
        told = COLOURED.sub("", failure(self.dir) or "")
        ours = told.startswith("TsalignError: ")
        where = "" if ours or self.driver is None else f"\nIts driver's log has more: {self.driver.log}"
        return f"run {self.name} failed: {told.removeprefix('TsalignError: ')}{where}"

    def _repr_html_(self) -> str:
        return self.state()._repr_html_()

    def __repr__(self) -> str:
        return str(self.state())
