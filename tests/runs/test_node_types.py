"""How the head tells what its autoscaler could add: by the process that is Ray's monitor. Nothing here starts Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tsalign.runs.node_types import NodeType, _reader, possible

CONFIG = {
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
    }
}


@pytest.fixture
def monitor() -> Iterator[Callable[..., None]]:
    """Starts a process that looks like the monitor of the head at 10.9.8.7."""
    started = []

    def start(*arguments: str) -> None:
        waiting = [sys.executable, "-c", "print(flush=True); input()", "autoscaler/v2/monitor.py"]
        process = subprocess.Popen([*waiting, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        process.stdout.readline()

    yield start
    for process in started:
        process.communicate(b"\n")


def test_the_types_of_the_config_that_the_autoscaler_was_started_with(
    tmp_path: Path, monitor: Callable[..., None]
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monitor("--gcs-address=10.9.8.7:1", f"--autoscaling-config={tmp_path}/config.yaml")
    found = _reader()("10.9.8.7:1")
    assert found is not None
    assert possible(found) == [NodeType("gpu", {"CPU": 8, "GPU": 1}, {})]


def test_a_cluster_without_an_autoscaler_adds_nothing(monitor: Callable[..., None]) -> None:
    monitor("--gcs-address=10.9.8.7:2")
    found = _reader()("10.9.8.7:2")
    assert found is not None
    assert possible(found) == []


def test_nothing_is_known_where_there_is_no_monitor(monitor: Callable[..., None]) -> None:
    monitor("--gcs-address=10.9.8.7:3")
    assert _reader()("10.9.8.7:4") is None
