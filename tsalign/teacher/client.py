"""The client of a teacher service: a scorer that asks over HTTP."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import httpx

from tsalign.errors import TsalignError
from tsalign.scoring import Item

logger = logging.getLogger(__name__)

CHUNK = 64
CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0


@dataclass(frozen=True)
class TeacherClient:
    """Where a teacher is and how to ask it. Plain data; only the model's fingerprint identifies it.

    Attributes:
        fingerprint: of the teacher's model.
        request_timeout: seconds to wait for one answer.
        chunk: sequences in one request.
        concurrency: requests in flight.
        patience: seconds of failures after which a teacher counts as down.
        proxies: heed HTTP_PROXY and its kin, for teachers outside the cluster.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    request_timeout: float = 120.0
    chunk: int = CHUNK
    concurrency: int = 4
    patience: float = 120.0
    proxies: bool = False

    def load(self) -> RemoteScorer:
        """The function that scores items, with its cache and its connections."""
        return RemoteScorer(self)


class Answer(NamedTuple):
    """What came back for one chunk."""

    scores: list[float | None]
    tokens: int


class RemoteScorer:
    """Scores items in order; the same prompt and completion is asked once.

    Attributes:
        calls: sequences that the teacher scored.
        tokens: tokens that it scored.
    """

    def __init__(self, client: TeacherClient) -> None:
        self.client = client
        self.calls = self.tokens = 0
        self._cache: dict[bytes, float | None] = {}
        self._down = False
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {client.token}"} if client.token else {},
            timeout=httpx.Timeout(client.request_timeout, connect=CONNECT_SECONDS),
            trust_env=client.proxies,
        )

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item; None where the teacher's answer holds no finite number for it.

        Raises:
            TsalignError: the teacher stays down, or refuses the request.
        """
        keys = [_key(item) for item in items]
        unknown = {key: item for key, item in zip(keys, items) if self._cache.get(key) is None}
        ask, size = list(unknown), self.client.chunk
        chunks = [ask[start : start + size] for start in range(0, len(ask), size)]
        with ThreadPoolExecutor(self.client.concurrency) as pool:
            answers = pool.map(self._ask, [[unknown[key] for key in chunk] for chunk in chunks])
            for chunk, answer in zip(chunks, answers):
                self._cache.update(zip(chunk, answer.scores))
                self.calls += len(answer.scores) - answer.scores.count(None)
                self.tokens += answer.tokens
        return [self._cache[key] for key in keys]

    def _ask(self, items: list[Item]) -> Answer:
        groups = [list(group) for _, group in groupby(items, key=lambda item: item.prompt)]
        body = [{"prompt": group[0].prompt, "completions": [item.completion for item in group]} for group in groups]
        return _read(self._post({"items": body}), [len(group) for group in groups])

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        """The first answer that is not a passing failure."""
        start, attempt = time.monotonic(), 0
        while True:
            response = None
            try:
                response = self._http.post(f"{self.client.url.rstrip('/')}/v1/score", json=body)
                if response.is_success:
                    self._down = False
                    return response
                problem = f"HTTP {response.status_code}: {_message(response)}"
                if response.status_code < 500 and response.status_code != 429:
                    raise TsalignError(f"teacher at {self.client.url} refused the request: {problem}")
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            attempt += 1
            waited = time.monotonic() - start
            if waited > self.client.patience:
                raise TsalignError(
                    f"teacher at {self.client.url} is down: {attempt} attempts in {waited:.0f} s, the last: {problem}. "
                    "Start it or mend teacher.url, then resume the run: what is scored stays scored."
                )
            self._warn(problem)
            time.sleep(_pause(attempt, response))

    def _warn(self, problem: str) -> None:
        if not self._down:
            logger.warning("teacher at %s does not answer (%s); waiting", self.client.url, problem)
        self._down = True


def _key(item: Item) -> bytes:
    text = json.dumps([item.prompt, item.completion], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _pause(attempt: int, response: httpx.Response | None) -> float:
    """Exponential, with jitter so that clients do not come back together; longer where the server says so."""
    pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return max(pause, float(asked) * random.uniform(1.0, 1.5)) if asked.isdigit() else pause


def _message(response: httpx.Response) -> str:
    """The server's explanation: FastAPI's `detail`, else the start of the text."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return (detail if isinstance(detail, str) else json.dumps(detail))[:500]


def _read(response: httpx.Response, counts: list[int]) -> Answer:
    """An answer's scores, in order, with None for whatever is not as asked."""
    try:
        content = response.json()
        rows, tokens = list(content["scores"]), int(content.get("tokens", 0))
    except (ValueError, KeyError, TypeError):
        return Answer([None] * sum(counts), 0)
    if len(rows) != len(counts):
        return Answer([None] * sum(counts), tokens)
    return Answer([score for row, count in zip(rows, counts) for score in _finite(row, count)], tokens)


def _finite(row: Any, count: int) -> list[float | None]:
    if not isinstance(row, list) or len(row) != count:
        return [None] * count
    return [float(v) if type(v) in (int, float) and math.isfinite(v) else None for v in row]
