"""What ends a run from outside: SIGTERM as Ctrl-C, and errors that other threads find while the main one waits."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("tsalign")


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


class Interrupts:
    """Raises in the main thread: `Terminated` on SIGTERM, and whatever `interrupt` is given."""

    def __init__(self) -> None:
        self._pending: list[Exception] = []
        self._armed = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """For the length of the block; nested again after code that sets handlers of its own, as `ray.init` does.

        Only the main thread gets signals: elsewhere nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, outer = signal.signal(signal.SIGTERM, self._raise), self._armed
        self._armed = True
        try:
            yield
        finally:
            self._armed = outer
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def interrupt(self, error: Exception) -> None:
        """Have `error` raised in the main thread, from any thread; where that is not the driver's, it is only told."""
        self._pending.append(error)
        if self._armed:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        else:
            logger.error("%s", error)

    def _raise(self, signum: int, frame: Any) -> None:
        raise self._pending[0] if self._pending else Terminated
