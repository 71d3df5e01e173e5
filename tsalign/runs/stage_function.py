"""Stage functions: what a recipe's steps are made of, each known in ledgers by a name and a version of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Concatenate, Generic, ParamSpec, TypeVar

from tsalign.runs.artifacts import Dataset, Folder, Model
from tsalign.runs.plan import PlannedStage
from tsalign.runs.stage import Stage

P = ParamSpec("P")
A = TypeVar("A", Dataset, Model, Folder)


class StageFunction(Generic[P, A]):
    """A function of a `Stage` and its inputs, and beside it what it would make and need.

    Attributes:
        name, version: its identity in ledgers. Renaming or moving the function invalidates nothing; raising the
            version does.
        measures: whether its stages measure what a run came to, so that their cost is none of the alignment's.
    """

    def __init__(self, do: Callable[Concatenate[Stage, P], A], name: str, version: int, measures: bool) -> None:
        self.do: Callable[Concatenate[Stage, P], A] = do
        self.name, self.version, self.measures = name, version, measures
        self.__doc__ = do.__doc__
        self._expect: Callable[Concatenate[PlannedStage, P], A] | None = None
        self._reads: Callable[P, Mapping[str, str]] | None = None

    def __call__(self, stage: Stage, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return self.do(stage, *args, **kwargs)

    def expects(self, plan: Callable[Concatenate[PlannedStage, P], A]) -> Callable[Concatenate[PlannedStage, P], A]:
        """Register the decorated function, which says what this stage would make and need, and does nothing."""
        self._expect = plan
        return plan

    def reads(self, contents: Callable[P, Mapping[str, str]]) -> Callable[P, Mapping[str, str]]:
        """Register the decorated function: each location of the user's that the stage reads -> its fingerprint.

        It is empty where nothing is there any more; the stage is then known by what was there when it was done.
        """
        self._reads = contents
        return contents

    def files(self, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, str]:
        """What `reads` says for these arguments; part of the stage's own fingerprint."""
        return dict(self._reads(*args, **kwargs)) if self._reads else {}

    def expect(self, stage: PlannedStage, /, *args: P.args, **kwargs: P.kwargs) -> A:
        """What the stage would make; what it would need is noted in `stage`.

        Raises:
            NotImplementedError: no `expects` function is registered.
        """
        if self._expect is None:
            raise NotImplementedError(f"stage function {self.name}: add @{self.name}.expects, for `tsalign plan`")
        return self._expect(stage, *args, **kwargs)


def stage_function(
    name: str, version: int = 1, measures: bool = False
) -> Callable[[Callable[Concatenate[Stage, P], A]], StageFunction[P, A]]:
    """Make the decorated function a stage function.

    Args:
        name: unique, and never changed: finished stages are found by it.
        version: raised by who changes what the stage computes, so that finished ones are redone.
        measures: every stage of it measures; see also `measuring`.
    """

    def made(do: Callable[Concatenate[Stage, P], A]) -> StageFunction[P, A]:
        return StageFunction(do, name, version, measures)

    return made


def measuring(function: StageFunction[P, A]) -> StageFunction[P, A]:
    """The same function for a stage that measures, such as `sample` where the answers are an exam's."""
    measures = copy(function)
    measures.measures = True
    return measures
