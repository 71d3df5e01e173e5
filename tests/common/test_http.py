"""The client of a service that misbehaves: what is tried again, for how long, and what each trouble is called."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from fault_server import Reply, server
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying

from tsalign.common import http
from tsalign.common.errors import TsalignError
from tsalign.common.http import (
    ATTEMPTS,
    BROKEN,
    REFUSED,
    Answer,
    PassingFailure,
    Refused,
    RetryingClient,
    Service,
    ServiceDown,
    Unanswered,
    explanation,
    seconds_to_wait,
)

GOOD: Reply = (200, {"fine": True})
SECRET = "a-secret-of-the-tests"


def client(url: str, **settings: Any) -> RetryingClient:
    return RetryingClient(
        Service(
            "teacher", url, SecretStr(SECRET), "Start it.", "/healthz", **{"timeout": 5, "patience": 20, **settings}
        )
    )


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that do not grow."""
    monkeypatch.setattr(http, "BACKOFF", lambda _: 0.01)


@pytest.mark.parametrize(
    "fault",
    [
        *((status, b"broken") for status in (500, 501, 502, 503, 504, 507, 520, 529, 429)),
        (None, b""),
        (299, b'{"fine": tr'),
        (200, b"no gzip", {"Content-Encoding": "gzip"}),
        (200, gzip.compress(b"x" * 5000), {"Content-Encoding": "gzip"}),
        (200, b"x" * 5000),
        (503, b"", {"Retry-After": "0"}),
        (503, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        (503, b"", {"Retry-After": "soon"}),
    ],
)
def test_what_passes_is_tried_again(fault: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 4000)
    with server(lambda n, _: fault if n < 2 else GOOD) as (url, seen):
        assert client(url).post("/v1/score", {"x": 1}).content == b'{"fine": true}'
    assert seen == [{"x": 1}] * 3


@pytest.mark.parametrize("status", [400, 403, 406, 409, 413, 415, 418, 422, 451])
def test_a_refusal_of_one_request_is_not_tried_again(status: int) -> None:
    with server(lambda n, _: GOOD if n else (status, {"detail": "too long"})) as (url, seen):
        asked = client(url)
        with pytest.raises(Refused, match=f"^HTTP {status}: too long$"):
            asked.post("/v1/score", {})
        assert asked.post("/v1/score", {}).status == 200
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        *(((status, {"error": {"message": "no such key"}}), f"HTTP {status}: no such key") for status in (401, 402)),
        *(
            ((status, b"<html>\n<h1>not \x1b[31mhere</h1>"), f"HTTP {status}: <html> <h1>not ?[31mhere")
            for status in (404, 405)
        ),
        *(((status, b"", {"Location": "https://x/"}), f"HTTP {status}: https://x/") for status in (301, 302, 307, 308)),
        ((304, b""), "HTTP 304: "),
    ],
)
def test_what_concerns_all_requests_is_said_at_once(answer: Reply, said: str) -> None:
    with server(lambda *_: answer) as (url, seen), pytest.raises(TsalignError) as caught:
        client(url).post("/v1/score", {})
    assert not isinstance(caught.value, ServiceDown)
    assert str(caught.value).startswith(f"teacher at {url} refused the request: {said}")
    assert len(seen) == 1


def test_a_service_that_refuses_everything_is_not_asked_for_ever() -> None:
    with server(lambda *_: (400, {"detail": "unknown parameter: seed"})) as (url, seen):
        asked = client(url)
        for _ in range(REFUSED):
            with pytest.raises(Refused):
                asked.post("/v1/score", {})
        with pytest.raises(TsalignError, match="refused the request: HTTP 400: unknown parameter: seed"):
            asked.post("/v1/score", {})
    assert len(seen) == REFUSED + 1


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d x"])
def test_what_is_no_text_is_not_sent(text: str) -> None:
    with pytest.raises(Refused, match=r"^not sent: 'utf-8' codec can't encode"):
        client("http://nowhere").post("/v1/score", {"prompt": text})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_sent(number: float) -> None:
    with pytest.raises(Refused, match=r"^not sent: Out of range"):
        client("http://nowhere").post("/v1/score", {"temperature": number})


@pytest.mark.parametrize("fault", [(500, b"it breaks me"), (None, b""), (299, b"{")])
def test_a_request_that_breaks_while_others_are_answered_fails_alone(fault: Reply) -> None:
    def behave(_: int, body: dict[str, Any]) -> Reply:
        return fault if body["poison"] else GOOD

    with server(behave) as (url, seen):
        asked = client(url, patience=600)
        for attempts in (ATTEMPTS, 2):
            seen.clear()
            with pytest.raises(Unanswered, match=f"^{attempts} attempts in "):
                asked.post("/v1/score", {"poison": True}, attempts)
            assert len(seen) == attempts
            assert asked.post("/v1/score", {"poison": False}).status == 200


