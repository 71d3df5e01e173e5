"""Whether a plan's actors fit where they would run: the cluster that is connected, or a Ray of the driver's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tsalign.config import Placement, ResourceConfig
from tsalign.runs.nodes import joined, size_of
from tsalign.runs.plan import Need, Plan

Room = Mapping[str, float]


def room() -> Room | None:
    """The CPUs and GPUs of the cluster that is connected, or else of this machine; None for a cluster that is not."""
    import ray

    if ray.is_initialized():
        return ray.cluster_resources()
    if joined():
        return None
    import torch
    from ray._private.utils import get_num_cpus  # what `ray.init` asks; in a container it knows the quota

    return {"CPU": get_num_cpus(override_docker_cpu_warning=True), "GPU": torch.cuda.device_count()}


def shortages(plan: Plan, resources: ResourceConfig, have: Room) -> Iterator[str]:
    """A line for each key of `resources`, and each service, that needs more than there is."""
    for service in plan.services:
        if lacks := _lacks({"CPU": service.cpus, "GPU": service.gpus}, have):
            yield f"{service.who}: a replica needs {lacks}."
    for key in ResourceConfig.model_fields:
        place = getattr(resources, key)
        needs = [need for need in plan.needs if need.placement is place]
        lacking = {lacks: need.stage for need in needs if (lacks := _lacks(_wanted(plan, need, place), have))}
        if lacking:
            lacks, stage = max(lacking.items())
            yield f"resources.{key}: {place.least} x {size_of(place)}, for {stage}: needs {lacks}."


def _wanted(plan: Plan, need: Need, place: Placement) -> Room:
    """What is needed at once; with less, actors would wait for each other.

    That is all actors of a stage, an actor of each stage that is streamed with it, and a replica of what they ask.
    """
    beside = {other.stage: other for other in plan.needs if _streamed_with(other, need)}
    asked = [service for service in plan.services if service.who in {need.who, *(one.who for one in beside.values())}]
    places = [one.placement for one in beside.values()]
    return {
        "CPU": place.least * place.cpus + sum(one.cpus for one in places) + sum(one.cpus for one in asked),
        "GPU": place.least * place.actor_gpus + sum(one.actor_gpus for one in places) + sum(one.gpus for one in asked),
    }


def _streamed_with(other: Need, need: Need) -> bool:
    return 0 < need.pipeline == other.pipeline and other.stage != need.stage


def _lacks(wanted: Room, have: Room) -> str:
    short = {name: amount - have.get(name, 0) for name, amount in wanted.items()}
    lacks = [f"{lack:g} more {name}" for name, lack in short.items() if lack > 1e-6]
    has = ", ".join(f"{have.get(name, 0):g} {name}" for name in wanted)
    return f"{' and '.join(lacks)} than there is ({has})" if lacks else ""
