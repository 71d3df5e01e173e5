"""The teacher service over real HTTP against what may come in: every answer has a status and a reason, none is 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model
from tsalign.scoring import Item
from tsalign.teacher.guard import MAX_BODY_BYTES
from tsalign.teacher.service import Teacher

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

TOKEN = "a-secret-of-the-tests"
MARK = "not-to-be-repeated"
RIGHT = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
GOOD = {"items": [{"prompt": "sort: fig", "completions": ["apple"]}]}
DEEP = 100_000


@pytest.fixture(scope="module")
def teacher(models: dict[str, Model], ray_session: None) -> Iterator[Teacher]:
    config = TeacherConfig(model=models["student"].path, idle_seconds=60, max_pending=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(config.token_env, f" {TOKEN}\n")
        teacher = Teacher(config)
        with teacher:
            yield teacher


@pytest.fixture(scope="module")
def http(teacher: Teacher) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=teacher.client().url, timeout=60) as http:
        yield http


def item(**changes: Any) -> bytes:
    """A body with one item that differs from a good one."""
    return json.dumps({"items": [{**GOOD["items"][0], **changes}]}).encode()


def raw(prompt: str = '"x"', completions: str = '["y"]', more: str = "") -> bytes:
    """A body of pieces of JSON, which need not be JSON."""
    return f'{{"items": [{{"prompt": {prompt}, "completions": {completions}}}]{more}}}'.encode()


BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "Field required"),
    "white space": (b"   ", 422, "not valid JSON"),
    "half of JSON": (b'{"items": [{"prompt": "', 422, "not valid JSON"),
    "two values": (json.dumps(GOOD).encode() * 2, 422, "not valid JSON"),
    "not UTF-8": (raw(prompt='"\xff"').decode().encode("latin-1"), 422, "not valid JSON"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), 422, "not valid JSON"),
    "a NUL": (raw(prompt='"\x00"'), 422, "not valid JSON"),
    "NaN": (raw(prompt="NaN"), 422, "not valid JSON"),
    "Infinity": (raw(more=', "x": Infinity'), 422, "not valid JSON"),
    "-Infinity": (raw(completions="[-Infinity]"), 422, "not valid JSON"),
    "lone surrogate in a prompt": (raw(prompt=r'"\ud800"'), 422, "not valid JSON"),
    "lone surrogate in a completion": (raw(completions=r'["a", "b\udfff"]'), 422, "not valid JSON"),
    "lone surrogate in a key": (raw(more=r', "\ud800": 1'), 422, "not valid JSON"),
    "half a surrogate pair": (raw(prompt=r'"\ud83d x"'), 422, "not valid JSON"),
    "deep lists": (b"[" * DEEP + b"]" * DEEP, 422, "recursion limit"),
    "deep objects": (b'{"items":' * DEEP + b"1" + b"}" * DEEP, 422, "recursion limit"),
    "deep prompt": (raw(prompt="[" * DEEP + "]" * DEEP), 422, "recursion limit"),
    "a number of 5000 digits": (raw(prompt="9" * 5000), 422, "not valid JSON"),
    "a number beyond float": (raw(more=', "x": 1e999'), 422, "x: Extra inputs"),
    "a list": (b"[]", 422, "body: "),
    "a text": (b'"text"', 422, "body: "),
    "null": (b"null", 422, "body: "),
    "a number": (b"5", 422, "body: "),
    "no items": (b"{}", 422, "items: Field required"),
    "items null": (b'{"items": null}', 422, "items: "),
    "items an object": (b'{"items": {}}', 422, "items: "),
    "items empty": (b'{"items": []}', 422, "items: "),
    "an item null": (b'{"items": [null]}', 422, "items.0: "),
    "an unknown key": (raw(more=f', "{MARK[:3]}": "{MARK}"'), 422, "Extra inputs"),
    "a long unknown key": (raw(more=f', "{"k" * 100_000}": 1'), 422, "kkkk"),
    "no prompt": (b'{"items": [{"completions": ["y"]}]}', 422, "items.0.prompt: Field required"),
    "prompt a number": (item(prompt=5), 422, "items.0.prompt"),
    "prompt null": (item(prompt=None), 422, "items.0.prompt"),
    "prompt empty": (item(prompt=[]), 422, "items.0.prompt"),
    "prompt of texts": (item(prompt=[MARK]), 422, "items.0.prompt"),
    "a message without content": (item(prompt=[{"role": "user"}]), 422, "content: Field required"),
    "a message with more": (item(prompt=[{"role": "user", "content": "x", "name": MARK}]), 422, "Extra inputs"),
    "content a list": (item(prompt=[{"role": "user", "content": [{"type": "text"}]}]), 422, "content"),
    "a role that is none": (item(prompt=[{"role": "<|im_start|>", "content": "x"}]), 422, "role"),
    "completions a text": (item(completions=MARK), 422, "items.0.completions"),
    "completions empty": (item(completions=[]), 422, "items.0.completions"),
    "a completion null": (item(completions=["y", None]), 422, "items.0.completions.1"),
    "a completion a number": (item(completions=[1.5]), 422, "items.0.completions.0"),
    "a hundred flaws": (item(completions=[None] * 100), 422, "and 95 more"),
    "longer than the model takes": (item(completions=["y", "apple " * 300]), 422, "completions[1]: "),
    "a prompt longer than the model takes": (item(prompt="apple " * 300), 422, "the model takes 128"),
    "more completions than fit": (item(completions=["y"] * 201), 413, "201 completions in one request"),
    "more items than fit": (json.dumps({"items": GOOD["items"] * 201}).encode(), 413, "send at most 200"),
    "more bytes than fit": (raw(prompt=f'"{"x" * MAX_BODY_BYTES}"'), 413, f"more than {MAX_BODY_BYTES} bytes"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
@pytest.mark.parametrize("route", ["/v1/score", "/v1/rank"])
def test_a_bad_body_is_refused_with_its_place(case: str, route: str, http: httpx.Client) -> None:
    content, status, expected = BAD_BODIES[case]
    if route == "/v1/rank" and len(content) > 1 << 20:
        pytest.skip("once is enough")
    answer = http.post(route, content=content, headers=RIGHT)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")
    assert expected in answer.json()["detail"]
    assert MARK not in answer.text
    assert len(answer.content) < 2000


WRONG_HEADERS: dict[str, dict[str, str | bytes]] = {
    "none": {},
    "empty": {"Authorization": ""},
    "no scheme": {"Authorization": TOKEN},
    "another scheme": {"Authorization": f"Basic {TOKEN}"},
    "another token": {"Authorization": "Bearer another"},
    "the start of it": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "more than it": {"Authorization": f"Bearer {TOKEN}{TOKEN}"},
    "two words": {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
    "not ASCII": {"Authorization": "Bearer naïve".encode()},
    "the variable's name": {"Authorization": "Bearer $TSALIGN_TEACHER_TOKEN"},
}


@pytest.mark.parametrize("case", WRONG_HEADERS)
@pytest.mark.parametrize("body", ["good", "bad", "huge"])
def test_the_token_comes_before_the_body(case: str, body: str, http: httpx.Client) -> None:
    if body == "huge" and case != "none":
        pytest.skip("once is enough")
    content = {"good": json.dumps(GOOD).encode(), "bad": b"{", "huge": b"x" * (100 << 20)}[body]
    answer = http.post(
        "/v1/score", content=content, headers={**WRONG_HEADERS[case], "Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (401, {"detail": "missing or wrong bearer token"})
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "x" * 3000])
def test_what_is_not_announced_as_json_is_refused(kind: str, http: httpx.Client) -> None:
    answer = http.post("/v1/score", content=json.dumps(GOOD), headers={**RIGHT, "Content-Type": kind})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/score", 405),
        ("PUT", "/v1/score", 405),
        ("POST", "/v1/scores", 404),
        ("POST", "/v1/chat/completions", 404),
        ("POST", "/healthz", 405),
        ("POST", "/v1/score/", 307),
        ("GET", "/../etc/passwd", 404),
    ],
)
def test_other_routes_and_methods(method: str, path: str, status: int, http: httpx.Client) -> None:
    answer = http.request(method, path, content=json.dumps(GOOD), headers=RIGHT)
    assert answer.status_code == status


def chunks(size: int) -> Iterator[bytes]:
    """A body whose length nobody announces."""
    for _ in range(size >> 16):
        yield b" " * (1 << 16)
    yield json.dumps(GOOD).encode()


@pytest.mark.parametrize(("size", "status"), [(1 << 16, 200), (MAX_BODY_BYTES + (1 << 20), 413)])
def test_a_body_that_comes_in_chunks_is_measured_as_it_comes(size: int, status: int, http: httpx.Client) -> None:
    assert http.post("/v1/score", content=chunks(size), headers=RIGHT).status_code == status


def cut(head: str) -> Callable[[socket.socket, str], None]:
    def send(connection: socket.socket, path: str) -> None:
        connection.sendall(head.format(path=path, token=TOKEN).encode())
        connection.shutdown(socket.SHUT_WR)

    return send


@pytest.mark.parametrize(
    "send",
    [
        cut("POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 500\r\n\r\nhalf"),
        cut("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"),
        cut("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        cut("nonsense\r\n\r\n"),
    ],
    ids=["half a body", "a negative length", "a bad chunk", "no HTTP"],
)
def test_a_broken_request_harms_nobody_else(
    send: Callable[[socket.socket, str], None], teacher: Teacher, http: httpx.Client
) -> None:
    url = urlsplit(teacher.client().url)
    with socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=10) as connection:
        send(connection, f"{url.path}/v1/score")
        said = connection.recv(4096)
    assert b"500" not in said.split(b"\r\n")[0]
    assert http.post("/v1/score", json=GOOD, headers=RIGHT).status_code == 200


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "é\u2028\u202e", "\U0001f600", "<eos>", "a" * 20, "</s>[INST]", "{{ x }}", "{% raw %}"]
)
def test_any_text_has_a_score(text: str, http: httpx.Client) -> None:
    answer = http.post("/v1/score", content=item(prompt=f"sort: {text}", completions=[text]), headers=RIGHT)
    (score,) = answer.json()["scores"][0]
    assert isinstance(score, float)


def test_the_client_loses_only_what_the_service_refuses(teacher: Teacher) -> None:
    prompt = [{"role": "user", "content": "sort: fig"}]
    texts = [f"apple {n}" for n in range(40)]
    texts[7], texts[31] = "apple " * 300, "\ud800"
    scorer = teacher.client().load()
    scores = scorer([Item(prompt, text) for text in texts])
    assert [index for index, score in enumerate(scores) if score is None] == [7, 31]
    assert "tokens with its prompt; the model takes 128" in scorer.reasons[7]
    assert "not sent: 'utf-8' codec can't encode" in scorer.reasons[31]
    assert scorer.unanswered == set()


def test_no_file_of_ray_holds_the_token(teacher: Teacher) -> None:
    from ray._private.worker import _global_node

    files = [file for file in Path(_global_node.get_session_dir_path()).rglob("*") if file.is_file()]
    assert any("serve" in file.parts for file in files)
    assert [file for file in files if TOKEN.encode() in file.read_bytes()] == []
