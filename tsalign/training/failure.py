"""A training that cannot succeed ends at once: Ray Train starts workers anew only for what may pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train import UserCallback
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import atomic, remove


@contextmanager
def recorded(file: UPath) -> Iterator[None]:
    """In a worker: leave the message of a `TsalignError` in `file`, since Ray Train hands on tracebacks only."""
    try:
        yield
    except TsalignError as error:
        with atomic(file) as temporary:
            temporary.write_text(str(error))
        raise


class FailFast(UserCallback):
    """In Ray Train's controller: a worker that recorded a `TsalignError` is not started again."""

    def __init__(self, file: UPath) -> None:
        remove(file)  # of an earlier try
        self.file = file

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise what was recorded: Ray Train retries failures of workers, but not those of callbacks."""
        if self.file.exists():
            raise TsalignError(self.file.read_text())
