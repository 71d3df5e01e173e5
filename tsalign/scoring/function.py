"""Any Python function as a scorer: `module:function`."""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from upath import UPath

from tsalign.common import registry
from tsalign.common.errors import TsalignError
from tsalign.common.registry import attribute
from tsalign.runs.artifacts import content_fingerprint, fingerprint
from tsalign.runs.plan import Plan
from tsalign.scoring import SCORERS, Item, LoadedScorer, Scorer


@dataclass(frozen=True)
class PythonFunction(Scorer):
    """Calls `function(prompt: list of messages, completion: str) -> float` for each item."""

    function: str

    @property
    def fingerprint(self) -> str:
        """Of its name and its module's file: a judge that was changed judges anew."""
        module = find_spec(self.function.partition(":")[0])
        origin = module.origin if module else None
        return fingerprint(self.function, content_fingerprint([UPath(origin)]) if origin else "")

    @property
    def who(self) -> str:
        """No model."""
        return ""

    def check(self, plan: Plan) -> None:
        """That it can be imported and called."""
        with plan.checking("evaluation.judge"):
            self.load()

    def load(self) -> Loaded:
        """A function from items to scores.

        Raises:
            TsalignError: no such module or function, or it does not take a prompt and a completion.
        """
        return Loaded(self.function)


class Loaded(LoadedScorer):
    """Holds the imported function. Where it raises, or returns no number, the item has no score, and the reason."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.function = attribute(name)
        except Exception as error:  # whatever a module of somebody else's raises when it is imported
            raise TsalignError(f"judge {name!r}: {_why(name, error)}") from error
        self.where = f"judge {name!r}{_place(self.function)}"
        if problem := _mismatch(self.function):
            raise TsalignError(f"{self.where}: {problem}; it is called with (prompt, completion).")

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score per item."""
        return [self._score(index, item) for index, item in enumerate(items)]

    def _score(self, index: int, item: Item) -> float | None:
        try:
            given = self.function(item.prompt, item.completion)
        except TsalignError:
            raise
        except Exception as error:  # whatever a function of somebody else's raises: the row fails, not the run
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.reasons[index] = f"{self.where} raised {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
            return None
        try:
            return float(_number(given))
        except (TypeError, ValueError, OverflowError, RuntimeError):  # also tensors of several numbers
            self.reasons[index] = f"{self.where} returned {given!r:.80}, expected a number"
            return None


def _why(name: str, error: Exception) -> str:
    """Why a name is no function, and what it may have meant."""
    known = registry.names("scorers", SCORERS)
    near = difflib.get_close_matches(name.partition(":")[0], known, 1)
    meant = f"did you mean {near[0]}:<model>?" if near else f"expected module:function, or {', '.join(known)}:<model>."
    told = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
    return f"{told}; {meant}"


def _number(given: Any) -> Any:
    """What was returned; text is no number, even where it reads like one.

    Raises:
        TypeError: it is text.
    """
    if isinstance(given, str | bytes | bytearray):
        raise TypeError
    return given


def _place(function: Any) -> str:
    """Where a function stands, as ` (file:line)`; nothing for one that is not Python's."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def _mismatch(function: Callable[..., Any]) -> str:
    """Why a function cannot be called with a prompt and a completion, where that can be known beforehand."""
    if not callable(function):
        return f"a {type(function).__name__}, not a function"
    try:
        inspect.signature(function).bind([], "")
    except TypeError as error:
        return str(error)
    except ValueError:  # a function in C without a signature
        pass
    return ""
