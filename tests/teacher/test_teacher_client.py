"""The client of a teacher against servers that misbehave."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from fault_server import Reply, server
from tenacity import RetryCallState, Retrying

from tsalign.common.errors import TsalignError
from tsalign.common.http import PassingFailure, RetryingClient, pause
from tsalign.scoring import Item
from tsalign.teacher.client import TeacherClient

COMPLETIONS = ["apple", "apple pear", "", "pear apple fig lemon", "Fig!", "a b c d"]
ITEMS = [Item([{"role": "user", "content": f"sort: {'lemon ' * n}"}], text) for n in range(20) for text in COMPLETIONS]


def right(content: dict[str, Any]) -> Reply:
    """Scores that tell the items apart: the lengths of the completions."""
    scores = [[float(len(text)) for text in item["completions"]] for item in content["items"]]
    return 200, {"scores": scores, "tokens": 7, "model": "m"}


def test_client_keeps_order_groups_prompts_and_asks_once() -> None:
    with server(lambda _, content: right(content)) as (url, seen):
        scorer = TeacherClient(url, chunk=10).load()
        shares: list[float] = []
        scorer.report = shares.append
        assert scorer(ITEMS + ITEMS[::-1]) == [float(len(item.completion)) for item in ITEMS + ITEMS[::-1]]
        assert scorer(ITEMS[5:9]) == [float(len(item.completion)) for item in ITEMS[5:9]]
        assert scorer([]) == []
    assert shares == pytest.approx([10 / len(ITEMS)] * (len(ITEMS) // 10)), "after each chunk"
    sizes = [sum(len(item["completions"]) for item in content["items"]) for content in seen]
    assert sizes == [10] * (len(ITEMS) // 10)
    assert any(len(item["completions"]) > 1 for content in seen for item in content["items"])
    assert scorer.counts == {"calls": len(ITEMS), "tokens": 7 * len(seen)}


def _hang(_: dict[str, Any]) -> Reply:
    time.sleep(1.5)
    return 200, {}


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: (500, {"detail": "broken"}),
        lambda _: (503, b"starting"),
        lambda _: (429, {"detail": "full"}),
        lambda _: (299, b'{"scores": [['),  # announces more bytes than it sends
        _hang,
    ],
    ids=["500", "503", "429", "cut", "hang"],
)
def test_client_comes_back_after_a_passing_fault(
    fault: Callable[[dict[str, Any]], Reply], caplog: pytest.LogCaptureFixture
) -> None:
    with server(lambda n, content: right(content) if n > 1 else fault(content)) as (url, seen):
        scorer = TeacherClient(url, request_timeout=0.5, patience=20).load()
        with caplog.at_level(logging.WARNING):
            assert scorer(ITEMS[:4]) == [float(len(item.completion)) for item in ITEMS[:4]]
    assert len(seen) == 3
    assert scorer.counts["calls"] == 4
    assert [record.getMessage() for record in caplog.records if "does not answer" in record.getMessage()] == [
        next(record.getMessage() for record in caplog.records if url in record.getMessage())
    ], "one line for one outage"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"scores": [[1.0]]}, [None, None]),
        ({"scores": [[1.0], [2.0, 3.0]]}, [1.0, None]),
        ({"scores": [None, [2.0]]}, [None, 2.0]),
        ({"scores": [["high"], [True]]}, [None, None]),
        (b'{"scores": [[NaN], [Infinity]]}', [None, None]),
        ({"scores": 5}, [None, None]),
        ({"result": "fine"}, [None, None]),
        ([], [None, None]),
        (b"<html>", [None, None]),
    ],
)
def test_client_never_makes_up_a_score(answer: Any, expected: list[float | None]) -> None:
    items = [ITEMS[0], ITEMS[6]]  # two prompts, so two rows
    with server(lambda n, content: right(content) if n else (200, answer)) as (url, seen):
        scorer = TeacherClient(url).load()
        assert scorer(items) == expected
        assert scorer.counts["calls"] == 2 - expected.count(None)
        assert scorer.reasons.keys() == {index for index, score in enumerate(expected) if score is None}
        assert all(reason.startswith("the teacher answered '") for reason in scorer.reasons.values())
        assert None not in scorer(items), "what has no score is asked again"
        assert scorer.reasons == {}
        assert scorer.counts["calls"] == 2, "each counts once"
    assert len(seen) == 2


def test_client_says_at_once_what_the_server_refuses() -> None:
    with server(lambda *_: (401, {"detail": "missing or wrong bearer token"})) as (url, seen):
        with pytest.raises(TsalignError, match=r"refused the request: HTTP 401: missing or wrong bearer token"):
            TeacherClient(url).load()(ITEMS[:1])
        assert len(seen) == 1


def test_teacher_that_stays_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(TsalignError, match=r"is down: \d+ attempts in \d+ s, .*ConnectError.*scored stays scored"):
            TeacherClient(url, patience=0.5).load()(ITEMS[:1])


def test_pauses_grow() -> None:
    pauses = [pause(after(attempt, PassingFailure("busy"))) for attempt in range(1, 12)]
    assert pauses[0] <= 0.2
    assert 5 <= pauses[-1] <= 10


def after(attempt: int, failure: PassingFailure) -> RetryCallState:
    """The state of a request whose last attempt failed."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((PassingFailure, failure, None))
    return state


def test_the_server_says_how_long_to_wait() -> None:
    with server(lambda *_: (429, {}, {"Retry-After": "3"})) as (url, _):
        client = RetryingClient(TeacherClient(url).service())
        with pytest.raises(PassingFailure) as failed:
            client._attempt("/v1/score", b"{}")
    assert 3 <= pause(after(1, failed.value)) <= 4.5
