"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

# Called with the amount of work that got done since the last call.
Advance = Callable[[float], None]


def unseen(amount: float) -> None:
    """The report of work without a progress bar."""


def out_of(total: int, report: Advance) -> Advance:
    """A report of counts that passes them on as shares of `total`."""
    return lambda count: report(count / max(1, total))
