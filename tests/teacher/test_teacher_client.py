"""The client of a teacher against servers that misbehave."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from fault_server import Behaviour, Reply, server
from tenacity import RetryCallState, Retrying

from tsalign.common import http
from tsalign.common.errors import TsalignError
from tsalign.common.http import PassingFailure, RetryingClient, pause
from tsalign.data.shards import take_counts
from tsalign.scoring import Item
from tsalign.scoring.stage import ScoreWorker
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
        (b'{"scores": [[1e999], [-1e999]]}', [None, None]),
        (b'{"scores": [[' + b"9" * 400 + b"], [1]]}", [None, 1.0]),
        (b'{"scores": [[1e300], [2]]}', [None, 2.0]),
        (b'{"scores": [["1.0"], [null]]}', [None, None]),
        (b'{"scores": [[[1.0]], [{}]]}', [None, None]),
        (b'{"scores": {"0": [1.0], "1": [2.0]}}', [None, None]),
        (b'{"scores": "no"}', [None, None]),
        (b'{"scores": [[1.0], [2.0], [3.0]]}', [None, None]),
        (b'{"scores": ' + b"[" * 100_000, [None, None]),
        (b'{"scores": [[1.0], [2.0]]', [None, None]),
        (b'"\\ud800"', [None, None]),
        (b"\xff\xfe", [None, None]),
        (b"", [None, None]),
        (b"null", [None, None]),
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


@pytest.mark.parametrize(
    ("tokens", "counts"),
    [
        (b"7", {"calls": 1, "tokens": 7}),
        *((value, {"calls": 1, "unreported": 1}) for value in (b"null", b"-1", b'"7"', b"7.5", b"true", b"[]", b"NaN")),
    ],
)
def test_tokens_that_are_no_number_are_unknown(tokens: bytes, counts: dict[str, int]) -> None:
    with server(lambda *_: (200, b'{"scores": [[1.0]], "tokens": ' + tokens + b"}")) as (url, _):
        scorer = TeacherClient(url).load()
        assert scorer(ITEMS[:1]) == [1.0]
    assert scorer.counts == counts
    assert take_counts(scorer, "teacher", "teacher") == {f"{name}.teacher": value for name, value in counts.items()}


@pytest.mark.parametrize(
    "answer", [(401, {"detail": "no"}), (404, b"<html>"), (405, b""), (307, b"", {"Location": "https://x/v1/score"})]
)
def test_client_says_at_once_what_concerns_all_requests(answer: Reply) -> None:
    with server(lambda *_: answer) as (url, seen):
        with pytest.raises(TsalignError, match=rf"teacher at {url} refused the request: HTTP {answer[0]}: "):
            TeacherClient(url, chunk=10, concurrency=1).load()(ITEMS)
        assert len(seen) < 4, "the rest is not asked"


def scoring_without(fault: Reply, *bad: str) -> Behaviour:
    """A teacher that answers requests with one of these completions in its own way."""

    def behave(_: int, content: dict[str, Any]) -> Reply:
        texts = {text for item in content["items"] for text in item["completions"]}
        return right(content) if texts.isdisjoint(bad) else fault

    return behave


@pytest.mark.parametrize(
    ("fault", "reason", "unanswered"),
    [
        ((422, {"detail": "600 tokens"}), "the teacher refused it: HTTP 422: 600 tokens", False),
        ((413, {"detail": "too many"}), "the teacher refused it: HTTP 413: too many", False),
        ((400, b""), "the teacher refused it: HTTP 400: ", False),
        ((500, b"CUDA error"), "no answer: 2 attempts", True),
        ((None, b""), "no answer: 2 attempts", True),
    ],
)
@pytest.mark.parametrize("bad", [["3"], ["0"], ["63"], ["5", "6"], ["0", "21", "42", "63"]])
def test_what_the_teacher_refuses_or_breaks_on_costs_nobody_else_a_score(
    fault: Reply, reason: str, unanswered: bool, bad: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BACKOFF", lambda _: 0.001)
    items = [Item(ITEMS[0].prompt, str(number)) for number in range(64)]
    with server(scoring_without(fault, *bad)) as (url, _):
        scorer = TeacherClient(url, concurrency=1).load()
        scores = scorer(items)
    assert [str(index) for index, score in enumerate(scores) if score is None] == bad
    assert all(why.startswith(reason) for why in scorer.reasons.values())
    assert scorer.unanswered == ({int(text) for text in bad} if unanswered else set())
    assert (scorer.counts["calls"], scorer.stop) == (64 - len(bad), "")


def test_a_teacher_that_goes_down_keeps_what_it_scored() -> None:
    with server(lambda n, content: right(content) if n < 2 else (503, b""), probes=503) as (url, _):
        scorer = TeacherClient(url, chunk=30, concurrency=1, patience=0.3).load()
        scores = scorer(ITEMS)
        assert [score is None for score in scores] == [False] * 60 + [True] * 60
        assert scorer.unanswered == set(range(60, 120))
        assert scorer.stop.startswith(f"teacher at {url} is down: ")
        with pytest.raises(TsalignError, match="is down: "):
            scorer(ITEMS[60:])
        assert scorer(ITEMS[:60]) == scores[:60], "what is known needs no teacher"


def test_a_shard_of_a_teacher_that_goes_down_says_what_is_to_be_asked_again() -> None:
    rows = [
        {"prompt_id": str(n), "prompt": item.prompt, "chosen": [{"content": "a"}], "rejected": [{"content": "b"}]}
        for n, item in enumerate(ITEMS[::6])
    ]
    with server(lambda n, content: right(content) if n < 2 else (503, b""), probes=503) as (url, _):
        client = TeacherClient(url, chunk=8, concurrency=1, patience=0.3)
        shard = ScoreWorker({"teacher": client}, (0.0, 1.0))(rows, "part-00000.parquet")
    assert [row["prompt_id"] for row in shard.rows] == [str(n) for n in range(8)]
    assert [(row["prompt_id"], row["answered"]) for row in shard.failed] == [(str(n), False) for n in range(8, 20)]
    assert shard.stop.startswith(f"teacher at {url} is down: ")


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
