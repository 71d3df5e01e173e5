"""A client for one HTTP service: it waits out what passes, and tells an outage from a request that is the trouble."""

from __future__ import annotations

import json
import logging
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, NoReturn, cast

import httpx
from pydantic import SecretStr
from pydantic_core import from_json
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from tsalign.common.applications import application_state
from tsalign.common.errors import TsalignError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS, PATIENCE_SECONDS = 120.0, 1800.0
CONNECT_SECONDS = 5.0
CONTACT_SECONDS = 120.0  # for an address at which nothing ever answered: a mistake should show
LAST_TRY_SECONDS = 30.0  # for what is asked after the service counted as down
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
ATTEMPTS = 8  # some 20 s
TIMEOUTS = 3
BROKEN, REFUSED = 8, 100  # requests, none of them with success, after which the trouble is the service
MAX_ANSWER_BYTES = 64 << 20
CONCERNS_ALL = (401, 402, 404, 405)
BUSY = (429, 502, 503, 504, 529)


@dataclass(frozen=True)
class Service:
    """An HTTP service, and how long to wait for it.

    Attributes:
        name: in messages.
        advice: what the user can do when it is down, as sentences.
        probe: a path that it answers while it is up, whatever the answer.
        timeout: seconds to wait for one answer.
        patience: seconds without an answer after which it counts as down.
        proxies: use the proxies named in the environment (HTTP_PROXY etc.); for services outside the cluster.
        application: its name on the Ray Serve of this cluster, where it runs there.
    """

    name: str
    url: str
    token: SecretStr | None = field(repr=False)
    advice: str
    probe: str
    timeout: float = TIMEOUT_SECONDS
    patience: float = PATIENCE_SECONDS
    proxies: bool = False
    application: str = ""


