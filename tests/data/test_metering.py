"""What people look at while a stage works: Prometheus metrics, read back from Ray's own export, and actors' names."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from upath import UPath

from tsalign.config import Placement
from tsalign.data.shards import Row, Shard, write_rows
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.meters import EXPORTED, Meter
from tsalign.runs.names import sign_log
from tsalign.runs.stage import Stage
from tsalign.teacher.serving import Admission

LINE = re.compile(r"^(ray_tsalign_\w+)\{(.*)\} (\S+)$")


def exported() -> dict[tuple[str, str, str, str], float]:
    """(metric, run, stage, role or phase) -> the sum over processes, as a scrape of this node gives it."""
    node = ray.nodes()[0]
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    sums: dict[tuple[str, str, str, str], float] = {}
    for name, tags, value in (match.groups() for match in map(LINE.match, lines) if match):
        tag = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        key = (name, tag.get("run", ""), tag.get("stage", ""), tag.get("role") or tag.get("phase") or "")
        sums[key] = sums.get(key, 0.0) + float(value)
    return sums


def assert_exported(expected: dict[tuple[str, str, str, str], float]) -> None:
    """Ray's processes send what they counted every ten seconds, and when they end."""
    deadline = time.monotonic() + 60
    while not expected.items() <= (found := exported()).items() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert {key: found.get(key) for key in expected} == expected


class Counted:
    """Fails the first row of a shard, counts what it asked, and tells the name of its actor."""

    def __init__(self, names: str) -> None:
        self.names = Path(names)

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        (self.names / shard).write_text(ray.get_runtime_context().get_actor_name())
        failed = [{"prompt_id": "x", "reason": "no"}]
        return Shard(rows[1:], failed, {"calls.teacher": 2.0 * len(rows), "tokens.teacher": 30.0, "flips": 1.0})


def log_lines(pattern: str) -> set[str]:
    """Lines of workers' logs."""
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    lines = (line for path in logs.glob("worker-*.out") for line in path.read_text().splitlines())
    return {line for line in lines if re.search(pattern, line)}


def test_a_stage_is_exported_and_its_actors_carry_its_name(
    ray_session: None, make_stage: Callable[..., tuple[Stage, object]], tmp_path: Path
) -> None:
    write_rows(UPath(tmp_path) / "source", ({"prompt_id": str(number)} for number in range(10)), shard_size=5)
    (names := tmp_path / "names").mkdir()
    stage, source = replace(make_stage("counted")[0], max_failed_fraction=1.0), Dataset(str(tmp_path / "source"), "x")
    map_shards(stage, source, Counted, {"names": str(names)}, Placement(replicas=2))
    of = ("test", "1/counted")
    assert_exported(
        {
            ("ray_tsalign_rows_total", *of, ""): 8,
            ("ray_tsalign_failed_rows_total", *of, ""): 2,
            ("ray_tsalign_calls_total", *of, "teacher"): 20,
            ("ray_tsalign_tokens_total", *of, "teacher"): 60,
        }
    )
    found = {key for key in exported() if key[1:3] == of}
    assert {phase for name, *_, phase in found if name == "ray_tsalign_seconds_total"} == {"load", "work", "commit"}
    assert not any("flips" in name for name, *_ in found)
    told = {path.read_text() for path in names.iterdir()}
    assert all(re.fullmatch(r"test/1/counted-[0-9a-f]{8}", name) for name in told)
    assert log_lines("counted") == {":actor_name:MapWorker(MapBatches(test/1/counted))"}


@ray.remote(num_cpus=0)
class Elsewhere:
    """Another process, as a training's driver or a replica is."""

    def train(self) -> None:
        meter = Meter("test", "1/policy")
        meter.spent("work", 2.5)
        meter.stepped(1000.0)
        meter.stepped(500.0)
        sign_log("test/1/policy")
        print("a step")

    def queue(self) -> None:
        admission = Admission(10)
        with admission.admit(7), pytest.raises(Exception, match="try again"), admission.admit(4):
            pass
        self.held = admission.admit(3)
        self.held.__enter__()


def test_trainings_and_replicas_are_exported(ray_session: None) -> None:
    other = Elsewhere.remote()
    ray.get([other.train.remote(), other.queue.remote()])
    of = ("test", "1/policy")
    assert_exported(
        {
            ("ray_tsalign_steps_total", *of, ""): 2,
            ("ray_tsalign_training_tokens_per_second", *of, ""): 500,
            ("ray_tsalign_seconds_total", *of, "work"): 2.5,
            ("ray_tsalign_teacher_queue", "", "", ""): 3,
            ("ray_tsalign_teacher_sequences_total", "", "", ""): 10,
            ("ray_tsalign_teacher_refused_total", "", "", ""): 4,
        }
    )
    assert {name for name, *_ in exported()} <= set(EXPORTED)
    assert ":actor_name:test/1/policy" in log_lines("1/policy")
