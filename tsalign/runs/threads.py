"""Work beside the driver's main thread: the first failure is found at once, and nothing outlives the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Daemon threads whose failures end what waits for any of them."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._futures: list[Future[Any]] = []
        self._failures: list[BaseException] = []
        self._ended = threading.Condition()

    def start(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Call `function` in a thread of its own."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                self._failures.append(error)
                future.set_exception(error)
            with self._ended:
                self._ended.notify_all()

        thread = threading.Thread(target=call, daemon=True)
        self._futures.append(future)
        self._threads.append(thread)
        thread.start()
        return future

    def wait_for(self, *wanted: Future[Any]) -> None:
        """Wait until all of `wanted` are done, or all there are where none is named.

        Raises:
            BaseException: what the first thread that fails raised, wanted or not.
        """
        with self._ended:
            self._ended.wait_for(lambda: self._failures or all(one.done() for one in wanted or self._futures))
        if self._failures:
            raise self._failures[0]

    def busy(self) -> bool:
        """Whether any thread is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, seconds: float) -> None:
        """Give all threads together that long to end."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