class Answer(NamedTuple):
    """What a service answered."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def text(self) -> str:
        """The content as one line."""
        return " ".join(self.content.decode(errors="replace").split())


class Unanswered(Exception):
    """One request gets no answer while others do; the message says what happened instead."""


class Refused(Exception):
    """The service refuses this request, others not; the message has its words."""


class ServiceDown(TsalignError):
    """No request gets an answer."""


class PassingFailure(Exception):
    """A failure that is worth another attempt.

    Attributes:
        retry_after: the pause that the server asks for, in seconds.
        breaks: the request itself may be the cause.
        contact: nobody was reached.
    """

    def __init__(self, problem: str, *, retry_after: float = 0.0, breaks: bool = False, contact: bool = False) -> None:
        super().__init__(problem)
        self.retry_after, self.breaks, self.contact = retry_after, breaks, contact


class RetryingClient:
    """Connections to one service, shared by any number of threads."""

    def __init__(self, service: Service) -> None:
        self.service, self.url = service, service.url.rstrip("/")
        self._answered = self._probed = 0.0
        self._broken = self._refused = 0  # requests, those broken in a row
        self._accepts = self._down = self._warned = False
        token = service.token
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token.get_secret_value()}"} if token else {},
            timeout=httpx.Timeout(service.timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(),  # the callers' thread pools bound the connections
            trust_env=service.proxies,
        )

    def wake(self) -> None:
        """Wait until a Ray Serve application that sleeps has loaded its model: a cold start is no outage.

        Nor is it one that other actors hold the GPU that the application needs: that time does not count.

        Raises:
            ServiceDown: it does not come up within the service's patience; with Serve's words.
        """
        if not self.service.application:
            return
        spent, last = 0.0, time.monotonic()
        while not (state := application_state(self.service.application)).replicas:
            now = time.monotonic()
            spent, last = spent + (0.0 if state.in_turn else now - last), now
            if state.status in ("DEPLOY_FAILED", "removed") or spent > self.service.patience:
                problem = f"{self.service.name} is not up after {spent:.0f} s: {state.said}"
                raise ServiceDown(f"{problem} {self.service.advice}")
            self._up()  # a request wakes it
            time.sleep(FIRST_PAUSE_SECONDS)

    def post(self, path: str, body: dict[str, Any], attempts: int = ATTEMPTS) -> Answer:
        """The first successful answer.

        Args:
            attempts: at a request that breaks the service, or that it breaks on.

        Raises:
            Refused: this request is malformed.
            Unanswered: this request alone fails, after `attempts` or for longer than the service's patience.
            ServiceDown: all requests do.
            TsalignError: the service can take none of our requests: the address, the token or the model is wrong.
        """
        try:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:
            raise Refused(f"not sent: {error}") from error
        retrying = Retrying(
            retry=retry_if_exception_type(PassingFailure),
            stop=lambda state: self._stop(state, attempts),
            wait=self._pause,
            before_sleep=self._warn,
            retry_error_callback=self._give_up,
        )
        return self._accepted(retrying(self._attempt, path, content))

    def _accepted(self, answer: Answer) -> Answer:
        """The answer, unless it is a refusal."""
        if answer.status < 300:
            self._accepts = True
            return answer
        said = f"HTTP {answer.status}: {explanation(answer)}"
        self._refused += 1
        none_accepted = self._refused > REFUSED and not self._accepts
        if answer.status < 400 or answer.status in CONCERNS_ALL or none_accepted:
            raise TsalignError(f"{self.service.name} at {self.url} refused the request: {said}")
        raise Refused(said)

    def _attempt(self, path: str, content: bytes) -> Answer:
        try:
            answer = self._exchange(path, content)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            # Its text may hold what we send, the token included.
            raise TsalignError(f"{self.service.name} at {self.url} cannot be asked: {type(error).__name__}.") from None
        except httpx.RequestError as error:
            if str(error).startswith("[SSL"):
                raise TsalignError(f"{self.service.name} at {self.url} cannot be asked: {error}.") from error
            contact = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
            raise PassingFailure(f"{type(error).__name__}: {error}", breaks=not contact, contact=contact) from error
        if answer.status >= 500 or answer.status in BUSY:
            raise PassingFailure(
                f"HTTP {answer.status}: {explanation(answer)}",
                retry_after=seconds_to_wait(answer.headers.get("Retry-After", "")),
                breaks=answer.status not in BUSY,
            )
        self._answered, self._broken, self._down, self._warned = time.monotonic(), 0, False, False
        return answer

    def _exchange(self, path: str, content: bytes) -> Answer:
        """One request and what comes back, of which no more is read than an answer can have."""
        deadline, read = time.monotonic() + self.service.timeout, bytearray()
        headers = {"Content-Type": "application/json"}
        with self._http.stream("POST", self.url + path, content=content, headers=headers) as response:
            for part in response.iter_bytes():
                read += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer did not end in time")
                if len(read) > MAX_ANSWER_BYTES:
                    raise httpx.DecodingError(f"the answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")
        return Answer(response.status_code, response.headers, bytes(read))

    def _stop(self, state: RetryCallState, attempts: int) -> bool:
        problem, spent = failure(state), cast(float, state.seconds_since_start)
        tried = state.attempt_number >= attempts or spent >= TIMEOUTS * self.service.timeout
        if problem.breaks and tried and (self._answered > state.start_time or self._up()):
            return True
        return spent >= self._patience(problem)

    def _patience(self, problem: PassingFailure) -> float:
        """How long a failure like this one may last."""
        least = [self.service.patience]
        least += [CONTACT_SECONDS] if problem.contact and not self._answered else []
        least += [LAST_TRY_SECONDS] if self._down else []
        return min(least)

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt, but not beyond the patience that is left."""
        left = self._patience(failure(state)) - cast(float, state.seconds_since_start)
        return min(pause(state), max(0.0, left))

    def _up(self) -> bool:
        """Whether the service answers its probe."""
        try:
            up = self._http.get(self.url + self.service.probe, timeout=CONNECT_SECONDS).status_code < 500
        except httpx.RequestError:
            return False
        self._probed = time.monotonic() if up else self._probed
        return up

    def _warn(self, state: RetryCallState) -> None:
        if not self._warned:
            logger.warning("%s at %s does not answer (%s); waiting", self.service.name, self.url, failure(state))
        self._warned = True

    def _give_up(self, state: RetryCallState) -> NoReturn:
        tried = f"{state.attempt_number} attempts in {state.seconds_since_start:.0f} s, the last: {failure(state)}."
        self._broken += 1
        if self._broken <= BROKEN and max(self._answered, self._probed) > state.start_time:
            raise Unanswered(tried)
        self._down = True
        raise ServiceDown(f"{self.service.name} at {self.url} is down: {tried} {self.service.advice}")


def failure(state: RetryCallState) -> PassingFailure:
    """Why the last attempt failed; only passing failures are retried."""
    return cast(PassingFailure, cast(Any, state.outcome).exception())


BACKOFF = wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)


def pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: exponential, jittered to spread clients out, at least what the server asks."""
    return max(BACKOFF(state) * random.uniform(0.5, 1.0), failure(state).retry_after * random.uniform(1.0, 1.5))


def seconds_to_wait(retry_after: str) -> float:
    """The seconds of a `Retry-After` header, which has them or a date; 0 for none and for what is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def explanation(answer: Answer) -> str:
    """The server's own words: FastAPI's `detail`, OpenAI's `error.message`, else the start of the text."""
    try:
        content = from_json(answer.content)
        said = content["detail"] if "detail" in content else content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.headers.get("Location") or answer.text
    line = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line[:500])
