"""The client of a reward-model teacher: a scorer that asks over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic_core import from_json

from tsalign.common.errors import TsalignError
from tsalign.common.http import (
    ATTEMPTS,
    PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Answer,
    Refused,
    RetryingClient,
    Service,
    ServiceDown,
    Unanswered,
)
from tsalign.data.shards import UNREPORTED
from tsalign.engines import Failed
from tsalign.runs.plan import Amount, times
from tsalign.scoring import Item, LoadedScorer, Scorer

CHUNK = 64
OF_A_PART = 2  # attempts at a part of a chunk that failed as a whole
LARGEST = 3e38  # of a score: what float32 holds
RAW_CHARACTERS = 200
NOT_ASKED = Failed("not asked", unanswered=True)
ADVICE = "Start it or correct teacher.url, then resume the run: what is scored stays scored."


@dataclass(frozen=True)
class TeacherClient(Scorer):
    """Where a teacher is and how to ask it. Plain data; only the model's fingerprint identifies it.

    Attributes:
        fingerprint: of the teacher's model.
        request_timeout: seconds to wait for one answer.
        chunk: sequences in one request.
        concurrency: requests in flight.
        patience: seconds without an answer after which a teacher counts as down.
        proxies: use the proxies that the environment names (HTTP_PROXY etc.); for teachers outside the cluster.
        application: its name on Ray Serve, where a run of ours deployed it.
    """

    url: str
    token: SecretStr | None = field(default=None, repr=False)
    fingerprint: str = ""
    request_timeout: float = TIMEOUT_SECONDS
    chunk: int = CHUNK
    concurrency: int = 4
    patience: float = PATIENCE_SECONDS
    proxies: bool = False
    application: str = ""

    @property
    def remote(self) -> bool:
        """It asks over HTTP."""
        return True

    @property
    def who(self) -> str:
        """The teacher."""
        return "teacher"

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """A call a completion."""
        return {"calls": times(rows, completions)}

    def service(self) -> Service:
        """The service that it asks."""
        timeout, patience = self.request_timeout, self.patience
        name, probe = self.application, "/healthz"
        return Service("teacher", self.url, self.token, ADVICE, probe, timeout, patience, self.proxies, name)

    def load(self) -> RemoteScorer:
        """The function that scores items, with its cache and its connections."""
        return RemoteScorer(self)


class Chunk(NamedTuple):
    """What came of a chunk: a score or a failure for each item, and what it cost."""

    scores: list[float | Failed]
    counts: Counter[str]


class RemoteScorer(LoadedScorer):
    """Scores items in order; the same prompt and completion is asked once. Counts sequences as `calls`, and tokens.

    What a teacher that goes down has not answered gets no score, so that nothing is lost of what it has.
    """

    def __init__(self, client: TeacherClient) -> None:
        super().__init__()
        self.client = client
        self._cache: dict[bytes, float] = {}
        self._http = RetryingClient(client.service())

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item; None where the teacher's answer holds no finite number for it, or none came.

        Raises:
            TsalignError: the teacher is down and has answered nothing of this; or it takes no request of ours.
        """
        self.stop = ""
        self._http.wake()
        keys = [_key(item) for item in items]
        unknown = {key: item for key, item in zip(keys, items) if key not in self._cache}
        ask, size = list(unknown), self.client.chunk
        chunks = [ask[start : start + size] for start in range(0, len(ask), size)]
        unscored: dict[bytes, Failed] = {}
        with ThreadPoolExecutor(self.client.concurrency) as pool:
            answers = pool.map(self._ask, [[unknown[key] for key in chunk] for chunk in chunks])
            for chunk, answer in zip(chunks, answers):
                for key, score in zip(chunk, answer.scores):
                    if isinstance(score, Failed):
                        unscored[key] = score
                    else:
                        self._cache[key] = score
                self.counts.update(answer.counts)
                self.report(len(chunk) / len(ask))
        if self.stop and len(unscored) == len(set(keys)):
            raise TsalignError(self.stop)
        missing = {index: unscored[key] for index, key in enumerate(keys) if key in unscored}
        self.reasons = {index: why.reason for index, why in missing.items()}
        self.unanswered = {index for index, why in missing.items() if why.unanswered}
        return [self._cache.get(key) for key in keys]

    def _ask(self, items: list[Item]) -> Chunk:
        """The scores of a chunk; of one that the teacher refuses or breaks on, those of its halves, and so on."""
        chunk = Chunk([NOT_ASKED] * len(items), Counter())
        parts, attempts = deque([range(len(items))]), ATTEMPTS
        while parts:
            part = parts.popleft()
            found = self._scores(items[part.start : part.stop], attempts, chunk.counts)
            if isinstance(found, Failed) and len(part) > 1 and not self.stop:
                parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                attempts = OF_A_PART
            else:
                chunk.scores[part.start : part.stop] = [found] * len(part) if isinstance(found, Failed) else found
        return chunk

    def _scores(self, items: list[Item], attempts: int, counts: Counter[str]) -> list[float | Failed] | Failed:
        """The scores that one request gets, or why it gets none."""
        if self.stop:
            return Failed(self.stop, unanswered=True)
        groups = [list(group) for _, group in groupby(items, key=lambda item: item.prompt)]
        body = [{"prompt": group[0].prompt, "completions": [item.completion for item in group]} for group in groups]
        try:
            answer = self._http.post("/v1/score", {"items": body}, attempts)
        except Refused as error:
            return Failed(f"the teacher refused it: {error}")
        except Unanswered as error:
            return Failed(f"no answer: {error}", unanswered=True)
        except ServiceDown as error:
            self.stop = str(error)
            return Failed(self.stop, unanswered=True)
        return _read(answer, [len(group) for group in groups], counts)


def _key(item: Item) -> bytes:
    text = json.dumps([item.prompt, item.completion], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _read(answer: Answer, sizes: list[int], counts: Counter[str]) -> list[float | Failed]:
    """An answer's scores, in order, with a failure for what is missing or malformed; adds what it cost to `counts`."""
    why = Failed(f"the teacher answered {answer.text[:RAW_CHARACTERS]!r}")
    try:
        content = from_json(answer.content)
        rows = list(content["scores"])
    except (ValueError, KeyError, TypeError):
        rows, content = [], {}
    if len(rows) != len(sizes):
        rows = [None] * len(sizes)
    scores = [score for row, size in zip(rows, sizes) for score in _finite(row, size, why)]
    made, tokens = sum(not isinstance(score, Failed) for score in scores), content.get("tokens")
    known = type(tokens) is int and tokens >= 0
    counts.update({"calls": made, **({"tokens": tokens} if known else {UNREPORTED: made})})
    return scores


def _finite(row: Any, size: int, why: Failed) -> list[float | Failed]:
    if not isinstance(row, list) or len(row) != size:
        return [why] * size
    return [float(value) if _is_score(value) else why for value in row]


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST
