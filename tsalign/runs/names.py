"""What a stage's actors are called where people look: in logs, in Ray's dashboard, by `ray list actors`."""

from __future__ import annotations

import secrets
import sys
from typing import Any

from ray._private.ray_constants import LOG_PREFIX_ACTOR_NAME

from tsalign.runs.stage import Stage


def title(stage: Stage) -> str:
    """Such as `quickstart/1/candidates`."""
    return f"{stage.run}/{stage.name}"


def named(actor: type, stage: Stage) -> dict[str, Any]:
    """What Ray Data's `map_batches` is given so that its actors, and their log lines, carry the stage's title."""
    return {
        "fn": type(title(stage), (actor,), {}),  # it calls its actors' class after this one
        "ray_remote_args_fn": lambda: {"name": f"{title(stage)}-{secrets.token_hex(4)}"},
    }


def sign_log(title: str) -> None:
    """Have Ray put this title before the lines of this worker's log, in place of its actor's class."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.write(f"{LOG_PREFIX_ACTOR_NAME}{title}\n")
            stream.flush()