def test_a_service_that_breaks_on_everything_is_down() -> None:
    with server(lambda *_: (500, b"out of memory")) as (url, _):
        asked = client(url, patience=600)
        for _ in range(BROKEN):
            with pytest.raises(Unanswered):
                asked.post("/v1/score", {}, attempts=1)
        with pytest.raises(
            ServiceDown, match=r"is down: 1 attempts in \d+ s, the last: HTTP 500: out of memory\. Start"
        ):
            asked.post("/v1/score", {}, attempts=1)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_service_that_is_not_up_is_waited_for_as_long_as_patience_says(status: int) -> None:
    with (
        server(lambda *_: (status, b"loading"), probes=503) as (url, seen),
        pytest.raises(ServiceDown, match=rf"teacher at {url} is down: \d+ attempts in \d+ s, the last: HTTP {status}"),
    ):
        client(url, patience=0.6).post("/v1/score", {})
    assert len(seen) > 1


def test_a_cold_start_may_take_several_timeouts() -> None:
    def behave(n: int, _: dict[str, Any]) -> Reply:
        return GOOD if n > 12 else (None, b"")

    with server(behave, probes=503) as (url, seen):
        assert client(url, timeout=0.05).post("/v1/score", {}).status == 200
    assert len(seen) >= 14


def test_an_address_at_which_nothing_ever_answered_is_a_mistake_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONTACT_SECONDS", 0)
    with server(lambda *_: GOOD) as (url, _):
        known = client(url, patience=0.6)
        assert known.post("/v1/score", {}).status == 200
    with pytest.raises(ServiceDown, match=r"down: 1 attempts in .* ConnectError"):
        client(url, patience=600).post("/v1/score", {})
    with pytest.raises(ServiceDown, match=r"down: (?!1 )\d+ attempts in .* ConnectError"):
        known.post("/v1/score", {})


def test_what_is_asked_of_a_service_that_is_down_is_given_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LAST_TRY_SECONDS", 0)
    down = True
    with server(lambda *_: (503, b"") if down else GOOD, probes=503) as (url, _):
        asked = client(url, patience=1)
        for attempts in (r"(?!1 )\d+", "1"):
            with pytest.raises(ServiceDown, match=f"down: {attempts} attempts"):
                asked.post("/v1/score", {})
        down = False
        assert asked.post("/v1/score", {}).status == 200
        assert not asked._down


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://x:port", "ftp://x", "//x", "x", "http://", "http://\x00"],
)
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(TsalignError, match=r"teacher at .* cannot be asked: \w+\.$"):
        client(url, patience=600).post("/v1/score", {})


def test_https_where_there_is_none_is_said_at_once() -> None:
    with server(lambda *_: GOOD) as (url, _), pytest.raises(TsalignError, match=r"cannot be asked: \[SSL"):
        client(url.replace("http:", "https:"), patience=600).post("/v1/score", {})


@pytest.mark.parametrize("bad", ["\n", "\r\nX-Other: 1", "\x00"])
def test_no_message_shows_a_token_that_cannot_be_sent(bad: str) -> None:
    with server(lambda *_: GOOD) as (url, _):
        service = Service("teacher", url, SecretStr(SECRET + bad), "", "/healthz", patience=600)
        with pytest.raises(TsalignError, match="cannot be asked: LocalProtocolError") as caught:
            RetryingClient(service).post("/v1/score", {})
    error: BaseException | None = caught.value
    assert SECRET not in f"{error!r} {service!r}"
    assert caught.value.__suppress_context__


def test_pauses_end_with_the_patience() -> None:
    asked = client("http://nowhere", patience=100)
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((PassingFailure, PassingFailure("full", retry_after=3600), None))
    state.outcome_timestamp = state.start_time + 93
    assert asked._pause(state) == pytest.approx(7)
    state.outcome_timestamp = state.start_time + 101
    assert asked._pause(state) == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("0", 0),
        ("7", 7),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        ("²", 0),
        ("Wed, 99 Oct 2015", 0),
    ],
)
def test_retry_after_is_seconds(header: str, seconds: float) -> None:
    assert seconds_to_wait(header) == seconds


@pytest.mark.parametrize(("hours", "seconds"), [(1, 3600), (-1, 0)])
@pytest.mark.parametrize("gmt", [True, False])
def test_retry_after_is_a_date(hours: int, seconds: float, gmt: bool) -> None:
    now = datetime.now(UTC)
    header = format_datetime((now if gmt else now.replace(tzinfo=None)) + timedelta(hours=hours), usegmt=gmt)
    assert seconds_to_wait(header) == pytest.approx(seconds, abs=60)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["x"]}]}, '[{"loc": ["x"]}]'),
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, '{"error": "no"}'),
        ({"error": None}, '{"error": null}'),
        ([1], "[1]"),
        (5, "5"),
        (None, "null"),
        ("text", '"text"'),
        ({"detail": "two\nlines\x07"}, "two lines?"),
        ({"detail": "x" * 1000}, "x" * 500),
    ],
)
def test_a_refusal_is_told_in_the_server_s_words(content: Any, said: str) -> None:
    assert explanation(Answer(400, httpx.Headers(), json.dumps(content).encode())) == said


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"detail": "\\ud800"}'])
def test_what_is_no_json_is_told_as_it_is(content: bytes) -> None:
    said = explanation(Answer(400, httpx.Headers(), content))
    assert said == content.decode(errors="replace")[:500]
