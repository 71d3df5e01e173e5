"""Sampling at any OpenAI-compatible endpoint: text only, asked over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from tsalign.common.errors import TsalignError
from tsalign.common.http import RetryingClient, Unanswered, explanation
from tsalign.common.progress import Advance, unseen
from tsalign.config import EngineConfig
from tsalign.engines import Completion, Failed, Request
from tsalign.runs.artifacts import Endpoint

NOT_ABOUT_THE_REQUEST = (401, 404)
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

    prompt_tokens: int
    completion_tokens: int


class ChatCompletion(BaseModel):
    """What an answer has to hold, as far as we read it."""

    choices: list[Choice]
    usage: Usage


class OpenAIEngine:
    """`endpoint.concurrency` requests in flight; the same request is asked once.

    A completion carries no token ids: an endpoint shows text only. What is not a whole, well-formed answer becomes
    `Failed`, never an empty text.

    Attributes:
        counts: since they were last taken, `calls`: answers that were given, whether usable or not; and `tokens`: what
            they cost, prompts and completions together.
    """

    def __init__(self, endpoint: Endpoint, config: EngineConfig, tensor_parallel: int = 1) -> None:
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        self._spent_tokens = 0
        self._cache: dict[bytes, Completion] = {}
        self._lock = threading.Lock()
        self._client = RetryingClient(
            "endpoint", endpoint.url, endpoint.token, ADVICE, endpoint.request_timeout, proxies=endpoint.proxies
        )

    def generate(self, requests: list[Request], done: Advance = unseen) -> list[Completion | Failed]:
        """One completion a request, in order; `done` hears of each as its answer comes.

        Raises:
            TsalignError: the endpoint stays down, does not take the key, or has no such model.
        """
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
        try:
            response = self._client.post("/chat/completions", body)
        except Unanswered as error:
            return Failed(f"no answer: {error}", unanswered=True)
        if not response.is_success:
            said = f"HTTP {response.status_code}: {explanation(response)}"
            if response.status_code in NOT_ABOUT_THE_REQUEST:
                raise TsalignError(f"endpoint at {self.endpoint.url} refused the request: {said}")
            return Failed(said)
        return self._read(response)

    def _read(self, response: httpx.Response) -> Completion | Failed:
        try:
            answer = ChatCompletion.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            return Failed(f"malformed answer: {where}: {first['msg']}: {response.text[:200]!r}")
        with self._lock:
            spent = answer.usage.prompt_tokens + answer.usage.completion_tokens
            self.counts.update(calls=1, tokens=spent)
            self._spent_tokens += spent
        if len(answer.choices) != 1:
            return Failed(f"malformed answer: {len(answer.choices)} choices instead of 1")
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        if text is None or finish not in ("stop", "length"):
            return Failed(f"no completion: finish_reason is {finish}")
        return Completion(text.strip(), [], finish)


def _key(body: dict[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).digest()
