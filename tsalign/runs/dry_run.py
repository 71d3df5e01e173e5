"""A recipe run dry: its stages say what they would make and need, and check what is cheap; nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from upath import UPath

from tsalign.common.storage import is_remote
from tsalign.config import EndpointConfig, ModelConfig, RunConfig
from tsalign.runs.artifacts import Dataset, Endpoint, Model, locate, named_model
from tsalign.runs.hub import check_hub
from tsalign.runs.iteration import Call, Iteration
from tsalign.runs.loggers import check_installed
from tsalign.runs.machine import room, shortages
from tsalign.runs.place import check_storage
from tsalign.runs.plan import ExpectedModel, Plan, PlannedStage, Role
from tsalign.runs.reader import Reader
from tsalign.runs.run import Run
from tsalign.runs.serving import Serving

P = ParamSpec("P")
T = TypeVar("T")


class DryRun(Run):
    """A `Run` that only notes: `plan` holds what the recipe would do."""

    def __init__(self, config: RunConfig, ready: bool = False) -> None:
        self.config, self.name, self.dir = config, config.run or "", UPath()
        self.plan, self._beside, self._pipeline = Plan(ready=ready), False, 1

    def overlap(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """At once: nothing here takes time."""
        done: Future[T] = Future()
        self._beside = True
        done.set_result(function(*args, **kwargs))
        self._beside = False
        return done

    def wait(self) -> None:
        """Nothing overlaps."""

    def model(self, config: Any, role: str) -> Any:
        """A model that is looked for, where it can be reached, but not read."""
        if isinstance(config, EndpointConfig):
            spent = f", at most {config.max_spent_tokens:,} tokens an actor" if config.max_spent_tokens else ""
            self.plan.roles.append(Role(role, config.model, f"endpoint at {config.url}{spent}"))
            return Endpoint(config.url, config.model, fingerprint=role, role=role)
        assert isinstance(config, ModelConfig)
        self.plan.roles.append(Role(role, config.model, "actors of its stages"))
        return look_for(self.plan, config, role)

    def read(self, reader: Reader[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a plan takes for what is read."""
        return reader.expect(self.plan, *args, **kwargs)

    @contextmanager
    def service(self, serving: type[Serving[T]], config: Any) -> Iterator[T]:
        """What stages would ask; nothing is deployed."""
        yield serving.expected(config, self.plan)

    def _stage(self, call: Call) -> Any:
        return self._noted(call, 0)

    def _noted(self, call: Call, pipeline: int) -> Any:
        measures, resources = call.function.measures, self.config.resources
        stage = PlannedStage(call.name, call.iteration, measures, resources, self.plan, self._beside, pipeline)
        return call.function.expect(stage, *call.args, **call.kwargs)

    def _stream(self, iteration: Iteration, call: Call) -> Dataset:
        """At once; what is needed beside it has the same number."""
        return self._noted(call, self._pipeline)

    def _flow(self, iteration: Iteration) -> None:
        """What is streamed from here on is another pipeline."""
        self._pipeline += 1


def look_for(plan: Plan, config: ModelConfig, role: str) -> Model:
    """The model of a role; where it is not there, or cannot be reached by a plan, nothing more is checked of it."""
    if plan.ready or not is_remote(config.model):
        with plan.checking(f"{role}.model"):
            path, folder = locate(config, role)
            if plan.ready and folder is None:
                check_hub(path, config.revision)
            return named_model(config, path, role, known=role)
    return ExpectedModel(config.model, fingerprint=role, role=role)


def plan(config: RunConfig, recipe: Callable[[Run, Any], None], ready: bool = False) -> Plan:
    """What a recipe would do with a config.

    Args:
        ready: whether the run is about to start: all that it reads on this machine then has to be there.

    Raises:
        TsalignError: everything that is found wrong before a run starts, a line each.
    """
    run = DryRun(config, ready)
    with run.plan.checking("storage"):
        check_storage(config.storage)
    with run.plan.checking("loggers"):
        if ready:
            check_installed(config.loggers)
    with run.plan.checking(""):
        recipe(run, config)
    have = room() if ready else None
    if have is not None:
        run.plan.problems.extend(shortages(run.plan, config.resources, have))
    run.plan.approve()
    return run.plan
