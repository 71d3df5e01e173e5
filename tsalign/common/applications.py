"""What Ray Serve knows of an application, whichever process asks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple


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
