"""Any Python function as a scorer: `module:function`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from tsalign.errors import TsalignError

if TYPE_CHECKING:
    from tsalign.scoring import Item


@dataclass(frozen=True)
class PythonFunction:
    """Calls `function(prompt: list of messages, completion: str) -> float` for each item."""

    function: str

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """A function from items to scores.

        Raises:
            TsalignError: no such module or function.
        """
        module, _, name = self.function.partition(":")
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise TsalignError(
                f"judge {self.function!r}: {error}; expected module:function or reward_model:<model>."
            ) from error
        return lambda items: [float(function(item.prompt, item.completion)) for item in items]
