"""The guard in front of a replica's routes: what it reads of a request, and what it lets through."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from ray import serve

from tsalign.teacher import guard
from tsalign.teacher.guard import Guard, authorized
from tsalign.teacher.openai_format import problem as openai_problem
from tsalign.teacher.serving import problem

TOKEN = "a-secret-of-the-tests"
RIGHT = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica with a token, and bodies of up to 100 bytes."""
    context = SimpleNamespace(servable_object=SimpleNamespace(token=SecretStr(TOKEN)))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(guard, "MAX_BODY_BYTES", 100)


def ask(
    parts: list[bytes],
    headers: dict[str, str],
    path: str = "/v1/score",
    make: Any = problem,
    malformed: int = 422,
    root: str = "/teacher",
) -> tuple[int, Any, int, bytes | None]:
    """Status, content, how many parts of the body were read, and the body that the routes got."""
    read, sent, passed = [0], list[Any](), list[bytes]()

    async def receive() -> Any:
        read[0] += 1
        return {"type": "http.request", "body": parts[read[0] - 1], "more_body": read[0] < len(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def routes(scope: Any, receive: Any, send: Any) -> None:
        passed.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": root.rstrip("/") + path, "root_path": root, "headers": raw}
    asyncio.run(Guard(routes, make, malformed)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), read[0], passed[0] if passed else None


@pytest.mark.parametrize("value", ["", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_nothing_of_a_body_is_read_without_the_token(value: str) -> None:
    status, content, read, passed = ask([b"{"] * 50, {"authorization": value})
    assert (status, content["detail"], read, passed) == (401, "missing or wrong bearer token", 0, None)


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_scheme_is_read_as_http_has_it(value: str) -> None:
    assert authorized(value, SecretStr(TOKEN))
    assert authorized("", None)


@pytest.mark.parametrize(
    ("length", "parts", "read"),
    [("101", 50, 0), ("1" + "0" * 30, 50, 0), ("5", 50, 6), ("", 50, 6), ("-7", 50, 6), ("many", 50, 6)],
)
def test_no_more_of_a_body_is_read_than_it_may_have(length: str, parts: int, read: int) -> None:
    status, content, seen, passed = ask([b" " * 20] * parts, {**RIGHT, "content-length": length})
    assert (status, content["detail"], seen) == (413, "the body has more than 100 bytes; send fewer at once", read)
    assert passed is None


@pytest.mark.parametrize(
    "body", [b"{", b"NaN", b"[Infinity]", b'"\\ud800"', b"\xff", b"[" * 100, b" ", b"{}{}", b"'x'"]
)
@pytest.mark.parametrize(("make", "malformed"), [(problem, 422), (openai_problem, 400)])
def test_what_is_no_json_does_not_reach_the_routes(body: bytes, make: Any, malformed: int) -> None:
    status, content, _, passed = ask([body[:1], body[1:]], RIGHT, make=make, malformed=malformed)
    said = content["detail"] if make is problem else content["error"]["message"]
    assert (status, passed) == (malformed, None)
    assert said.startswith("body: not valid JSON: ")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"x": [1, 2.5, "\\ud83d\\ude00"]}', b"[" * 40 + b"]" * 40, b"null"])
def test_what_is_json_passes_as_it_came(body: bytes) -> None:
    assert ask([body[:2], body[2:]], RIGHT) == (200, {}, 2, body)


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
@pytest.mark.parametrize("root", ["/teacher", "/teacher/", "", "/"])
def test_health_and_schema_need_no_token(path: str, root: str) -> None:
    assert ask([b"anything"], {}, path, root=root) == (200, {}, 1, b"anything")


@pytest.mark.parametrize(
    "path", ["/v1/score", "/v2/x", "/", "", "//healthz", "/healthz/", "/healthz/../v1/score", "/Healthz"]
)
@pytest.mark.parametrize("root", ["/teacher", "/teacher/", "", "/"])
def test_all_else_does(path: str, root: str) -> None:
    assert ask([b"anything"], {}, path, root=root)[:1] == (401,)
