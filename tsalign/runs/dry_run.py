"""A recipe run dry: its stages are asked what they would make and need, and nothing is read, started or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from upath import UPath

from tsalign.config import EndpointConfig, ModelConfig, RunConfig
from tsalign.runs.artifacts import Endpoint, Model
from tsalign.runs.plan import Plan, PlannedStage, Role
from tsalign.runs.reader import Reader
from tsalign.runs.run import Run, Serving
from tsalign.runs.stage_function import StageFunction

P = ParamSpec("P")
T = TypeVar("T")


class DryRun(Run):
    """A `Run` that only notes: `plan` holds what the recipe would do."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.name, self.dir = config, config.run or "", UPath()
        self.plan = Plan()

    def overlap(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """At once: nothing here takes time."""
        done: Future[T] = Future()
        done.set_result(function(*args, **kwargs))
        return done

    def wait(self) -> None:
        """Nothing overlaps."""

    def model(self, config: Any, role: str) -> Any:
        """A model that is neither looked for nor read."""
        if isinstance(config, EndpointConfig):
            spent = f", at most {config.max_spent_tokens:,} tokens an actor" if config.max_spent_tokens else ""
            self.plan.roles.append(Role(role, config.model, f"endpoint at {config.url}{spent}"))
            return Endpoint(config.url, config.model, fingerprint=role, role=role)
        assert isinstance(config, ModelConfig)
        self.plan.roles.append(Role(role, config.model, "actors of its stages"))
        return Model(config.model, fingerprint=role, role=role)

    def read(self, reader: Reader[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a plan takes for what is read."""
        return reader.expect(self.plan, *args, **kwargs)

    @contextmanager
    def service(self, serving: type[Serving[T]], config: Any) -> Iterator[T]:
        """What stages would ask; nothing is deployed."""
        yield serving.expected(config, self.plan)

    def _stage(
        self,
        iteration: int,
        name: str,
        out: UPath,
        function: StageFunction[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        stage = PlannedStage(name, iteration, function.measures, self.config.resources, self.plan)
        return function.expect(stage, *args, **kwargs)


def plan(config: RunConfig, recipe: Callable[[Run, Any], None]) -> Plan:
    """What a recipe would do with a config."""
    run = DryRun(config)
    recipe(run, config)
    return run.plan
