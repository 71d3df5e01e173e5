"""A client for one HTTP service that retries passing failures with growing, jittered pauses."""

from __future__ import annotations

import json
import logging
import random
import time
from typing import Any, NoReturn, cast

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from tsalign.common.errors import TsalignError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0


class Unanswered(Exception):
    """One request gets no answer while others do; the message says what happened instead."""


class PassingFailure(Exception):
    """A failure that is worth another attempt; `retry_after` is the pause that the server asks for, in seconds."""

    def __init__(self, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class RetryingClient:
    """Connections to one service, shared by any number of threads.

    Args:
        name: of the service, in messages.
        advice: what the user can do when the service is down, as sentences.
        timeout: seconds to wait for one answer.
        patience: seconds of failures after which the service counts as down.
        proxies: use the proxies named in the environment (HTTP_PROXY etc.); for services outside the cluster.
    """

    def __init__(
        self,
        name: str,
        url: str,
        token: str | None,
        advice: str,
        timeout: float,
        patience: float = PATIENCE_SECONDS,
        proxies: bool = False,
    ) -> None:
        self.name, self.url, self.advice, self.patience = name, url.rstrip("/"), advice, patience
        self._answered = 0.0
        self._down = False
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            limits=httpx.Limits(),  # the callers' thread pools bound the connections
            trust_env=proxies,
        )

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The first answer that is not a passing failure: a success, or a refusal (4xx other than 429).

        Raises:
            Unanswered: this request alone fails for longer than `patience`.
            TsalignError: all requests do.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(PassingFailure),
            stop=stop_after_delay(self.patience),
            wait=pause,
            before_sleep=self._warn,
            retry_error_callback=self._give_up,
        )
        return retrying(self._attempt, path, body)

    def _attempt(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            response = self._http.post(self.url + path, json=body)
        except httpx.TransportError as error:
            raise PassingFailure(f"{type(error).__name__}: {error}") from error
        if response.status_code >= 500 or response.status_code == 429:
            asked = response.headers.get("Retry-After", "")
            problem = f"HTTP {response.status_code}: {explanation(response)}"
            raise PassingFailure(problem, float(asked) if asked.isdigit() else 0.0)
        self._answered, self._down = time.monotonic(), False
        return response

    def _warn(self, state: RetryCallState) -> None:
        if not self._down:
            logger.warning("%s at %s does not answer (%s); waiting", self.name, self.url, failure(state))
        self._down = True

    def _give_up(self, state: RetryCallState) -> NoReturn:
        tried = f"{state.attempt_number} attempts in {state.seconds_since_start:.0f} s, the last: {failure(state)}."
        if self._answered > state.start_time:
            raise Unanswered(tried)
        raise TsalignError(f"{self.name} at {self.url} is down: {tried} {self.advice}")


def failure(state: RetryCallState) -> PassingFailure:
    """Why the last attempt failed; only passing failures are retried."""
    return cast(PassingFailure, cast(Any, state.outcome).exception())


BACKOFF = wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)


def pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: exponential, jittered to spread clients out, at least what the server asks."""
    return max(BACKOFF(state) * random.uniform(0.5, 1.0), failure(state).retry_after * random.uniform(1.0, 1.5))


def explanation(response: httpx.Response) -> str:
    """The server's own words: FastAPI's `detail`, OpenAI's `error.message`, else the start of the text."""
    try:
        content = response.json()
        said = content["detail"] if "detail" in content else content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return (said if isinstance(said, str) else json.dumps(said))[:500]
