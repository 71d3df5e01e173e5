"""Asking a service over HTTP through its passing failures: retries with growing, jittered pauses."""

from __future__ import annotations

import json
import logging
import random
import time
from typing import Any

import httpx

from tsalign.errors import TsalignError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0


class Unanswered(Exception):
    """One request gets no answer while others get theirs; the message says what came instead."""


class Link:
    """Connections to one service, for any number of threads.

    Args:
        name: of the service, in messages.
        mend: what to do when it is down, as sentences.
        timeout: seconds to wait for one answer.
        patience: seconds of failures after which it counts as down.
        proxies: heed HTTP_PROXY and its kin, for services outside the cluster.
    """

    def __init__(
        self,
        name: str,
        url: str,
        token: str | None,
        mend: str,
        timeout: float,
        patience: float = PATIENCE_SECONDS,
        proxies: bool = False,
    ) -> None:
        self.name, self.url, self.mend, self.patience = name, url.rstrip("/"), mend, patience
        self._answered = 0.0
        self._down = False
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            limits=httpx.Limits(),
            trust_env=proxies,
        )

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The first answer that is not a passing failure: a success, or a refusal (4xx other than 429).

        Raises:
            Unanswered: this request alone fails for longer than `patience`.
            TsalignError: so do all.
        """
        start, attempt = time.monotonic(), 0
        while True:
            response = None
            try:
                response = self._http.post(self.url + path, json=body)
                if response.status_code < 500 and response.status_code != 429:
                    self._answered, self._down = time.monotonic(), False
                    return response
                problem = f"HTTP {response.status_code}: {explanation(response)}"
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            attempt += 1
            waited = time.monotonic() - start
            if waited > self.patience:
                tried = f"{attempt} attempts in {waited:.0f} s, the last: {problem}."
                if self._answered > start:
                    raise Unanswered(tried)
                raise TsalignError(f"{self.name} at {self.url} is down: {tried} {self.mend}")
            self._warn(problem)
            time.sleep(pause(attempt, response))

    def _warn(self, problem: str) -> None:
        if not self._down:
            logger.warning("%s at %s does not answer (%s); waiting", self.name, self.url, problem)
        self._down = True


def pause(attempt: int, response: httpx.Response | None) -> float:
    """Exponential, with jitter so that clients do not come back together; longer where the server says so."""
    seconds = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return max(seconds, float(asked) * random.uniform(1.0, 1.5)) if asked.isdigit() else seconds


def explanation(response: httpx.Response) -> str:
    """The server's own words: FastAPI's `detail`, OpenAI's `error.message`, else the start of the text."""
    try:
        content = response.json()
        said = content["detail"] if "detail" in content else content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return (said if isinstance(said, str) else json.dumps(said))[:500]
