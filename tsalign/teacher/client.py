"""The client of a reward-model teacher: a scorer that asks over HTTP."""

from __future__ import annotations

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import httpx

from tsalign.errors import TsalignError
from tsalign.http import PATIENCE_SECONDS, Link, Unanswered, explanation
from tsalign.scoring import Item

CHUNK = 64
MEND = "Start it or mend teacher.url, then resume the run: what is scored stays scored."


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
    patience: float = PATIENCE_SECONDS
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
        self._link = Link(
            "teacher", client.url, client.token, MEND, client.request_timeout, client.patience, client.proxies
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
        try:
            response = self._link.post("/v1/score", {"items": body})
        except Unanswered:
            return Answer([None] * len(items), 0)
        if not response.is_success:
            said = f"HTTP {response.status_code}: {explanation(response)}"
            raise TsalignError(f"teacher at {self.client.url} refused the request: {said}")
        return _read(response, [len(group) for group in groups])


def _key(item: Item) -> bytes:
    text = json.dumps([item.prompt, item.completion], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


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
