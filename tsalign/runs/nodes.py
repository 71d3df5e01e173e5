"""The nodes of a cluster: what an actor takes of them, whether there is room, and waiting for the autoscaler."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tsalign.common.errors import TsalignError
from tsalign.config import Placement, TeacherConfig
from tsalign.runs.terminal import console

# Of a custom resource that marks nodes, what an actor takes: as little as Ray counts, so that it limits nothing.
MARK = 0.0001
POLL_SECONDS = 2.0
EPSILON = 1e-6


@dataclass(frozen=True)
class Size:
    """What one actor takes, and the nodes that it may use: a custom resource of theirs, or labels."""

    cpus: float
    gpus: float
    node: str | dict[str, str] | None = None

    def resources(self) -> dict[str, float]:
        """What it takes of its node, by Ray's names."""
        mark = {self.node: MARK} if isinstance(self.node, str) else {}
        return {name: amount for name, amount in {"CPU": self.cpus, "GPU": self.gpus, **mark}.items() if amount}

    def labels(self) -> dict[str, str]:
        """Labels that its node has."""
        return self.node if isinstance(self.node, dict) else {}

    def __str__(self) -> str:
        """Such as `1 CPU, 1 GPU on sampler`."""
        labels = ", ".join(f"{key}={value}" for key, value in self.labels().items())
        where = self.node if isinstance(self.node, str) else labels
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}{f' on {where}' if where else ''}"


def joined() -> bool:
    """Whether the driver stands on a cluster that was named, and not on a Ray of its own: that is one machine."""
    return "RAY_ADDRESS" in os.environ


def size_of(placed: Placement | TeacherConfig) -> Size:
    """One actor, or one replica. On a Ray of the driver's own there is one node, and none to choose from."""
    gpus = placed.actor_gpus if isinstance(placed, Placement) else placed.gpus
    return Size(placed.cpus, gpus, placed.node if joined() else None)


def actor_options(size: Size) -> dict[str, Any]:
    """What Ray is told of an actor."""
    marks = {name: amount for name, amount in size.resources().items() if name not in ("CPU", "GPU")}
    where = {"resources": marks} if marks else {"label_selector": size.labels()} if size.labels() else {}
    return {"num_cpus": size.cpus, "num_gpus": size.gpus, **where}


def with_driver() -> Any:
    """The scheduling strategy of small actors that serve the driver: its own node, so that they keep no other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def wait_for_room(stage: str, actors: int, size: Size, seconds: float) -> None:
    """Wait until the cluster's nodes could hold so many actors, were they idle.

    What is waited for is a placement group, which the autoscaler makes room for. It goes when the wait ends, and with
    the driver, so that no node stays for a wait that is over.

    Raises:
        TsalignError: after `seconds`, naming what is missing; at once on a Ray of the driver's own.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    if (room := holds(ray.nodes(), size)) >= actors:
        return
    lacks = (
        f"{stage}: needs {actors} x {size}, but the nodes have room for {{:g}} of them; "
        "add nodes or lower `resources` in the config (tsalign plan shows who needs what)."
    )
    if not joined():
        raise TsalignError(lacks.format(room))
    console.print(f"[dim]· {stage:<24} waits for nodes: {actors} x {size}[/]", highlight=False)
    deadline = time.monotonic() + seconds
    group = placement_group([size.resources()] * actors, bundle_label_selector=[size.labels()] * actors)
    try:
        while (room := holds(ray.nodes(), size)) < actors:
            if time.monotonic() > deadline:
                raise TsalignError(lacks.format(room))
            group.wait(POLL_SECONDS)
    finally:
        remove_placement_group(group)


def holds(nodes: Iterable[Mapping[str, Any]], size: Size) -> float:
    """How many actors the nodes that are there could hold, were they idle.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    return sum(fits(node["Resources"], node["Labels"], size) for node in nodes if node["Alive"])


def fits(have: Mapping[str, float], labels: Mapping[str, str], size: Size) -> float:
    """How many actors an idle node holds; infinitely many of those that take nothing."""
    if any(labels.get(key) != value for key, value in size.labels().items()):
        return 0
    times = [(have.get(name, 0) + EPSILON) / amount for name, amount in size.resources().items()]
    return math.floor(min(times)) if times else math.inf
