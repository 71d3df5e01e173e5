"""Ray Serve itself: started where none runs, where it listens, stopped."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from tsalign.common.errors import TsalignError

if TYPE_CHECKING:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

ANY = ("0.0.0.0", "::")
QUIET: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}

# Where the Serve that this process started listens, by the id of the process's Ray node.
_listening: dict[str, str] = {}


def serve_runs() -> bool:
    """Whether Serve runs in this Ray, whoever started it."""
    from ray import serve

    return bool(serve.status().proxies)


def serve_url() -> str:
    """The URL of the running Serve, as every node of the cluster reaches it.

    Raises:
        TsalignError: another process started it, and Ray has no dashboard that knows where it listens.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    if node not in _listening:
        api = _serve_api()
        if api is None:
            raise TsalignError(
                "Ray Serve runs already, and without Ray's dashboard its address is unknown; "
                "shut Serve down, or name a running teacher in teacher.url."
            )
        options = api.get_serve_details()["http_options"]
        return _url(options["host"], options["port"])
    return _listening[node]


def start_serve(host: str, port: int) -> None:
    """Start Serve's proxy on this node.

    Args:
        port: a free one where it is 0.

    Raises:
        TsalignError: the port is taken.
    """
    import ray
    from ray import serve

    port = _port(host, port)
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=QUIET)
    _listening[ray.get_runtime_context().get_node_id()] = _url(host, port)


def stop_serve() -> None:
    """Stop the Serve that this process started; a Ray without a dashboard is our own, and ends it.

    `serve.shutdown` alone would do, but then Ray prints an error: the call outlives the actor that it stops.
    """
    from ray import serve

    if api := _serve_api():
        api.delete_applications()
        serve.shutdown()  # nothing runs any more: it only makes this process forget its connection


def _serve_api() -> ServeSubmissionClient | None:
    """Serve's REST API, which Ray's dashboard has."""
    import ray
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    dashboard = ray.init(ignore_reinit_error=True, logging_level=logging.WARNING).dashboard_url
    return ServeSubmissionClient(f"http://{dashboard}") if dashboard else None


def spans_nodes() -> bool:
    """Whether actors may run on nodes that do not reach this node's loopback address."""
    import ray

    return "RAY_ADDRESS" in os.environ or sum(node["Alive"] for node in ray.nodes()) > 1


def _url(host: str, port: int) -> str:
    import ray

    head = next(n["NodeManagerAddress"] for n in ray.nodes() if "node:__internal_head__" in n["Resources"])
    return f"http://{head if host in ANY else host}:{port}"


def _port(host: str, port: int) -> int:
    """`port`, or a free one where it is 0."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TsalignError(
                f"teacher.port: cannot listen on {host}:{port} ({error.strerror}); choose another, or 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])
