"""Which cluster a driver joins, and what it is told where it cannot. Nothing here starts Ray."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tsalign.cli import app
from tsalign.common.errors import TsalignError
from tsalign.runs.joining import ADDRESS, IN_A_JOB, check_address, check_answer, no_token, other_versions
from tsalign.runs.place import check_place


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head.cluster.local:6379", "my_head:1", "[::1]:6379"])
def test_an_address(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://10.0.0.1:8265", "use `tsalign submit`"),
        ("https://head", "job server"),
        ("10.0.0.1", "HOST:PORT"),
        ("ray://10.0.0.1:10001", "HOST:PORT"),
        ("local", "HOST:PORT"),
        ("", "HOST:PORT"),
    ],
)
def test_no_address(address: str, told: str) -> None:
    with pytest.raises(TsalignError, match=told):
        check_address(address)


def test_nothing_answers(nobody: str) -> None:
    with pytest.raises(TsalignError, match=f"RAY_ADDRESS={nobody}: no Ray answers there"):
        check_answer(nobody)


EVALUATE = ("evaluate", "m", "--against", "n", "--sets", "toy:test", "--judge", "nobody:x", "--run", "/")


@pytest.mark.parametrize(
    "command",
    [("run", "c.yaml"), ("resume", "r"), ("quickstart", "--recipe", "x"), ("serve", "teacher", "c"), EVALUATE],
)
def test_the_option_names_the_cluster(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "other:1")
    refused = CliRunner().invoke(app, [*command, "--address", "http://head:8265"])
    assert (refused.exit_code, os.environ[ADDRESS]) == (2, "other:1")
    assert "job server" in refused.stderr
    CliRunner().invoke(app, [*command, "--address", "10.0.0.1:6379"])
    assert os.environ[ADDRESS] == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"ray_version": "2.9.0"}, "Ray 2.9.0, here it is 2.60.0"),
        ({"python_version": "3.12.1"}, "Python 3.12.1, here it is 3."),
        ({"ray_version": "2.9.0", "python_version": "3.12.1"}, " and Python 3.12.1"),
        ({}, ""),
    ],
)
def test_versions(theirs: dict[str, str], told: str) -> None:
    ours = {"ray_version": "2.60.0", "python_version": platform.python_version()}
    found = other_versions({**ours, **theirs})
    assert told in found if told else found == ""


def test_what_to_do_without_a_token() -> None:
    assert "ray get-auth-token" in no_token("here")


@pytest.mark.parametrize(
    ("storage", "job", "refused"),
    [
        ("runs", True, True),
        ("./runs", True, True),
        ("runs", False, False),
        ("{tmp}/runs", True, False),
        ("file://{tmp}/runs", True, False),
        ("memory://bucket/runs", True, False),
    ],
)
def test_a_relative_storage_goes_with_its_job(
    storage: str, job: bool, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(IN_A_JOB, raising=False)
    if job:
        monkeypatch.setenv(IN_A_JOB, "{}")
    place = storage.format(tmp=tmp_path)
    if not refused:
        check_place(place, "r")
        return
    with pytest.raises(TsalignError, match=r"add storage=s3://BUCKET/runs, or storage=/SHARED/runs"):
        check_place(place, "r")
