"""Bringing a teacher up and down: for the length of a stage in a recipe, or until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module

import httpx

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.prompts import templates
from tsalign.runs.artifacts import Endpoint, Model, fingerprint, model_from
from tsalign.runs.plan import Plan, Service
from tsalign.runs.ray_session import ray_session
from tsalign.scoring import Scorer
from tsalign.scoring.judge import LLMJudge
from tsalign.teacher.client import TeacherClient

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost")
ANY = ("0.0.0.0", "::")
DEFAULT_PORT = 8000
DEPLOY_SECONDS = 1800.0
REPORT_SECONDS = 30.0
POLL_SECONDS = 0.2


class Teacher:
    """A teacher for the length of a `with` block, which gets the scorer that asks it."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self._deployment: Deployment | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Of the model, or of the address and the model's name where the teacher runs elsewhere."""
        if self.config.url:
            return fingerprint(self.config.url, self.config.model)
        return self._model.fingerprint

    @cached_property
    def _model(self) -> Model:
        return model_from(self.config, "teacher")

    def client(self) -> TeacherClient | LLMJudge:
        """The scorer with which any node asks this teacher.

        Raises:
            TsalignError: the teacher cannot be deployed, the message says why; `url` is none; or it gives no scores.
        """
        if self.config.kind == "judge":
            return _judge(self.endpoint(), self.config)
        if self.config.kind == "generative":
            raise TsalignError(
                "teacher.kind: a generative teacher only writes; to get scores from it, set kind: judge."
            )
        return TeacherClient(
            self._url(), self._token, self.fingerprint, self.config.request_timeout, proxies=bool(self.config.url)
        )

    def endpoint(self) -> Endpoint:
        """Where any node lets a judge or generative teacher write.

        Raises:
            TsalignError: as `client`; or the teacher is a reward model.
        """
        if self.config.kind == "reward":
            raise TsalignError("teacher.kind: a reward model writes nothing; set kind: generative.")
        return Endpoint(
            url=self._url().rstrip("/").removesuffix("/v1") + "/v1",
            model=self.config.model,
            fingerprint=self.fingerprint,
            token=self._token,
            request_timeout=self.config.request_timeout,
            proxies=bool(self.config.url),
            role="teacher",
        )

    @classmethod
    def expected(cls, config: TeacherConfig, plan: Plan) -> Scorer:
        """The scorer of a plan, which asks nobody; `plan` gets what would be deployed."""
        if not config.url:
            service = Service("teacher", config.model, config.max_replicas, config.cpus, config.gpus)
            plan.services.append(service)
        if config.kind == "judge":
            return _judge(Endpoint(config.url or "", config.model, "teacher", role="teacher"), config)
        return TeacherClient(config.url or "", fingerprint="teacher")

    @property
    def _token(self) -> str | None:
        return self._deployment.token if self._deployment else os.environ.get(self.config.token_env)

    def _url(self) -> str:
        """Where the teacher answers; it is deployed first where it is ours."""
        if self.config.url:
            if not self.config.url.startswith(("http://", "https://")):
                raise TsalignError(f"teacher.url: {self.config.url}: expected it to begin with http:// or https://.")
            return self.config.url
        if self._deployment is None:
            token = os.environ.get(self.config.token_env)
            name, config = f"teacher-{secrets.token_hex(4)}", self.config
            if config.host in LOOPBACK:
                # Only this run's actors ask it, on whatever node they are: a token made here will do.
                token = token or secrets.token_urlsafe(32)
                config = config.model_copy(update={"host": "0.0.0.0" if _spreads() else config.host})
            self._deployment = deploy(config, self._model, name, f"/{name}", token)
            wait_until_up(self._deployment, config)
        return self._deployment.url

    def __enter__(self) -> Scorer:
        return self.client()

    def __exit__(self, *error: object) -> None:
        if self._deployment is not None:
            undeploy(self._deployment)
            self._deployment = None


def _judge(endpoint: Endpoint, config: TeacherConfig) -> LLMJudge:
    return LLMJudge(endpoint, templates.texts(templates.FOLDER)[f"judge_{config.asks}"], config.asks)


@dataclass(frozen=True)
class Deployment:
    """A Serve application of ours; `started_serve` where Serve itself is ours too."""

    name: str
    url: str
    token: str | None = field(repr=False)
    started_serve: bool


def deploy(config: TeacherConfig, model: Model, name: str, route: str, token: str | None) -> Deployment:
    """Start Serve, unless it runs, and the teacher's application on it. Returns without waiting for the model.

    Raises:
        TsalignError: no token for a public address, a port that is taken, or resources that no node has.
    """
    from ray import serve

    if config.host not in LOOPBACK and not token:
        raise TsalignError(
            f"teacher.host: {config.host} is open to the network; set the environment variable "
            f"{config.token_env} to a bearer token, or use 127.0.0.1."
        )
    _check_resources(config)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    running = bool(serve.status().proxies)
    if not running:
        options = {"host": config.host, "port": _port(config.host, config.port)}
        serve.start(proxy_location="HeadOnly", http_options=options, logging_config=quiet)
    module = import_module("tsalign.teacher.app" if config.kind == "reward" else "tsalign.teacher.generative")
    target = serve.RunTarget(module.application(model, config, token), name, route, quiet)
    serve.run_many([target], wait_for_applications_running=False)
    return Deployment(name, _address() + route.rstrip("/"), token, started_serve=not running)


