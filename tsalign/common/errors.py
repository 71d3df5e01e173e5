"""The one exception for what a user can fix, and how it comes back from an actor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TsalignError(Exception):
    """Bad input or a missing piece: the message names the file, line or key, what was expected, and how to fix it."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the message alone, as the terminal does."""
        return [f"{type(self).__name__}: {self}"]


@contextmanager
def surfaced() -> Iterator[None]:
    """Re-raise a `TsalignError` that was raised in an actor as itself, without Ray's wrapping."""
    try:
        yield
    except Exception as error:
        if (ours := _original(error)) is not None:
            raise TsalignError(str(ours)) from None
        raise


def _original(error: BaseException | None) -> TsalignError | None:
    """The `TsalignError` at the root of what Ray Core, Ray Data or Ray Train raised."""
    # What Ray Core re-raises is of a class made from both RayTaskError and ours; its cause is the original.
    if error is None or type(error) is TsalignError:
        return error
    # Ray Train's ControllerError carries what one of its callbacks raised.
    inner = [getattr(error, "controller_failure", None), getattr(error, "cause", None), error.__cause__]
    return next(filter(None, map(_original, inner)), None)
