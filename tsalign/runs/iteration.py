"""One round of a recipe, and the stages that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upath import UPath

from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage_function import A, P, StageFunction
from tsalign.runs.together import Streamed

if TYPE_CHECKING:
    from tsalign.runs.run import Run


@dataclass(frozen=True)
class Call:
    """A stage that a recipe asks for: `function(stage, *args, **kwargs)`, made in `out`."""

    iteration: int
    name: str
    out: UPath
    function: StageFunction[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def full(self) -> str:
        """Its name in the run."""
        return f"{self.iteration}/{self.name}" if self.iteration else self.name


class Iteration:
    """One round of a recipe."""

    def __init__(self, run: Run, number: int, streaming: bool) -> None:
        self.run, self.number, self.streaming = run, number, streaming
        self.streamed = Streamed()

    def stage(self, name: str, function: StageFunction[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Do `function(stage, *args, **kwargs)` into `iterations/<n>/<name>`, or return what it made before.

        It is skipped when the ledger has it done with the same function, arguments and input fingerprints;
        it continues from its partial output if it was interrupted; it starts afresh if any of them changed.
        """
        self.run._flow(self)
        made: A = self.run._stage(self.call(name, function, args, kwargs))
        return made

    def stream(self, name: str, function: StageFunction[P, Dataset], *args: P.args, **kwargs: P.kwargs) -> Dataset:
        """As `stage`; where the run is streaming, what is streamed in a row is one pipeline over the shards.

        What this returns is then yet to be made: it is there for the next call of `stage`.
        """
        if not self.streaming:
            return self.stage(name, function, *args, **kwargs)
        return self.run._stream(self, self.call(name, function, args, kwargs))

    def call(self, name: str, function: StageFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """A stage of this iteration, and where it is made."""
        return Call(self.number, name, self.run.dir / "iterations" / str(self.number) / name, function, args, kwargs)
