"""TS-Align under Ray's real autoscaler: nodes come for the stages that want them, may be lost, and leave."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from autoscaled import Autoscaled, autoscaled
from driver import Driver, checkpointed, parts, row_hashes
from scaled_run import CONFIG, IDLE_SECONDS, KINDS
from upath import UPath

from tsalign.common.storage import read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SERVED = ("score.label",)  # its last bits depend on what the service batches together


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Autoscaled]:
    with autoscaled(tmp_path_factory.mktemp("cluster"), KINDS, IDLE_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory, cluster: Autoscaled) -> tuple[Driver, Driver]:
    """On this machine by itself, and on the cluster."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return Driver(folder), Driver(folder, environment=cluster.environment())


@pytest.fixture(scope="module")
def local(drivers: tuple[Driver, Driver]) -> Path:
    """A run on a Ray of its own."""
    drivers[0].run("local")
    return drivers[0].folder / "runs" / "local" / "iterations" / "1"


@pytest.fixture(scope="module")
def scaled(drivers: tuple[Driver, Driver], cluster: Autoscaled) -> Path:
    """The same on the cluster, undisturbed."""
    began = len(cluster.seen)
    drivers[1].run("scaled")
    left = cluster.wait_until(lambda: not cluster.nodes(), "nodes stay")
    assert left < IDLE_SECONDS + 30
    assert {kind for _, nodes in cluster.seen[began:] for kind in nodes} == set(KINDS)
    return drivers[1].folder / "runs" / "scaled" / "iterations" / "1"


def same(run: Path, other: Path) -> None:
    for stage in ("candidates", "scores"):
        assert row_hashes(run / stage) == row_hashes(other / stage)
    assert row_hashes(run / "preferences", SERVED) == row_hashes(other / "preferences", SERVED)


def test_a_cluster_gives_what_this_machine_gives(local: Path, scaled: Path) -> None:
    same(scaled, local)


def test_a_stage_begins_on_one_node_and_ends_on_three(cluster: Autoscaled, scaled: Path) -> None:
    samplers = [nodes["sampler"] for _, nodes in cluster.seen]
    assert max(samplers) == 3


def test_streamed_stages_give_the_same(drivers: tuple[Driver, Driver], local: Path) -> None:
    drivers[1].call("run", "config.yaml", "run=streamed", "pipeline=streaming")
    same(drivers[1].folder / "runs" / "streamed" / "iterations" / "1", local)


def test_lost_nodes_cost_no_row_and_no_step(drivers: tuple[Driver, Driver], cluster: Autoscaled, scaled: Path) -> None:
    run = drivers[1].folder / "runs" / "lossy" / "iterations" / "1"
    losses: list[tuple[str, Callable[[], bool]]] = [
        ("sampler", lambda: len(parts(run / "candidates")) >= 2),
        ("sampler", lambda: len(parts(run / "scores")) >= 2),
        ("teacher", lambda: len(parts(run / "preferences")) >= 2),
        ("trainer", lambda: checkpointed(run / "policy")),
    ]
    process = drivers[1].command("run", "config.yaml", "run=lossy")
    for kind, due in losses:
        wait(process, due, drivers[1])
        cluster.lose(kind)
    process.communicate()
    assert process.returncode == 0, drivers[1].log()
    same(run, scaled)
    assert steps(run) == steps(scaled)


def wait(process: subprocess.Popen[str], due: Callable[[], bool], driver: Driver) -> None:
    deadline = time.monotonic() + 300
    while not due():
        assert process.poll() is None, driver.log()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps(run: Path) -> dict[str, Any]:
    """The optimiser steps of each training."""
    entries = read_lines(UPath(run.parents[1] / "ledger.jsonl"))
    done = {entry["stage"]: entry["counts"] for entry in entries if entry.get("state") == "done"}
    return {stage: counts["steps"] for stage, counts in done.items() if "steps" in counts}
