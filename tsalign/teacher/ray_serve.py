"""Ray Serve itself: started where none runs, where it listens, stopped."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Any

from tsalign.common.errors import TsalignError
from tsalign.runs.nodes import joined

ANY = ("0.0.0.0", "::")
# Above the ports that Ray gives its workers, below those that systems give to whoever asks for any.
UNGIVEN = range(20000, 32000)
QUIET: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}


def serve_runs() -> bool:
    """Whether Serve is running in this Ray cluster, even if another driver started it."""
    from ray import serve

    return bool(serve.status().proxies)


def serve_url() -> str:
    """The URL of the running Serve, as every node of the cluster reaches it."""
    import ray

    options = ray.get(_controller().get_serve_instance_details.remote())["http_options"]
    head = next(n["NodeManagerAddress"] for n in ray.nodes() if "node:__internal_head__" in n["Resources"])
    return f"http://{head if options['host'] in ANY else options['host']}:{options['port']}"


def start_serve(host: str, port: int) -> None:
    """Start Serve's proxy on the head node.

    Args:
        port: a free one where it is 0.

    Raises:
        TsalignError: the port is taken.
    """
    from ray import serve

    options = {"host": host, "port": _port(host, port)}
    serve.start(proxy_location="HeadOnly", http_options=options, logging_config=QUIET)


def stop_serve() -> None:
    """Stop Serve on a cluster; a Ray of our own takes Serve with it when it ends."""
    import ray
    from ray import serve

    if joined():
        # The controller ends inside this call. `serve.shutdown` retries it, and Ray then prints that it failed.
        with contextlib.suppress(ray.exceptions.RayActorError):
            ray.get(_controller().graceful_shutdown.options(max_task_retries=0).remote())
        serve.shutdown()  # this process forgets the Serve that it knew


def _controller() -> Any:
    """The actor that runs Serve: no public function gives the address of a Serve that another driver started."""
    import ray

    return ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")


def spans_nodes() -> bool:
    """Whether actors may run on nodes that do not reach this node's loopback address."""
    import ray

    return joined() or sum(node["Alive"] for node in ray.nodes()) > 1


def _port(host: str, port: int) -> int:
    """`port`, or where it is 0 a free one that no process is given until the proxy listens, seconds later.

    Raises:
        TsalignError: it is taken.
    """
    if port == 0:
        return next(one for one in random.sample(UNGIVEN, len(UNGIVEN)) if _taken(host, one) is None)
    if error := _taken(host, port):
        raise TsalignError(
            f"teacher.port: cannot listen on {host}:{port} ({error.strerror}); choose another, or 0 for a free one."
        )
    return port


def _taken(host: str, port: int) -> OSError | None:
    """Why a port cannot be listened on; None where it can."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
