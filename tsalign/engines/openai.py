"""Sampling at any OpenAI-compatible endpoint: text only, asked over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tsalign.common.errors import TsalignError
from tsalign.common.http import Answer, Refused, RetryingClient, Service, ServiceDown, Unanswered
from tsalign.common.progress import Advance, unseen
from tsalign.config import EngineConfig
from tsalign.data.shards import UNREPORTED
from tsalign.engines import Completion, Failed, Request
from tsalign.runs.artifacts import Endpoint

SEEDS = 2**31  # some services take 32 bits only
ADVICE = "Start it or correct its url, then resume the run: what is written stays written."


# Our own types: OpenAI's either require fields that other services omit (`id`, `created`) or, from its client, check
# nothing.
class AssistantMessage(BaseModel):
    """What was said; null where the service refused to."""

    content: str | None


class Choice(BaseModel):
    """One completion."""

    message: AssistantMessage
    finish_reason: str


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class ChatCompletion(BaseModel):
    """What an answer has to hold, as far as we read it; some services do not report `usage`."""

    choices: list[Choice]
    usage: Usage | None = None


class OpenAIEngine:
    """`endpoint.concurrency` requests in flight; the same request is asked once.

    A completion carries no token ids: an endpoint shows text only. What is not a whole, well-formed answer becomes
    `Failed`, never an empty text. An endpoint that goes down leaves failures, so that nothing is lost of what it
    wrote.

    Attributes:
        counts: since they were last taken, `calls`: answers that were given, whether usable or not; `tokens`: what
            they cost, prompts and completions together; and `unreported`: answers that do not say what they cost.
    """

    def __init__(self, endpoint: Endpoint, config: EngineConfig, tensor_parallel: int = 1) -> None:
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        self._spent_tokens = 0
        self._cache: dict[bytes, Completion] = {}
        self._lock = threading.Lock()
        self._down: ServiceDown | None = None
        self._client = RetryingClient(
            Service(
                name="endpoint",
                url=endpoint.url,
                token=endpoint.token,
                advice=ADVICE,
                probe="/models",
                timeout=endpoint.request_timeout,
                patience=endpoint.patience,
                proxies=endpoint.proxies,
                application=endpoint.application,
            )
        )

    def generate(self, requests: list[Request], done: Advance = unseen) -> list[Completion | Failed]:
        """One completion a request, in order; `done` hears of each as its answer comes.

        Raises:
            TsalignError: the endpoint is down and has answered nothing of this; it does not take the key, has no such
                model, or reports no tokens while `max_spent_tokens` limits them.
        """
        self._down = None
        self._client.wake()
        bodies = [self._body(request) for request in requests]
        keys = [_key(body) for body in bodies]
        unknown = {key: body for key, body in zip(keys, bodies) if key not in self._cache}
        requested = Counter(keys)
        done(sum(times for key, times in requested.items() if key not in unknown))
        answers: dict[bytes, Completion | Failed] = {}
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            for key, answer in zip(unknown, pool.map(self._ask, unknown.values())):
                answers[key] = answer
                done(requested[key])
        if self._down and unknown and not any(isinstance(answer, Completion) for answer in answers.values()):
            raise self._down
        self._cache.update((key, answer) for key, answer in answers.items() if isinstance(answer, Completion))
        return [self._cache.get(key) or answers[key] for key in keys]

    def _body(self, request: Request) -> dict[str, Any]:
        stop = {"stop": list(request.stop)} if request.stop else {}
        return {
            "model": self.endpoint.model,
            "messages": request.prompt,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "seed": request.seed % SEEDS,
            **stop,
        }

    def _ask(self, body: dict[str, Any]) -> Completion | Failed:
        limit = self.endpoint.max_spent_tokens
        if limit is not None and self._spent_tokens >= limit:
            return Failed(
                f"not asked: {self._spent_tokens} tokens are spent, max_spent_tokens is {limit}", unanswered=True
            )
        if self._down:
            return Failed(str(self._down), unanswered=True, down=True)
        try:
            return self._read(self._client.post("/chat/completions", body))
        except Refused as error:
            return Failed(str(error))
        except Unanswered as error:
            return Failed(f"no answer: {error}", unanswered=True)
        except ServiceDown as error:
            self._down = error
            return Failed(str(error), unanswered=True, down=True)

    def _read(self, answered: Answer) -> Completion | Failed:
        try:
            answer = ChatCompletion.model_validate_json(answered.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            return Failed(f"malformed answer: {where}: {first['msg']}: {answered.text[:200]!r}")
        self._count(answer.usage)
        if len(answer.choices) != 1:
            return Failed(f"malformed answer: {len(answer.choices)} choices instead of 1")
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        if text is None or finish not in ("stop", "length"):
            return Failed(f"no completion: finish_reason is {finish}")
        return Completion(text.strip(), [], finish)

    def _count(self, usage: Usage | None) -> None:
        if usage is None and self.endpoint.max_spent_tokens is not None:
            raise TsalignError(
                f"endpoint at {self.endpoint.url} does not report the tokens that it spends, so max_spent_tokens "
                "cannot be kept; remove that key."
            )
        with self._lock:
            if usage is None:
                self.counts.update({"calls": 1, UNREPORTED: 1})
                return
            spent = usage.prompt_tokens + usage.completion_tokens
            self.counts.update(calls=1, tokens=spent)
            self._spent_tokens += spent


def _key(body: dict[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).digest()
