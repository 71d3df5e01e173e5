"""Deploying a teacher on Serve: what is missing is said, and Serve is shared and left as it was."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model
from tsalign.teacher import deployment, ray_serve
from tsalign.teacher.service import Teacher


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cpus": 99}, r"teacher\.cpus: 99 wanted"),
        ({"gpus": 1}, r"teacher\.gpus: 1 wanted"),
        ({"host": "0.0.0.0"}, "NO_SUCH_VARIABLE to a bearer token"),
    ],
)
def test_deployment_says_what_is_missing(
    models: dict[str, Model], ray_session: None, settings: dict[str, Any], expected: str
) -> None:
    config = TeacherConfig(model=models["student"].path, token_env="NO_SUCH_VARIABLE", **settings)
    with pytest.raises(TsalignError, match=expected):
        Teacher(config).client()


def test_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TsalignError, match=rf"teacher\.port: cannot listen on 127\.0\.0\.1:{port}"):
            ray_serve._port("127.0.0.1", port)


def test_cause_of_a_failed_start_is_the_last_error() -> None:
    trouble = "It failed. Error:\nValueError: inner\n  File x\ntsalign.common.errors.TsalignError: /m: no tokenizer\n"
    assert deployment._cause(trouble) == "/m: no tokenizer"
    assert deployment._cause("waiting for resources") == "waiting for resources"
