"""Deploying a teacher on Serve: what is missing is said, and Serve is shared and left as it was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model
from tsalign.teacher import deployment, ray_serve
from tsalign.teacher.service import Teacher

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cpus": 99}, r"teacher\.cpus: needs 99"),
        ({"gpus": 1}, r"teacher\.gpus: needs 1"),
        ({"host": "0.0.0.0"}, "NO_SUCH_VARIABLE to a bearer token"),
    ],
)
def test_deployment_says_what_is_missing(
    models: dict[str, Model], ray_session: None, settings: dict[str, Any], expected: str
) -> None:
    config = TeacherConfig(model=models["student"].path, token_env="NO_SUCH_VARIABLE", **settings)
    with pytest.raises(TsalignError, match=expected):
        Teacher(config).client()


def test_teacher_that_does_not_come_up_is_removed(
    models: dict[str, Model], ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import serve

    def never(up: deployment.Deployment, _: TeacherConfig) -> None:
        assert up.name in serve.status().applications
        raise TsalignError("it did not start")

    monkeypatch.setattr(deployment, "_wait_until_up", never)
    before = serve.status().applications.keys()
    with pytest.raises(TsalignError, match="it did not start"), Teacher(TeacherConfig(model=models["student"].path)):
        pass
    assert serve.status().applications.keys() == before


def test_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TsalignError, match=rf"teacher\.port: cannot listen on 127\.0\.0\.1:{port}"):
            ray_serve._port("127.0.0.1", port)


def test_a_free_port_stays_free_while_others_ask_for_any() -> None:
    port = ray_serve._port("127.0.0.1", 0)
    asked = [socket.create_server(("127.0.0.1", 0)) for _ in range(50)]
    given = {one.getsockname()[1] for one in asked}
    for one in asked:
        one.close()
    assert port not in given
    socket.create_server(("127.0.0.1", port)).close()


def test_cause_of_a_failed_start_is_the_last_error() -> None:
    trouble = "It failed. Error:\nValueError: inner\n  File x\ntsalign.common.errors.TsalignError: /m: no tokenizer\n"
    assert deployment._cause(trouble) == "/m: no tokenizer"
    assert deployment._cause("waiting for resources") == "waiting for resources"


DRIVER = """
import sys
from tsalign.config import TeacherConfig
from tsalign.runs.ray_session import ray_session
from tsalign.scoring import Item
from tsalign.teacher.ray_serve import serve_runs
from tsalign.teacher.service import Teacher

with ray_session():
    print(serve_runs())
    with Teacher(TeacherConfig(model=sys.argv[1])) as client:
        scores = client.load()([Item([{"role": "user", "content": "sort: b a"}], "a b")])
        print(client.url.rpartition("/")[0], None in scores, flush=True)
        input()
    print(serve_runs())
"""


@pytest.mark.slow
def test_drivers_of_a_cluster_share_serve_and_leave_none(models: dict[str, Model]) -> None:
    cluster = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ray; print(ray.init(num_cpus=2).address_info['gcs_address'], flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdin
    assert cluster.stdout
    # A Ray that is started asks for a token; those who join it have to be told so.
    environment = os.environ | {"RAY_ADDRESS": cluster.stdout.readline().strip(), "RAY_AUTH_MODE": "token"}

    def driver() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, models["student"].path]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    first = driver()
    assert first.stdout
    up = [first.stdout.readline() for _ in range(2)]
    second, _ = driver().communicate("\n")
    last, _ = first.communicate("\n")
    cluster.communicate("\n")
    url = up[1].split()[0]
    assert up == ["False\n", f"{url} False\n"]
    assert second == f"True\n{url} False\nTrue\n", "another driver uses the same Serve, and leaves it"
    assert last == "False\n", "who started it stops it, without a word of Ray's"
