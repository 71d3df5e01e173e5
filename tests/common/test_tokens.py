"""Tokens from the environment: stripped, checked, and shown nowhere."""

from __future__ import annotations

import os
import pickle

import pytest
from fault_server import server
from pydantic import SecretStr

from tsalign.common.errors import TsalignError
from tsalign.common.tokens import token_from
from tsalign.config import EndpointConfig, SamplingConfig, TeacherConfig
from tsalign.engines import Completion, open_engine, request_from
from tsalign.runs.artifacts import writer_from
from tsalign.scoring import Item
from tsalign.teacher.service import Teacher

SECRET = "a-secret-of-the-tests"
CANNOT = [
    "two words",
    "tab\there",
    "line\nbreak",
    "null\x7f",
    "naïve",
    "ключ",
    "\ufeffbom",
    "zero\u200bwidth",
    "\udcff",
]
SENT = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "scores": [[1.0]]}


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", " {}", "\t{} \n\n", "{}\u00a0"])
def test_white_space_around_a_token_is_no_part_of_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", around.format(SECRET))
    assert token_from("A_TOKEN") == SecretStr(SECRET)


@pytest.mark.parametrize("value", [None, "", " ", "\n"])
def test_no_token(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("A_TOKEN", value)
    assert token_from("A_TOKEN") is None


@pytest.mark.parametrize("value", CANNOT)
def test_what_cannot_be_sent_is_refused_by_its_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "A_TOKEN", f"{SECRET}{value}")
    asking = [
        lambda: token_from("A_TOKEN"),
        lambda: writer_from(EndpointConfig(url="https://x/v1", model="m", token_env="A_TOKEN"), "judge"),
        lambda: Teacher(TeacherConfig(url="https://x", token_env="A_TOKEN")).client(),
        lambda: Teacher(TeacherConfig(url="https://x", token_env="A_TOKEN", kind="judge")).endpoint(),
    ]
    for ask in asking:
        with pytest.raises(TsalignError, match=r"A_TOKEN: the token in this environment variable") as caught:
            ask()
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("newline", ["", "\n", " \r\n"])
def test_the_token_is_what_is_sent(newline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", SECRET + newline)
    headers: list[str | None] = []
    with server(lambda *_: (200, SENT), headers=headers) as (url, _):
        endpoint = writer_from(EndpointConfig(url=f"{url}/v1", model="m", token_env="A_TOKEN"), "judge")
        client = Teacher(TeacherConfig(url=url, token_env="A_TOKEN")).client()
        for known in (endpoint, client):
            assert SECRET not in f"{known!r} {vars(known)!r}"
            assert SECRET in str(pickle.dumps(known)), "it travels to actors"
        sampling = SamplingConfig(max_tokens=8)
        (made,) = open_engine(endpoint, sampling).generate([request_from(sampling, [], 0)])
        assert made == Completion("yes", [], "stop")
        assert client.load()([Item([{"role": "user", "content": "x"}], "y")]) == [1.0]
    assert headers == [f"Bearer {SECRET}"] * 2
