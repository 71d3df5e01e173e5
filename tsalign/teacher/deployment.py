"""A teacher's application on Ray Serve: what it needs, when it is up, and its removal."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from tsalign.common.applications import application_state
from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model
from tsalign.teacher.ray_serve import QUIET, serve_runs, serve_url, spans_nodes, start_serve, stop_serve

if TYPE_CHECKING:
    from ray.serve import Application

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost")
DEPLOY_SECONDS = 1800.0
REPORT_SECONDS = 30.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Deployment:
    """A teacher's application that answers."""

    name: str
    url: str
    token: SecretStr | None = field(repr=False)


def check_token(config: TeacherConfig, token: SecretStr | None) -> None:
    """Nothing, where a teacher that the network reaches asks for a token.

    Raises:
        TsalignError: it would not.
    """
    if config.host not in LOOPBACK and not token:
        raise TsalignError(
            f"teacher.host: {config.host} is open to the network; set the environment variable "
            f"{config.token_env} to a bearer token, or use 127.0.0.1."
        )


def application(config: TeacherConfig, model: Model, token: SecretStr | None) -> Application:
    """What Serve runs as the teacher."""
    module = import_module("tsalign.teacher.app" if config.kind == "reward" else "tsalign.teacher.generative")
    made: Application = module.application(model, config, token)
    return made


@contextmanager
def deployed(
    config: TeacherConfig, model: Model, name: str, route: str, token: SecretStr | None
) -> Iterator[Deployment]:
    """A teacher's application for the length of the block; Serve is started for it unless it runs.

    Raises:
        TsalignError: no token for a public address, a port that is taken, resources that no node has, a model that
            does not load, or no answer within half an hour.
    """
    from ray import serve

    check_token(config, token)
    _check_resources(config)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = serve_runs()
    if not running:
        start_serve(config.host, config.port)
    try:
        deployment = Deployment(name, serve_url() + route.rstrip("/"), token)
        target = serve.RunTarget(application(config, model, token), name, route, QUIET)
        serve.run_many([target], wait_for_applications_running=False)
        _wait_until_up(deployment, config)
        yield deployment
    finally:
        serve.delete(name)
        if not running and not serve.status().applications:
            stop_serve()


def _wait_until_up(deployment: Deployment, config: TeacherConfig) -> None:
    """Wait until the model is loaded and answers."""
    start = reported = time.monotonic()
    while (state := application_state(deployment.name)).status != "RUNNING" or not _answers(deployment):
        now = time.monotonic()
        if state.status == "DEPLOY_FAILED" or now - start > DEPLOY_SECONDS:
            raise TsalignError(f"teacher {config.model} did not start: {_cause(state.said)}")
        if now - reported > REPORT_SECONDS:
            logger.warning("teacher %s is not up after %.0f s; %s", config.model, now - start, state.said)
            reported = now
        time.sleep(POLL_SECONDS)


def _answers(deployment: Deployment) -> bool:
    try:
        return httpx.get(f"{deployment.url}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _cause(trouble: str) -> str:
    """The last error of the traceback in Serve's message, or the message."""
    errors = re.findall(r"^(?:[\w.]+\.)?(\w+: .*)", trouble, re.MULTILINE)
    return errors[-1].removeprefix("TsalignError: ") if errors else trouble


def _check_resources(config: TeacherConfig) -> None:
    import ray

    have = ray.cluster_resources()
    for name, wanted in (("CPU", config.cpus), ("GPU", config.gpus)):
        if wanted > have.get(name, 0) and not spans_nodes():
            raise TsalignError(
                f"teacher.{name.lower()}s: needs {wanted:g}, but the cluster has {have.get(name, 0):g}; "
                "add nodes or lower this key."
            )
