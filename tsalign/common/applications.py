"""Applications of Ray Serve: how they are, whichever process asks, and whose turn it is to ask them."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

_turns = defaultdict[str, threading.Lock](threading.Lock)


class ApplicationState(NamedTuple):
    """An application of Ray Serve.

    Attributes:
        replicas: that run; none while it sleeps or starts.
        status: as Serve names it: RUNNING, DEPLOYING, DEPLOY_FAILED, ...; "removed" where Serve does not know it.
        said: Serve's words about what is going on.
        in_turn: a replica waits for what others hold of nodes that are there, such as the only GPU: it starts when
            they end.
    """

    replicas: int
    status: str
    said: str
    in_turn: bool = False


def application_state(name: str) -> ApplicationState:
    """How an application of the Serve of this Ray cluster is."""
    import ray
    from ray import serve

    found = serve.status().applications.get(name)
    if found is None:
        return ApplicationState(0, "removed", "Serve does not know it any more")
    parts = found.deployments.values()
    running = sum(part.replica_states.get("RUNNING", 0) for part in parts)  # type: ignore[call-overload]
    said = " ".join(part.message for part in parts) or found.message
    return ApplicationState(running, found.status, said, waits_in_turn(said, ray.cluster_resources()))


def waits_in_turn(said: str, have: Mapping[str, float]) -> bool:
    """Whether by Serve's words a replica cannot be placed although the nodes, were they idle, have what it needs."""
    needed = re.search(r"to be scheduled.*Resources required for each replica: (\{[^}]*\})", said)
    return needed is not None and all(have.get(name, 0) >= amount for name, amount in json.loads(needed[1]).items())


@contextmanager
def turn(applications: set[str]) -> Iterator[None]:
    """The right to ask these applications, for the length of the block, before any other stage of this driver.

    Side by side, the actors of two stages could hold what the replica needs that both wait for.
    """
    with ExitStack() as stack:
        for name in sorted(applications):
            stack.enter_context(_turns[name])
        yield


def asked_by(value: Any) -> set[str]:
    """The names of the applications that a worker would ask, which gets clients and endpoints, or what holds them."""
    if is_dataclass(value) and not isinstance(value, type):
        name = getattr(value, "application", "")
        return {name} - {""} | asked_by([getattr(value, one.name) for one in fields(value)])
    if isinstance(value, Mapping):
        return asked_by(list(value.values()))
    return set[str]().union(*map(asked_by, value)) if isinstance(value, list | tuple) else set()
