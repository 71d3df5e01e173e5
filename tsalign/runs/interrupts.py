"""What ends a run from outside: SIGTERM as Ctrl-C, and errors that other threads find while the main one waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


class Interrupts:
    """Raises in the main thread: `Terminated` on SIGTERM, and whatever `interrupt` is given."""

    def __init__(self) -> None:
        self._pending: list[Exception] = []

    @contextmanager
    def armed(self) -> Iterator[None]:
        """For the length of the block; nested again after code that sets handlers of its own, as `ray.init` does.

        Only the main thread gets signals: elsewhere nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._raise)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def interrupt(self, error: Exception) -> None:
        """Have `error` raised in the main thread, from any thread."""
        self._pending.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _raise(self, signum: int, frame: Any) -> None:
        raise self._pending[0] if self._pending else Terminated
