"""The engine for OpenAI-compatible endpoints against servers that misbehave: a failure has a reason, and no text."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from fault_server import Reply, server
from pydantic import SecretStr
from test_writing import Echo

from tsalign.common import http
from tsalign.common.errors import TsalignError
from tsalign.config import EndpointConfig, SamplingConfig
from tsalign.engines import Completion, Failed, open_engine, request_from
from tsalign.engines.openai import OpenAIEngine
from tsalign.runs.artifacts import Endpoint, fingerprint, writer_from
from tsalign.stages.generation import GenerationWorker
from tsalign.stages.writing import Questions

SAMPLING = SamplingConfig(max_tokens=8, top_p=0.9, stop=("###",))
REQUESTS = [request_from(SAMPLING, [{"role": "user", "content": f"question {n}"}], n, 0.5) for n in range(6)]


def said(text: Any, finish: str = "stop", **changes: Any) -> dict[str, Any]:
    """A well-formed answer of 7 tokens."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    return {"choices": choices, "usage": usage, **changes}


def echo(_: int, body: dict[str, Any]) -> Reply:
    return 200, said(f" {body['messages'][-1]['content']} {body['seed']} ")


def engine(url: str, **settings: Any) -> OpenAIEngine:
    made = open_engine(Endpoint(f"{url}/v1", "a-model", "x", **settings), SAMPLING)
    assert isinstance(made, OpenAIEngine)
    return made


def test_answers_keep_the_order_and_are_asked_once() -> None:
    with server(echo) as (url, seen):
        asked = engine(url, concurrency=3)
        expected = [Completion(f"question {n} {n}", [], "stop") for n in range(6)]
        finished: list[float] = []
        assert asked.generate(REQUESTS + REQUESTS[::-1], done=finished.append) == expected + expected[::-1]
        assert finished == [0, 2, 2, 2, 2, 2, 2], "each answer as it comes, for all that asked for it"
        assert asked.generate(REQUESTS[2:4], done=finished.append) == expected[2:4]
        assert finished[7:] == [2]
        assert asked.generate([]) == []
        (other_seed,) = asked.generate([REQUESTS[0]._replace(seed=2**31 + 9)])
    assert len(seen) == 7
    assert other_seed == Completion("question 0 9", [], "stop"), "seeds fit 32 bits"
    assert asked.counts == {"calls": 7, "tokens": 49}
    assert min(seen, key=lambda body: body["seed"]) == {
        "model": "a-model",
        "messages": REQUESTS[0].prompt,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 8,
        "seed": 0,
        "stop": ["###"],
    }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, said("a", choices=[])), "malformed answer: 0 choices instead of 1"),
        ((200, said("a", choices=said("a")["choices"] * 2)), "malformed answer: 2 choices instead of 1"),
        ((200, b'{"choices": [{"message": {"content": "half of'), "malformed answer: body: Invalid JSON"),
        ((200, b"<html>busy</html>"), "malformed answer: body: Invalid JSON"),
        ((200, b""), "malformed answer: body: Invalid JSON"),
        ((200, {"text": "a"}), "malformed answer: choices: Field required"),
        (
            (200, said("a", usage={"prompt_tokens": -1, "completion_tokens": 3})),
            "malformed answer: usage.prompt",
        ),
        ((200, said(5)), "malformed answer: choices.0.message.content"),
        ((200, said(None)), "no completion: finish_reason is stop"),
        ((200, said("", "error")), "no completion: finish_reason is error"),
        ((200, said("half of", "content_filter")), "no completion: finish_reason is content_filter"),
        ((400, {"error": {"message": "too long"}}), "HTTP 400: too long"),
        ((422, b"no"), "HTTP 422: no"),
    ],
)
def test_what_is_no_answer_fails_with_its_reason(answer: Reply, reason: str) -> None:
    with server(lambda n, body: echo(n, body) if n else answer) as (url, seen):
        asked = engine(url, concurrency=1)
        failed, made = asked.generate(REQUESTS[:2])
        assert isinstance(failed, Failed)
        assert failed.reason.startswith(reason)
        assert made == Completion("question 1 1", [], "stop")
        assert asked.generate(REQUESTS[:1]) == [Completion("question 0 0", [], "stop")], "a failure is not remembered"
    assert len(seen) == 3


def test_an_empty_completion_is_one() -> None:
    with server(lambda *_: (200, said("", "stop"))) as (url, _):
        assert engine(url).generate(REQUESTS[:1]) == [Completion("", [], "stop")]


def test_no_more_is_asked_once_the_tokens_are_spent() -> None:
    with server(echo) as (url, seen):
        asked = engine(url, concurrency=1, max_spent_tokens=20)
        made = asked.generate(REQUESTS)
        assert [isinstance(one, Completion) for one in made] == [True] * 3 + [False] * 3
        assert made[3:] == [Failed("not asked: 21 tokens are spent, max_spent_tokens is 20", True)] * 3
        assert isinstance(asked.generate(REQUESTS[:1])[0], Completion), "what is known is still answered"
    assert len(seen) == 3


def test_malformed_answers_spend_tokens_too() -> None:
    with server(lambda *_: (200, said("a", choices=[]))) as (url, seen):
        assert engine(url, concurrency=1, max_spent_tokens=7).generate(REQUESTS[:2])[1] == Failed(
            "not asked: 7 tokens are spent, max_spent_tokens is 7", unanswered=True
        )
    assert len(seen) == 1


@pytest.mark.parametrize("status", [401, 404])
def test_what_concerns_all_requests_stops_at_once(status: int) -> None:
    with server(lambda *_: (status, {"error": {"message": "no such thing"}})) as (url, seen):
        with pytest.raises(TsalignError, match=rf"/v1 refused the request: HTTP {status}: no such thing"):
            engine(url, concurrency=1).generate(REQUESTS)
        assert len(seen) < len(REQUESTS), "the rest is not asked"