def wait_until_up(deployment: Deployment, config: TeacherConfig) -> None:
    """Wait until the model is loaded and answers.

    Raises:
        TsalignError: the model does not load, or nothing answers within half an hour.
    """
    from ray import serve

    start = reported = time.monotonic()
    while (status := serve.status().applications[deployment.name]).status != "RUNNING" or not _answers(deployment):
        trouble = " ".join(part.message for part in status.deployments.values()) or status.message
        now = time.monotonic()
        if status.status == "DEPLOY_FAILED" or now - start > DEPLOY_SECONDS:
            raise TsalignError(f"teacher {config.model} did not start: {_cause(trouble)}")
        if now - reported > REPORT_SECONDS:
            logger.warning("teacher %s is not up after %.0f s; %s", config.model, now - start, trouble)
            reported = now
        time.sleep(POLL_SECONDS)


def undeploy(deployment: Deployment) -> None:
    """Remove the application, and Serve with it where it is ours and serves nothing else."""
    from ray import serve

    others = serve.status().applications.keys() - {deployment.name}
    if deployment.started_serve and not others:
        _shut_down_serve()
    else:
        serve.delete(deployment.name)


def _shut_down_serve() -> None:
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    # The controller ends inside this call. `serve.shutdown` retries it, and Ray then prints that it failed.
    stop = _get_global_client()._controller.graceful_shutdown  # type: ignore[union-attr]
    with contextlib.suppress(ray.exceptions.RayActorError):
        ray.get(stop.options(max_task_retries=0).remote())
    serve.shutdown()


def serve_forever(config: TeacherConfig) -> None:
    """Serve a teacher on `config.host` and `config.port` (8000 where that is 0) until Ctrl-C.

    Raises:
        TsalignError: as `deploy`, or Serve runs in this cluster already.
    """
    from ray import serve

    config = config.model_copy(update={"port": config.port or DEFAULT_PORT})
    model, token = model_from(config, "teacher"), os.environ.get(config.token_env)
    with ray_session(), contextlib.suppress(KeyboardInterrupt):
        if serve.status().proxies:
            raise TsalignError(f"Ray Serve runs already, at {_address()}; run `serve shutdown` first.")
        deployment = deploy(config, model, "teacher", "/", token)
        try:
            wait_until_up(deployment, config)
            print(_greeting(deployment, config), flush=True)
            threading.Event().wait()
        finally:
            undeploy(deployment)


def _greeting(deployment: Deployment, config: TeacherConfig) -> str:
    secret = f' -H "Authorization: Bearer ${config.token_env}"' if deployment.token else ""
    route, body = "score", '{"items": [{"prompt": "What is 2 + 2?", "completions": ["4", "5"]}]}'
    if config.kind != "reward":
        route, body = "chat/completions", '{"messages": [{"role": "user", "content": "What is 2 + 2?"}]}'
    return (
        f"teacher {config.model} at {deployment.url} (Ctrl-C stops it). Try:\n"
        f"  curl {deployment.url}/v1/{route}{secret} -H 'Content-Type: application/json' -d '{body}'"
    )


def _answers(deployment: Deployment) -> bool:
    try:
        return httpx.get(f"{deployment.url}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _cause(trouble: str) -> str:
    """The last error of the traceback in Serve's message, or the message."""
    errors = re.findall(r"^(?:[\w.]+\.)?(\w+: .*)", trouble, re.MULTILINE)
    return errors[-1].removeprefix("TsalignError: ") if errors else trouble


def _spreads() -> bool:
    """Whether actors may run on nodes that do not reach this node's loopback address."""
    import ray

    return "RAY_ADDRESS" in os.environ or sum(node["Alive"] for node in ray.nodes()) > 1


def _address() -> str:
    """The URL of the running Serve's proxy, as every node of the cluster reaches it."""
    import ray
    from ray.serve.context import _get_global_client

    options = _get_global_client().http_config  # type: ignore[union-attr]
    head = next(n["NodeManagerAddress"] for n in ray.nodes() if "node:__internal_head__" in n["Resources"])
    return f"http://{head if options.host in ANY else options.host}:{options.port}"


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


def _check_resources(config: TeacherConfig) -> None:
    import ray

    have = ray.cluster_resources()
    for name, wanted in (("CPU", config.cpus), ("GPU", config.gpus)):
        if wanted > have.get(name, 0) and not _spreads():
            raise TsalignError(
                f"teacher.{name.lower()}s: {wanted:g} wanted, the cluster has {have.get(name, 0):g}; "
                "add nodes or lower it."
            )
