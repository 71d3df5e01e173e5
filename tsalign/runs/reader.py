"""Readers: what recipes read beside their stages, and what a plan takes for it where it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from tsalign.runs.plan import Plan

P = ParamSpec("P")
T = TypeVar("T")


class Reader(Generic[P, T]):
    """A function that reads what a config names, and beside it what a plan takes for that."""

    def __init__(self, read: Callable[P, T]) -> None:
        self.read: Callable[P, T] = read
        self.__doc__ = read.__doc__
        self._expect: Callable[Concatenate[Plan, P], T] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.read(*args, **kwargs)

    def expects(self, plan: Callable[Concatenate[Plan, P], T]) -> Callable[Concatenate[Plan, P], T]:
        """Register the decorated function: the same without reaching other storage; the plan notes what it lacks."""
        self._expect = plan
        return plan

    def expect(self, plan: Plan, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What a plan takes for what is read.

        Raises:
            NotImplementedError: no `expects` function is registered.
        """
        if self._expect is None:
            raise NotImplementedError(f"{self.read.__name__}: add @{self.read.__name__}.expects, for `tsalign plan`")
        return self._expect(plan, *args, **kwargs)


def reader(read: Callable[P, T]) -> Reader[P, T]:
    """Make the decorated function a reader."""
    return Reader(read)
