"""Any Python function as a scorer: `module:function`."""

from __future__ import annotations

from dataclasses import dataclass

from tsalign.common.errors import TsalignError
from tsalign.common.registry import attribute
from tsalign.scoring import Item, LoadedScorer, Scorer


@dataclass(frozen=True)
class PythonFunction(Scorer):
    """Calls `function(prompt: list of messages, completion: str) -> float` for each item."""

    function: str

    @property
    def who(self) -> str:
        """No model."""
        return ""

    def load(self) -> Loaded:
        """A function from items to scores.

        Raises:
            TsalignError: no such module or function.
        """
        return Loaded(self.function)


class Loaded(LoadedScorer):
    """Holds the imported function."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.function = attribute(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise TsalignError(f"judge {name!r}: {error}; expected module:function or reward_model:<model>.") from error

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score per item."""
        return [float(self.function(item.prompt, item.completion)) for item in items]
