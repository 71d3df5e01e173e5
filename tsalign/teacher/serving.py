"""What every teacher application shares: who may ask, how much may wait, and how replicas come and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.responses import JSONResponse

from tsalign.config import TeacherConfig
from tsalign.runs.meters import QueueMeter
from tsalign.runs.nodes import actor_options, size_of

RETRY_AFTER_SECONDS = 1
FLAWS, FLAW_CHARACTERS = 5, 200


class Body(BaseModel):
    """Part of a request. Unknown keys are errors, so that a typing mistake is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


class ChatMessage(Body):
    """One turn of a conversation."""

    role: str = Field(pattern="^[a-z_]+$")  # templates build control tokens of it
    content: str


# The guard asks for the token; this says so in the schema that `/docs` shows.
guarded: dict[str, Any] = {"dependencies": [Depends(HTTPBearer(auto_error=False))]}


def problem(status: int, message: str, headers: Mapping[str, str] | None) -> JSONResponse:
    """An error as FastAPI gives it."""
    return JSONResponse({"detail": message}, status, headers)


def flaws(error: RequestValidationError) -> str:
    """What is wrong with a body, by its place; nothing of what stands there is repeated."""
    found = [f"{'.'.join(map(str, flaw['loc'][1:])) or 'body'}: {flaw['msg']}" for flaw in error.errors()]
    more = f"; and {len(found) - FLAWS} more" if len(found) > FLAWS else ""
    return "; ".join(text[:FLAW_CHARACTERS] for text in found[:FLAWS]) + more


async def invalid(_: Request, error: Any) -> JSONResponse:
    """Handler of bodies that do not validate."""
    return problem(422, flaws(error), None)


class Admission:
    """Counts the sequences that a replica holds, and refuses what would be too many."""

    def __init__(self, limit: int) -> None:
        self.limit, self.pending, self._meter = limit, 0, QueueMeter()

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Hold `count` sequences for the length of the block.

        Raises:
            HTTPException: 413 for a request that could never fit, 429 for one that does not fit now.
        """
        if count > self.limit:
            raise HTTPException(413, f"{count} completions in one request; send at most {self.limit}")
        if self.pending + count > self.limit:
            self._meter.refused(count)
            message = f"{self.pending} of {self.limit} sequences are waiting; try again in {RETRY_AFTER_SECONDS} s"
            raise HTTPException(429, message, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        self._hold(count)
        self._meter.took(count)
        try:
            yield
        finally:
            self._hold(-count)

    def _hold(self, more: int) -> None:
        self.pending += more
        self._meter.holds(self.pending)


def deployment_options(config: TeacherConfig, requests_per_replica: float) -> dict[str, Any]:
    """Options of a deployment that scales between zero and `config.max_replicas`.

    Args:
        requests_per_replica: ongoing HTTP requests that keep a replica busy.
    """
    scaling = AutoscalingConfig(
        min_replicas=0,
        initial_replicas=1,
        max_replicas=config.max_replicas,
        target_ongoing_requests=requests_per_replica,
        # Serve acts on the mean over the look-back, so the window and the delay add up to `idle_seconds`.
        look_back_period_s=config.idle_seconds / 2,
        downscale_to_zero_delay_s=config.idle_seconds / 2,
        downscale_delay_s=config.idle_seconds,
        upscale_delay_s=1.0,
        metrics_interval_s=min(0.25, config.idle_seconds / 4),
    )
    return {
        "autoscaling_config": scaling,
        "ray_actor_options": actor_options(size_of(config)),
        # The replica counts sequences itself; Serve's own limits only have to be wider.
        "max_ongoing_requests": config.max_pending + 8,
        "max_queued_requests": config.max_pending,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_SECONDS),
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": 30.0,  # a replica that goes finishes what it has begun
        "max_constructor_retry_count": 2,
    }
