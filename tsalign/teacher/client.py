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

from tsalign.common.errors import TsalignError
from tsalign.common.http import PATIENCE_SECONDS, RetryingClient, Unanswered, explanation
from tsalign.engines import Failed
from tsalign.runs.plan import Amount, times
from tsalign.scoring import Item, LoadedScorer, Scorer

CHUNK = 64
RAW_CHARACTERS = 200
ADVICE = "Start it or correct teacher.url, then resume the run: what is scored stays scored."


@dataclass(frozen=True)
class TeacherClient(Scorer):
    """Where a teacher is and how to ask it. Plain data; only the model's fingerprint identifies it.

    Attributes:
        fingerprint: of the teacher's model.
        request_timeout: seconds to wait for one answer.
        chunk: sequences in one request.
        concurrency: requests in flight.
        patience: seconds of failures after which a teacher counts as down.
        proxies: use the proxies that the environment names (HTTP_PROXY etc.); for teachers outside the cluster.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    request_timeout: float = 120.0
    chunk: int = CHUNK
    concurrency: int = 4
    patience: float = PATIENCE_SECONDS
    proxies: bool = False

    @property
    def who(self) -> str:
        """The teacher."""
        return "teacher"

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """A call a completion."""
        return {"calls": times(rows, completions)}

    def load(self) -> RemoteScorer:
        """The function that scores items, with its cache and its connections."""
        return RemoteScorer(self)


class ChunkScores(NamedTuple):
    """What came back for one chunk: scores in order, tokens that were scored, why some have no score."""

    scores: list[float | None]
    tokens: int
    why: Failed = Failed("")


class RemoteScorer(LoadedScorer):
    """Scores items in order; the same prompt and completion is asked once. Counts sequences as `calls`, and tokens."""

    def __init__(self, client: TeacherClient) -> None:
        super().__init__()
        self.client = client
        self._cache: dict[bytes, float] = {}
        self._http = RetryingClient(
            "teacher", client.url, client.token, ADVICE, client.request_timeout, client.patience, client.proxies
        )

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item; None where the teacher's answer holds no finite number for it.

        Raises:
            TsalignError: the teacher stays down, or refuses the request.
        """
        keys = [_key(item) for item in items]
        unknown = {key: item for key, item in zip(keys, items) if key not in self._cache}
        ask, size = list(unknown), self.client.chunk
        chunks = [ask[start : start + size] for start in range(0, len(ask), size)]
        unscored: dict[bytes, Failed] = {}
        with ThreadPoolExecutor(self.client.concurrency) as pool:
            answers = pool.map(self._ask, [[unknown[key] for key in chunk] for chunk in chunks])
            for chunk, answer in zip(chunks, answers):
                scored = {key: score for key, score in zip(chunk, answer.scores) if score is not None}
                self._cache |= scored
                unscored |= {key: answer.why for key in chunk if key not in scored}
                self.counts.update(calls=len(scored), tokens=answer.tokens)
                self.report(len(chunk) / len(ask))
        missing = {index: unscored[key] for index, key in enumerate(keys) if key in unscored}
        self.reasons = {index: why.reason for index, why in missing.items()}
        self.unanswered = {index for index, why in missing.items() if why.unanswered}
        return [self._cache.get(key) for key in keys]

    def _ask(self, items: list[Item]) -> ChunkScores:
        groups = [list(group) for _, group in groupby(items, key=lambda item: item.prompt)]
        body = [{"prompt": group[0].prompt, "completions": [item.completion for item in group]} for group in groups]
        try:
            response = self._http.post("/v1/score", {"items": body})
        except Unanswered as error:
            return ChunkScores([None] * len(items), 0, Failed(f"no answer: {error}", unanswered=True))
        if not response.is_success:
            said = f"HTTP {response.status_code}: {explanation(response)}"
            raise TsalignError(f"teacher at {self.client.url} refused the request: {said}")
        return _read(response, [len(group) for group in groups])


def _key(item: Item) -> bytes:
    text = json.dumps([item.prompt, item.completion], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _read(response: httpx.Response, counts: list[int]) -> ChunkScores:
    """An answer's scores, in order, with None for what is missing or malformed."""
    why = Failed(f"the teacher answered {response.text[:RAW_CHARACTERS]!r}")
    try:
        content = response.json()
        rows, tokens = list(content["scores"]), int(content.get("tokens", 0))
    except (ValueError, KeyError, TypeError):
        return ChunkScores([None] * sum(counts), 0, why)
    if len(rows) != len(counts):
        return ChunkScores([None] * sum(counts), tokens, why)
    scores = [score for row, count in zip(rows, counts) for score in _finite(row, count)]
    return ChunkScores(scores, tokens, why)


def _finite(row: Any, count: int) -> list[float | None]:
    if not isinstance(row, list) or len(row) != count:
        return [None] * count
    return [float(v) if type(v) in (int, float) and math.isfinite(v) else None for v in row]
