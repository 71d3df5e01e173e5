"""Services that a run deploys beside its stages."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from tsalign.runs.plan import Plan

S = TypeVar("S", covariant=True)


class Serving(Protocol[S]):
    """A service that a run deploys for the length of a `with` block, made from its config."""

    def __init__(self, config: Any) -> None: ...

    def __enter__(self) -> S:
        """What stages ask it with."""

    def __exit__(self, *error: object) -> None: ...

    @classmethod
    def expected(cls, config: Any, plan: Plan) -> S:
        """In a plan: what stages would ask it with; what it would need is noted in `plan`."""
