"""tsalign: align language models with a teacher, on Ray."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsalign.api import resume, run
    from tsalign.common.errors import TsalignError
    from tsalign.session import Session

__all__ = ["Session", "TsalignError", "resume", "run"]

PLACES = {
    "Session": "tsalign.session",
    "TsalignError": "tsalign.common.errors",
    "resume": "tsalign.api",
    "run": "tsalign.api",
}

# Ray reads it when it is imported. The line that it leaves out warns of many actors on few CPUs; they take turns.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started")


def __getattr__(name: str) -> Any:
    # Imported at first use, so that `tsalign --help` does not wait for pydantic and Ray.
    if name in PLACES:
        return getattr(import_module(PLACES[name]), name)
    raise AttributeError(f"module 'tsalign' has no attribute {name!r}")
