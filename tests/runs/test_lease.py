"""One driver a run: who holds the lease, when it is stale, and that of two who start at once one gets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from synthetic import hold
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.runs import lease
from tsalign.runs.lease import Lease, driven, leased


def ignored(error: Exception) -> None:
    raise error


@pytest.fixture
def folder(tmp_path: Path) -> UPath:
    return UPath(tmp_path) / "r"


@pytest.fixture
def parent() -> psutil.Process:
    found = psutil.Process().parent()
    assert found
    return found


def test_a_living_driver_keeps_others_out(folder: UPath, parent: psutil.Process) -> None:
    hold(folder, parent)
    assert driven(folder)
    with (
        pytest.raises(TsalignError, match=rf"run r is already running: process {parent.pid} on "),
        leased(folder, ignored),
    ):
        pass
    assert [file.name for file in folder.iterdir()] == ["lease-000001.json"]


def test_it_ends_with_the_block(folder: UPath) -> None:
    with leased(folder, ignored):
        (held,) = folder.iterdir()
        assert Lease(**json.loads(held.read_text())).alive()
        assert not driven(folder)  # by another process
        with pytest.raises(TsalignError, match="already running"), leased(folder, ignored):
            pass
    assert list(folder.iterdir()) == []


def test_a_pid_that_is_another_process_by_now_is_no_driver(
    folder: UPath, parent: psutil.Process, caplog: pytest.LogCaptureFixture
) -> None:
    hold(folder, parent)
    lived = json.loads((folder / "lease-000001.json").read_text())
    (folder / "lease-000001.json").write_text(json.dumps({**lived, "began": lived["began"] - 100}))
    assert not driven(folder)
    with leased(folder, ignored):
        assert [file.name for file in folder.iterdir()] == ["lease-000002.json"]
    assert f"process {parent.pid} on {socket.gethostname()} ended without a word; taking over" in caplog.text


def test_a_zombie_is_no_driver(folder: UPath) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    zombie = psutil.Process(process.pid)
    hold(folder, zombie)
    deadline = time.monotonic() + 20
    while zombie.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert not driven(folder)
    process.wait()
    assert not driven(folder)


@pytest.mark.parametrize(("age", "alive"), [(0, True), (50, True), (61, False)])
def test_a_driver_elsewhere_lives_as_long_as_it_renews(
    age: float, alive: bool, folder: UPath, parent: psutil.Process
) -> None:
    hold(folder, parent, host="elsewhere", renewed=time.time() - age)
    assert driven(folder) == alive


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_lease_is_stale_after_a_while(content: str, folder: UPath) -> None:
    folder.mkdir()
    damaged = folder / "lease-000007.json"
    damaged.write_text(content)
    with pytest.raises(TsalignError, match="already running: another process"), leased(folder, ignored):
        pass  # it may be being written
    os.utime(damaged, (time.time() - 100, time.time() - 100))
    with leased(folder, ignored):
        assert [file.name for file in folder.iterdir()] == ["lease-000008.json"]


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("root", ["memory://leases", "{tmp}"])
def test_of_many_that_start_at_once_one_gets_it(stale: bool, root: str, tmp_path: Path, parent: psutil.Process) -> None:
    folder = UPath(root.format(tmp=tmp_path)) / f"r{stale}"
    if stale:
        hold(folder, parent, host="elsewhere", renewed=1.0)
    got, refused, together, over = [], [], threading.Barrier(8), threading.Event()

    def start(number: int) -> None:
        together.wait()
        try:
            with leased(folder, ignored):
                got.append(number)
                over.wait(20)
        except TsalignError as error:
            refused.append(str(error))
        if len(refused) == 7:
            over.set()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_who_lost_its_lease_hears_of_it(folder: UPath, parent: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    heard: list[Exception] = []
    told = threading.Event()

    def lost(error: Exception) -> None:
        heard.append(error)
        told.set()

    with leased(folder, lost):
        hold(folder, parent, number=2)
        assert told.wait(20)
    assert f"process {parent.pid}" in str(heard[0])
