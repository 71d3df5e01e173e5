"""A teacher for the length of a run, or until Ctrl-C: deployed here, or running elsewhere."""

from __future__ import annotations

import contextlib
import secrets
import threading
from functools import cached_property

from pydantic import SecretStr

from tsalign.common.errors import TsalignError
from tsalign.common.tokens import token_from
from tsalign.config import EngineConfig, TeacherConfig
from tsalign.data.checks import check_model
from tsalign.engines import check_engine
from tsalign.runs.artifacts import Endpoint, Model, fingerprint, model_from
from tsalign.runs.dry_run import look_for
from tsalign.runs.plan import Plan, Role, Service
from tsalign.runs.ray_session import ray_session
from tsalign.scoring import Scorer
from tsalign.scoring.judge import LLMJudge, question
from tsalign.teacher.client import TeacherClient
from tsalign.teacher.deployment import LOOPBACK, Deployment, check_token, deployed
from tsalign.teacher.ray_serve import serve_runs, serve_url, spans_nodes

DEFAULT_PORT = 8000
WRITES_ONLY = "teacher.kind: a generative teacher only writes; to get scores from it, set kind: judge."


class Teacher:
    """A teacher for the length of a `with` block, which gets the scorer that asks it."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self._deployment: Deployment | None = None
        self._stack = contextlib.ExitStack()

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
            raise TsalignError(WRITES_ONLY)
        return TeacherClient(
            url=self._url(),
            token=self._token,
            fingerprint=self.fingerprint,
            request_timeout=self.config.request_timeout,
            patience=self.config.patience,
            proxies=bool(self.config.url),
            application=self._application,
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
            patience=self.config.patience,
            proxies=bool(self.config.url),
            role="teacher",
            application=self._application,
        )

    @classmethod
    def expected(cls, config: TeacherConfig, plan: Plan) -> Scorer:
        """The scorer of a plan, which sends no requests; `plan` gets what would be deployed, and what is wrong."""
        _check(config, plan)
        if config.url:
            plan.roles.append(Role("teacher", config.model, f"service at {config.url}"))
        else:
            size = f"{config.cpus:g} CPU, {config.gpus:g} GPU"
            plan.roles.append(Role("teacher", config.model, f"service, 0 to {config.max_replicas} replicas x {size}"))
            plan.services.append(Service("teacher", config.max_replicas, config.cpus, config.gpus, config.node))
        if config.kind == "judge":
            return _judge(Endpoint(config.url or "", config.model, "teacher", role="teacher"), config)
        return TeacherClient(config.url or "", fingerprint="teacher")

    @property
    def _token(self) -> SecretStr | None:
        return self._deployment.token if self._deployment else token_from(self.config.token_env)

    @property
    def _application(self) -> str:
        return self._deployment.name if self._deployment else ""

    def _url(self) -> str:
        """Where the teacher answers; it is deployed first where it is ours."""
        if self.config.url:
            return self.config.url
        if self._deployment is None:
            token = token_from(self.config.token_env)
            name, config = f"teacher-{secrets.token_hex(4)}", self.config
            if config.host in LOOPBACK:
                # Only this run's actors ask it, on any node: a token made here will do.
                token = token or SecretStr(secrets.token_urlsafe(32))
                config = config.model_copy(update={"host": "0.0.0.0" if spans_nodes() else config.host})
            self._deployment = self._stack.enter_context(deployed(config, self._model, name, f"/{name}", token))
        return self._deployment.url

    def __enter__(self) -> Scorer:
        return self.client()

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._deployment = None


def _check(config: TeacherConfig, plan: Plan) -> None:
    """Note what keeps a teacher from being deployed, or from giving scores."""
    with plan.checking("teacher"):
        if config.kind == "generative":
            raise TsalignError(WRITES_ONLY)
    with plan.checking("teacher"):
        token = token_from(config.token_env)
        if plan.ready and not config.url:
            check_token(config, token)
    if not config.url:
        model = look_for(plan, config, "teacher")
        if config.kind == "reward":
            check_model(plan, model, "reward")
        else:
            check_engine(plan, model, EngineConfig(engine=config.engine, max_model_len=config.max_model_len))


def _judge(endpoint: Endpoint, config: TeacherConfig) -> LLMJudge:
    return LLMJudge(endpoint, question(config.asks, config.templates), config.asks)


def serve_forever(config: TeacherConfig) -> None:
    """Serve a teacher on `config.host` and `config.port` (8000 where that is 0) until Ctrl-C.

    Raises:
        TsalignError: as `deployed`, or Serve runs in this cluster already.
    """
    config = config.model_copy(update={"port": config.port or DEFAULT_PORT})
    model, token = model_from(config, "teacher"), token_from(config.token_env)
    with ray_session(), contextlib.suppress(KeyboardInterrupt):
        if serve_runs():
            raise TsalignError(f"Ray Serve is already running at {serve_url()}; run `serve shutdown` first.")
        with deployed(config, model, "teacher", "/", token) as deployment:
            print(_greeting(deployment, config), flush=True)
            threading.Event().wait()


def _greeting(deployment: Deployment, config: TeacherConfig) -> str:
    secret = f' -H "Authorization: Bearer ${config.token_env}"' if deployment.token else ""
    route, body = "score", '{"items": [{"prompt": "What is 2 + 2?", "completions": ["4", "5"]}]}'
    if config.kind != "reward":
        route, body = "chat/completions", '{"messages": [{"role": "user", "content": "What is 2 + 2?"}]}'
    return (
        f"teacher {config.model} at {deployment.url} (Ctrl-C stops it). Try:\n"
        f"  curl {deployment.url}/v1/{route}{secret} -H 'Content-Type: application/json' -d '{body}'"
    )