def test_one_request_that_never_succeeds_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(n: int, body: dict[str, Any]) -> Reply:
        return (500, b"this one breaks me") if body["seed"] == 3 else echo(n, body)

    monkeypatch.setattr(http, "BACKOFF", lambda _: 0.01)
    with server(behave) as (url, _):
        made = engine(url).generate(REQUESTS)
    assert [isinstance(one, Completion) for one in made] == [True, True, True, False, True, True]
    assert isinstance(made[3], Failed)
    assert "the last: HTTP 500: this one breaks me" in made[3].reason
    assert made[3].unanswered


def test_an_endpoint_that_goes_down_keeps_what_it_wrote() -> None:
    with server(lambda n, body: echo(n, body) if n < 2 else (503, b""), probes=503) as (url, _):
        asked = engine(url, concurrency=1, patience=0.3)
        made = asked.generate(REQUESTS)
        assert [isinstance(one, Completion) for one in made] == [True] * 2 + [False] * 4
        assert {one[1:] for one in made[2:]} == {(True, True)}, "unanswered, and down"
        assert made[2].reason.startswith(f"endpoint at {url}/v1 is down: ")  # type: ignore[union-attr]
        with pytest.raises(TsalignError, match="is down"):
            asked.generate(REQUESTS[2:])
        assert asked.generate(REQUESTS[:2]) == made[:2], "what is known needs no endpoint"


def test_a_shard_of_an_endpoint_that_goes_down_says_what_is_to_be_asked_again() -> None:
    rows: list[Any] = [{"prompt_id": name, "word": name} for name in ("one", "two", "three")]
    with server(lambda n, body: echo(n, body) if n < 3 else (503, b""), probes=503) as (url, _):
        asking = Questions(Echo(), SAMPLING.model_copy(update={"k": 1}), seed=0)
        endpoint = Endpoint(f"{url}/v1", "a-model", "x", role="teacher", concurrency=1, patience=0.3)
        shard = GenerationWorker(endpoint, asking, SAMPLING, tensor_parallel=1)(rows, "part-00000.parquet")
    assert [row["prompt_id"] for row in shard.rows] == ["one-0", "one-1"]
    assert [(row["prompt_id"], row["answered"]) for row in shard.failed] == [("two", False), ("three", False)]
    assert shard.stop.startswith("endpoint at ")


def test_tokens_that_an_endpoint_does_not_report_are_counted_as_such() -> None:
    with server(lambda n, body: (200, said("a", usage=None)) if n else echo(n, body)) as (url, _):
        asked = engine(url, concurrency=1)
        assert asked.generate(REQUESTS[:3])[1:] == [Completion("a", [], "stop")] * 2
        assert asked.counts == {"calls": 3, "tokens": 7, "unreported": 2}
        limited = engine(url, max_spent_tokens=100)
        with pytest.raises(TsalignError, match=r"does not report the tokens .* remove that key"):
            limited.generate(REQUESTS[:1])


@pytest.mark.parametrize("answer", [(301, b"", {"Location": "https://x"}), (402, b"no credit"), (405, b"<html>")])
def test_what_is_no_endpoint_stops_at_once(answer: Reply) -> None:
    with server(lambda *_: answer) as (url, seen):
        match = rf"endpoint at {url}/v1 refused the request: HTTP {answer[0]}"
        with pytest.raises(TsalignError, match=match):
            engine(url, concurrency=1).generate(REQUESTS)
        assert len(seen) < len(REQUESTS), "the rest is not asked"


def test_endpoint_that_stays_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        asked = engine(f"http://127.0.0.1:{unused.getsockname()[1]}", patience=0.3)
        with pytest.raises(TsalignError, match=r"endpoint at \S+ is down: \d+ attempts .*ConnectError.*stays written"):
            asked.generate(REQUESTS)


def test_key_comes_from_the_environment_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "a-secret-of-the-tests")
    config = EndpointConfig(url="https://elsewhere/v1/", model="a-model", token_env="A_KEY")
    endpoint = writer_from(config, "teacher")
    assert isinstance(endpoint, Endpoint)
    assert (endpoint.url, endpoint.token) == ("https://elsewhere/v1", SecretStr("a-secret-of-the-tests"))
    assert "a-secret" not in f"{endpoint!r} {config!r}"
    monkeypatch.delenv("A_KEY")
    assert fingerprint(writer_from(config, "teacher")) == fingerprint(endpoint)


def test_a_failed_answer_is_a_failed_row_with_its_reason() -> None:
    rows: list[Any] = [{"prompt_id": name, "word": name} for name in ("one", "two")]

    def behave(n: int, body: dict[str, Any]) -> Reply:
        return (200, b"half an ans") if body["messages"][-1]["content"] == "say two 1" else echo(n, body)

    with server(behave) as (url, _):
        asking = Questions(Echo(), SAMPLING.model_copy(update={"k": 1}), seed=0)
        worker = GenerationWorker(
            Endpoint(f"{url}/v1", "a-model", "x", role="teacher"), asking, SAMPLING, tensor_parallel=1
        )
        shard = worker(rows, "part-00000.parquet")
    assert [row["prompt_id"] for row in shard.rows] == ["one-0", "one-1"]
    (failed,) = shard.failed
    assert failed["prompt_id"] == "two"
    assert failed["reason"].startswith("malformed answer: body: Invalid JSON")
    assert failed["answered"]
    assert (shard.counts["calls.teacher"], shard.counts["tokens.teacher"]) == (3, 21)
