"""Runs of a session with drivers of their own: side by side, followed, stopped, resumed, and looked into."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from driver import Driver, row_hashes, rows_of

import tsalign
from tsalign.common.errors import TsalignError
from tsalign.session.handle import RunHandle

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG: dict[str, Any] = {
    "recipe": "gated:gated",
    "iterations": 1,
    "policy": {"model": "toy:policy"},
    "data": {"prompts": "toy:train", "prompts_per_iteration": 32, "shard_size": 16},
    "sampling": {"engine": "hf", "k": 4, "max_tokens": 16, "max_model_len": 128},
    "tune": {"objective": "simpo", "batch_size": 8, "precision": "fp32", "zero_stage": 0},
    "evaluation": {"judge": "tsalign.toy.oracle:grade"},
    "loggers": [],
}

# What a second process makes of a run that goes on, by name.
FOLLOWER = """
import sys, tsalign
run = tsalign.Session(storage=sys.argv[1])["gated"]
print(run.status, run.wait(timeout=1))
"""


@dataclass(frozen=True)
class Held:
    """A run that waits at its gate, and beside it one that failed."""

    session: tsalign.Session
    run: RunHandle
    broken: RunHandle
    gate: Path


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("session")
    with pytest.MonkeyPatch.context() as patch, tsalign.Session(storage=str(folder / "runs")) as session:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        gate = folder / "open"
        run = session.run(CONFIG, run="gated", gate=str(gate))
        broken = session.run(CONFIG, run="other", gate=str(folder / "broken"))
        yield Held(session, run, broken, gate)
        for one in (run, broken):
            one.stop()


def wait_for_gate(run: RunHandle) -> None:
    """Until only the shards behind the gate are missing."""
    deadline = time.monotonic() + 300
    while not any(one.stage == "1/preferences" and 0 < one.done < (one.total or 0) for one in run.state().at_work):
        assert run.status == "running", run
        assert time.monotonic() < deadline, run
        time.sleep(0.2)


def test_runs_side_by_side_and_one_fails_in_the_background(held: Held) -> None:
    assert [held.run.status, held.broken.status] == ["running", "running"]
    with pytest.raises(TsalignError, match=r"^run other failed: judge: is out of order$"):
        held.broken.wait()
    with pytest.raises(TsalignError, match=r"^run other failed: judge: is out of order$"):
        held.broken.policy()
    wait_for_gate(held.run)
    assert "1/preferences" in repr(held.run)


def test_a_second_process_follows_by_name(held: Held) -> None:
    wait_for_gate(held.run)
    follower = [sys.executable, "-c", FOLLOWER, str(held.session.storage)]
    printed = subprocess.run(follower, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "running running"
    assert any(line.startswith("✓ 1/candidates") for line in printed.splitlines())


def test_the_driver_is_out_of_reach_of_the_kernels_interrupts(held: Held) -> None:
    driver = held.run.driver
    assert driver is not None
    assert os.getsid(driver.process.pid) == driver.process.pid != os.getsid(0)  # type: ignore[attr-defined]


def test_stop_and_resume(held: Held) -> None:
    wait_for_gate(held.run)
    rays = psutil.Process(held.run.driver.process.pid).children(recursive=True)  # type: ignore[union-attr]
    again = tsalign.Session(storage=str(held.session.storage))["gated"]  # as from a new kernel
    assert again.stop() == "stopped"
    assert held.run.wait() == "stopped"
    assert psutil.wait_procs(rays, timeout=30)[1] == []
    held.gate.touch()
    assert held.run.resume().wait() == "done"
    said = (held.run.dir / "driver.log").read_text()
    assert "1/candidates" in said
    assert "done before" in said
    assert "\x1b" not in said


def test_what_it_made(held: Held) -> None:
    run = held.run
    held.gate.touch()
    assert run.wait() == "done"
    folder = Path(str(run.dir)) / "iterations" / "1"
    candidates, preferences = run.candidates().to_pandas(), run.preferences(1).to_pandas()
    assert sorted(candidates["prompt_id"]) == [row["prompt_id"] for row in rows_of(folder / "candidates")]
    assert sorted(preferences["prompt_id"]) == [row["prompt_id"] for row in rows_of(folder / "preferences")]
    assert run.dataset("prompts").count() == 8000
    elsewhere = tsalign.Session(storage=f"file://{held.session.storage}")["gated"]  # read as a bucket is
    assert elsewhere.preferences().count() == len(preferences)
    assert run.metrics.query("stage == 'policy'")["loss"].notna().sum() == run.metrics["step"].max()
    model, _ = run.policy()
    assert model.num_parameters() > 100_000
    assert len(run.sample(["add 1 2", "max 3 9 4"])) == 2
    assert "chosen" in run.pairs(1, 3)._repr_html_()
    assert run.report()._repr_html_()


def test_the_same_rows_as_from_the_terminal(held: Held, tmp_path: Path) -> None:
    held.gate.touch()
    assert held.run.wait() == "done"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "gate": str(held.gate)}))
    Driver(tmp_path, (Path(__file__).parent,)).run("terminal")
    for stage in ("candidates", "preferences"):
        ours, theirs = (
            row_hashes(folder / "iterations" / "1" / stage)
            for folder in (Path(str(held.run.dir)), tmp_path / "runs" / "terminal")
        )
        assert ours == theirs


def test_closing_releases_the_ray_that_was_started(held: Held) -> None:
    import ray

    held.gate.touch()
    held.run.wait()
    assert held.run.candidates().count() == 32
    held.session.close()
    assert not ray.is_initialized()


def test_a_finished_run_is_done_at_once(held: Held) -> None:
    held.gate.touch()
    held.run.wait()
    assert held.session.run(CONFIG, run="gated", gate=str(held.gate)).wait() == "done"
