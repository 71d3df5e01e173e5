"""Who of a plan holds which CPUs and GPUs when: stage after stage, and what runs beside what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from tsalign.runs.plan import Need, Plan, Service


@dataclass(frozen=True)
class Turn:
    """What a stage holds while it runs; nothing of it after that.

    Attributes:
        cpus: of its actors, the least with which it can be done and the most that it takes.
        gpus: the same.
        asks: services that hold something only while they are asked.
        beside: whether stages that follow may run at the same time; where there is no room for both, one waits.
        pipeline: stages of the same one, above 0, are streamed: they run at the same time and need room for all.
    """

    stage: str
    iteration: int
    cpus: tuple[float, float]
    gpus: tuple[float, float]
    asks: tuple[Service, ...]
    beside: bool
    pipeline: int


def turns(plan: Plan) -> list[Turn]:
    """A turn for each stage, in the recipe's order."""
    return [_turn(plan, needs) for _, needs in by_stage(plan.needs)]


def by_stage(needs: Iterable[Need]) -> Iterator[tuple[str, list[Need]]]:
    """The needs of each stage under its name."""
    for (_, name), own in groupby(needs, key=lambda need: (need.iteration, need.stage)):
        yield name, list(own)


def _turn(plan: Plan, needs: list[Need]) -> Turn:
    place = needs[0].placement  # a stage's models are all in its actors
    return Turn(
        needs[0].stage,
        needs[0].iteration,
        (place.least * place.cpus, place.most * place.cpus),
        (place.least * place.actor_gpus, place.most * place.actor_gpus),
        tuple(service for service in plan.services if service.who in {need.who for need in needs}),
        needs[0].beside,
        needs[0].pipeline,
    )


def peak(plan: Plan) -> tuple[float, float]:
    """CPUs and GPUs of the largest stage with all that it takes, and all replicas of the services that it asks.

    Stages that are streamed count as one.
    """
    return _largest(plan, lambda least_most: least_most[1], lambda service: service.replicas)


def enough(plan: Plan) -> tuple[float, float]:
    """CPUs and GPUs with which every stage can be done in its turn, with one replica of each service that it asks."""
    return _largest(plan, lambda least_most: least_most[0], lambda service: 1)


def _largest(
    plan: Plan, own: Callable[[tuple[float, float]], float], replicas: Callable[[Service], int]
) -> tuple[float, float]:
    together = defaultdict[object, list[Turn]](list)
    for turn in turns(plan):
        together[turn.pipeline or (turn.iteration, turn.stage)].append(turn)
    cpus, gpus = [0.0], [0.0]
    for group in together.values():
        asked = {service for turn in group for service in turn.asks}
        cpus.append(sum(own(turn.cpus) for turn in group) + sum(replicas(one) * one.cpus for one in asked))
        gpus.append(sum(own(turn.gpus) for turn in group) + sum(replicas(one) * one.gpus for one in asked))
    return max(cpus), max(gpus)
