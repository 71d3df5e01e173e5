"""The kinds of nodes that a cluster has, or that its autoscaler could add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tsalign.runs.nodes import Size, fits

HEAD = "node:__internal_head__"  # what Ray marks the head node with
NO_KIND = ("node:", "memory", "object_store_memory")  # resources that differ between nodes of one type


@dataclass(frozen=True)
class NodeType:
    """Nodes that are alike.

    Attributes:
        name: the autoscaler's, or the address of a node.
        ids: Ray's ids of those that are there.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Such as `gpu-worker: 8 CPU, 1 GPU`."""
        return f"{self.name}: {', '.join(f'{amount:g} {name}' for name, amount in self.resources.items()) or 'nothing'}"


def present(nodes: Iterable[Mapping[str, Any]]) -> list[NodeType]:
    """The types of the nodes that are alive.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        if node["Alive"]:
            labels = {key: value for key, value in node["Labels"].items() if key != "ray.io/node-id"}
            alike.setdefault(str((sorted(_kind(node["Resources"]).items()), sorted(labels.items()))), []).append(node)
    return [
        NodeType(
            f"node {same[0]['NodeManagerAddress']}",
            _kind(same[0]["Resources"]),
            same[0]["Labels"],
            tuple(node["NodeID"] for node in same),
        )
        for same in alike.values()
    ]


def possible(config: Mapping[str, Any]) -> list[NodeType] | None:
    """The types that an autoscaler's config lets it add; None where it does not say what one of them has."""
    types = {name: kind for name, kind in config["available_node_types"].items() if kind.get("max_workers", 1) > 0}
    if not all(kind.get("resources") for kind in types.values()):
        return None
    return [NodeType(name, _kind(kind["resources"]), kind.get("labels", {})) for name, kind in types.items()]


def stuck(wanted: Mapping[str, Size], types: Iterable[NodeType]) -> Iterator[str]:
    """A line for each actor that fits on none of the types."""
    known = list(types)
    for what, size in wanted.items():
        if any(fits(kind.resources, kind.labels, size) for kind in known):
            continue
        right = [kind for kind in known if fits(kind.resources, kind.labels, Size(0, 0, size.node))]
        if not right:
            there = "; ".join(map(str, known))
            yield f"{what}: would wait for ever: no node type is {_where(size)}. There are {there or 'none'}."
            continue
        largest = max(right, key=lambda kind: (kind.resources.get("GPU", 0), kind.resources.get("CPU", 0)))
        yield (
            f"{what}: would wait for ever: an actor wants {size}, and the largest node type has less ({largest}). "
            "Lower what it wants, or add a larger type."
        )


def autoscaled() -> list[NodeType] | None:
    """The types that the autoscaler of the joined cluster could add; None where it cannot be asked."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    head = next((node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]), None)
    if head is None:
        return None
    there: Any = NodeAffinitySchedulingStrategy(head, soft=False)
    read = ray.remote(num_cpus=0, scheduling_strategy=there)(_reader())
    config: Any = ray.get(read.remote(ray.get_runtime_context().gcs_address))
    return None if config is None else possible(config)


def _reader() -> Callable[[str], dict[str, Any] | None]:
    """A function that travels by value: the head need not have tsalign yet."""

    def read(gcs_address: str) -> dict[str, Any] | None:
        """The autoscaler's config, on the head: from its process, or from Kubernetes as the operator has it."""
        import os
        from pathlib import Path

        import psutil
        import yaml

        for process in psutil.process_iter(["cmdline"]):
            said = process.info["cmdline"] or []
            if any(part.endswith("monitor.py") for part in said) and f"--gcs-address={gcs_address}" in said:
                files = [part.partition("=")[2] for part in said if part.startswith("--autoscaling-config=")]
                if not files:
                    return {"available_node_types": {}}
                return dict(yaml.safe_load(Path(files[0]).expanduser().read_text()))
        if (name := os.environ.get("RAY_CLUSTER_NAME")) and (space := os.environ.get("RAY_CLUSTER_NAMESPACE")):
            import requests
            from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

            try:
                return dict(AutoscalingConfigProducer(name, space)())
            except requests.RequestException:  # the pod may have no leave to look
                return None
        return None

    return read


def _kind(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if not name.startswith(NO_KIND)}


def _where(size: Size) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in size.labels().items())
    return f"marked {size.node}" if isinstance(size.node, str) else f"labelled {labels}"
