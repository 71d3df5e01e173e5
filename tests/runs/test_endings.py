"""However a run ends while stages overlap: soon, with the first cause, a word in the ledger, and no process left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from driver import START_SECONDS, Driver
from upath import UPath

from tsalign.runs.ledger import Ledger

pytestmark = pytest.mark.ray
END_SECONDS = 15
HERE = Path(__file__).parent


def ended(folder: Path, then: str, number: int | None, server: str) -> tuple[int, str, dict[str, str]]:
    """Run the endless recipe to its end: exit code, what it said, and the last word in the ledger."""
    driver, run = Driver(folder, (HERE,)), folder / "runs" / "r"
    (folder / "config.yaml").write_text("{recipe: 'endless:endless', run: r, loggers: []}")
    process = driver.command("run", "config.yaml", f"then={then}")
    deadline = time.monotonic() + START_SECONDS
    rays: set[psutil.Process] = set()
    while len(list(run.glob("at-work-*"))) < 2:
        assert process.poll() is None, driver.log()
        assert time.monotonic() < deadline, driver.log()
        rays |= set(psutil.Process(process.pid).children(recursive=True))
        time.sleep(0.05)
    if number:
        children = psutil.Process(process.pid).children()
        os.kill(next((child.pid for child in children if child.name() == server), process.pid), number)
    process.wait(timeout=END_SECONDS)
    assert rays
    _, left = psutil.wait_procs(rays, timeout=5)
    assert left == []
    return process.returncode, driver.log(), Ledger(UPath(run) / "ledger.jsonl").run_state() or {}


@pytest.mark.parametrize(
    ("then", "number", "code", "state", "message"),
    [
        ("fail", None, 2, "failed", "this came first"),
        pytest.param("nothing", signal.SIGINT, 130, "stopped", "tsalign resume r", marks=pytest.mark.slow),
        ("nothing", signal.SIGTERM, 143, "stopped", "stopped; to continue: tsalign resume r"),
        ("gcs_server", signal.SIGKILL, 2, "failed", "Ray's gcs_server has ended"),
        pytest.param("raylet", signal.SIGKILL, 2, "failed", "Ray's raylet has ended", marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_with_all_that_overlaps(
    then: str, number: int | None, code: int, state: str, message: str, tmp_path: Path
) -> None:
    server = then if number == signal.SIGKILL else ""
    returned, said, last = ended(tmp_path, "fail" if then == "fail" else "nothing", number, server)
    assert (returned, last["run"]) == (code, state), said
    assert message in said
    assert "Traceback" not in said
    assert "local Ray instance" not in said
    assert not list((tmp_path / "runs" / "r").glob("lease-*")) or then in ("gcs_server", "raylet")
