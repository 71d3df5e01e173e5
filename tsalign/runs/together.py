"""Stages whose work is done together: each brings its part, and all parts are done by one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

DoAll = Callable[[Sequence[Any]], None]


class Missing(Exception):
    """A stage beside failed before it brought its part; the run ends by its error, not by this one."""


class Together:
    """Seats for stages that run in threads; when each seat has its part or is left, all parts are done at once."""

    def __init__(self) -> None:
        self._seats, self._closed, self._done = 0, False, False
        self._parts: dict[int, Any] = {}
        self._left: set[int] = set()
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def seat(self) -> Seat:
        """A place for one more stage, after those that have one."""
        self._seats += 1
        return Seat(self, self._seats - 1)

    def close(self) -> None:
        """There will be no more seats."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _complete(self) -> bool:
        return self._error is not None or (self._closed and len(self._parts) + len(self._left) == self._seats)

    def bring(self, seat: int, part: Any, do_all: DoAll) -> None:
        """Wait for the parts of all seats; then all are done, once, in the order of the seats."""
        with self._changed:
            self._parts[seat] = part
            self._changed.notify_all()
            self._changed.wait_for(self._complete)
            leads = self._error is None and seat == min(self._parts)
        if leads:
            self._lead(do_all)
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._error)
        if self._error:
            raise self._error

    def _lead(self, do_all: DoAll) -> None:
        try:
            do_all([self._parts[seat] for seat in sorted(self._parts)])
        except BaseException as error:
            self._error = error
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def leave(self, seat: int, failed: bool) -> None:
        """A stage has ended: with nothing to do, or by an error."""
        with self._changed:
            self._left |= {seat} - self._parts.keys()
            if failed and not self._error:
                self._error = Missing()
            self._changed.notify_all()


@dataclass(frozen=True)
class Seat:
    """One stage's place among those that are done together."""

    together: Together
    number: int

    def bring(self, part: Any, do_all: DoAll) -> None:
        """Do all parts, this stage's among them, as soon as the others are there.

        Raises:
            Missing: a stage beside failed.
            BaseException: what `do_all` raised, in every stage.
        """
        self.together.bring(self.number, part, do_all)

    def leave(self, failed: bool) -> None:
        """The stage has ended, whether or not it brought a part."""
        self.together.leave(self.number, failed)


class Streamed:
    """The stages of an iteration that are streamed: those of a row are done together, when the row is closed."""

    def __init__(self) -> None:
        self.doing: list[Future[Any]] = []
        self._row: Together | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Streamed:
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def seat(self) -> Seat:
        """A seat in the row that is open."""
        self._row = self._row or Together()
        return self._row.seat()

    def close(self) -> list[Future[Any]]:
        """Close the row; all that was ever streamed, done or not."""
        with self._lock:
            if self._row:
                self._row.close()
            self._row = None
            return list(self.doing)
