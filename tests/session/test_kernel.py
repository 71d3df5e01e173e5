"""A session in real kernels: interrupted, restarted, and what their cells show."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from test_session_runs import CONFIG, wait_for_gate

import tsalign

HERE = str(Path(__file__).parent)
BEGIN = """
import tsalign
session = tsalign.Session(storage={storage!r})
run = session.run({config!r}, run="gated")
"""
AGAIN = """
import tsalign
run = tsalign.Session(storage={storage!r})["gated"]
"""


class Shown(NamedTuple):
    """What a cell left: the last value's text, its displays, and the lines of its traceback."""

    value: str
    displays: list[dict[str, Any]]
    traceback: list[str]


class Kernel:
    """A kernel of its own process, as a notebook has it."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": HERE})
        self.connect()

    def connect(self) -> None:
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self.connect()

    def cell(self, code: str, beside: Callable[[], None] = lambda: None) -> Shown:
        """Execute a cell; `beside` is called once, when it first shows something."""
        sent = self.client.execute(code)
        value, displays, traceback = "", [], []
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            content, kind = message["content"], message["msg_type"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            if kind in ("display_data", "update_display_data"):
                displays.append(content["data"])
                if len(displays) == 1:
                    beside()
            elif kind == "execute_result":
                value = content["data"]["text/plain"]
            elif kind == "error":
                traceback = content["traceback"]
            elif kind == "status" and content["execution_state"] == "idle":
                return Shown(value, displays, traceback)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)
    for ledger in tmp_path.glob("runs/*/ledger.jsonl"):  # a run outlives its kernel, also that of a test that failed
        tsalign.Session(storage=str(tmp_path / "runs"))[ledger.parent.name].stop()


def test_an_error_is_one_line_in_its_cell(kernel: Kernel, tmp_path: Path) -> None:
    config = {**CONFIG, "recipe": "pad"}
    shown = kernel.cell(BEGIN.format(storage=str(tmp_path / "runs"), config=config))
    assert shown.traceback[0].startswith("TsalignError: config: ")
    assert "gate: unknown key" in shown.traceback[0] or "teacher: required" in shown.traceback[0]
    assert len(shown.traceback) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupt_ends_the_wait_and_a_restart_of_the_kernel_not_the_run(kernel: Kernel, tmp_path: Path) -> None:
    storage, gate = str(tmp_path / "runs"), tmp_path / "open"
    config = {**CONFIG, "gate": str(gate)}
    assert kernel.cell(BEGIN.format(storage=storage, config=config)).traceback == []
    began = time.monotonic()
    while not (tmp_path / "runs" / "gated" / "ledger.jsonl").exists():
        assert time.monotonic() - began < 300
        time.sleep(0.2)
    outside = tsalign.Session(storage=storage)["gated"]
    wait_for_gate(outside)

    waited = kernel.cell("run.wait()", beside=kernel.manager.interrupt_kernel)
    assert "KeyboardInterrupt" in waited.traceback[-1]
    assert "The wait was interrupted; the run goes on." in waited.displays[-1]["text/plain"]
    assert kernel.cell("run.status").value == "'running'"
    shown = kernel.cell("run.wait(timeout=0)").displays[-1]
    assert "1/preferences" in shown["text/html"]
    assert "1/preferences" in shown["text/plain"]

    driver = json.loads(next((tmp_path / "runs" / "gated").glob("lease-*.json")).read_text())["pid"]
    kernel.restart()
    kernel.cell(AGAIN.format(storage=storage))
    assert kernel.cell("run.status").value == "'running'"
    assert outside.state().at_work
    assert json.loads(next((tmp_path / "runs" / "gated").glob("lease-*.json")).read_text())["pid"] == driver
    gate.touch()
    assert kernel.cell("run.wait()").value == "'done'"
