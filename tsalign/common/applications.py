"""What Ray Serve knows of an application, whichever process asks."""

from __future__ import annotations

from typing import NamedTuple


class ApplicationState(NamedTuple):
    """An application of Ray Serve.

    Attributes:
        replicas: that run; none while it sleeps or starts.
        status: as Serve names it: RUNNING, DEPLOYING, DEPLOY_FAILED, ...; "removed" where Serve does not know it.
        said: Serve's words about what is going on.
    """

    replicas: int
    status: str
    said: str


def application_state(name: str) -> ApplicationState:
    """How an application of the Serve of this Ray cluster is."""
    from ray import serve

    found = serve.status().applications.get(name)
    if found is None:
        return ApplicationState(0, "removed", "Serve does not know it any more")
    parts = found.deployments.values()
    running = sum(part.replica_states.get("RUNNING", 0) for part in parts)  # type: ignore[call-overload]
    return ApplicationState(running, found.status, " ".join(part.message for part in parts) or found.message)
