"""Seconds of attempts however they ended, and calls of stages whether they did: from ledgers that crashes leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from tsalign.data.shards import Shard, write_shard
from tsalign.report.attempts import asked_of_models, stage_seconds
from tsalign.report.cost import cost_of_run

RUN = {"run": "started"}


def begun(stage: str, time: float, fingerprint: str = "a", measures: bool = False) -> dict[str, Any]:
    return {"stage": stage, "state": "started", "fingerprint": fingerprint, "measures": measures, "time": time}


def ended(stage: str, time: float, seconds: float, state: str = "done", **more: Any) -> dict[str, Any]:
    counts = {"counts": {}} if state == "done" else {}
    return {"stage": stage, "state": state, "fingerprint": "a", "seconds": seconds, "time": time, **counts, **more}


def ledger(folder: Path, *entries: dict[str, Any]) -> UPath:
    (folder / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return UPath(folder)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], {}, id="nothing yet"),
        pytest.param([{**RUN, "time": 0}, begun("a", 1), ended("a", 5, 4.0)], {"a": 4.0}, id="one attempt"),
        pytest.param(
            [{**RUN, "time": 0}, begun("a", 1), ended("a", 5, 4.0, "failed"), begun("a", 6), ended("a", 9, 3.0)],
            {"a": 7.0},
            id="failed and done",
        ),
        pytest.param(
            [{**RUN, "time": 0}, begun("a", 1), ended("a", 5, 4.0, "stopped"), {"run": "stopped", "time": 6}],
            {"a": 4.0},
            id="stopped",
        ),
        pytest.param(
            [
                *[{**RUN, "time": 0}, begun("a", 1), begun("b", 2), ended("b", 8, 6.0)],
                *[{**RUN, "time": 100}, begun("a", 101), ended("a", 110, 9.0)],
            ],
            {"a": 7.0 + 9.0, "b": 6.0},
            id="killed: until the driver's last entry",
        ),
        pytest.param(
            [*[{**RUN, "time": 0}, begun("a", 1)], *[{**RUN, "time": 50}, begun("a", 51), ended("a", 53, 2.0)]],
            {"a": 2.0},
            id="killed at once: nothing is known of it",
        ),
        pytest.param(
            [{**RUN, "time": 0}, begun("a", 10), {"run": "failed", "time": 40}],
            {"a": 30.0},
            id="the run ended and the stage did not tell",
        ),
        pytest.param(
            [
                *[{**RUN, "time": 0}, begun("a", 1), {"run": "failed", "time": 3}],
                *[{**RUN, "time": 10}, begun("a", 11), {"run": "failed", "time": 15}],
                *[{**RUN, "time": 20}, begun("a", 21), ended("a", 30, 9.0)],
            ],
            {"a": 2.0 + 4.0 + 9.0},
            id="three attempts",
        ),
    ],
)
def test_seconds_are_those_of_all_attempts(
    tmp_path: Path, entries: list[dict[str, Any]], expected: dict[str, float]
) -> None:
    assert stage_seconds(ledger(tmp_path, *entries)) == expected


def test_a_killed_training_counts_until_its_last_logged_step(tmp_path: Path) -> None:
    folder = ledger(tmp_path, {**RUN, "time": 0}, begun("1/policy", 10), {**RUN, "time": 500}, begun("1/policy", 505))
    logged = [{"stage": "policy", "step": step, "time": 10 + 60 * step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    assert stage_seconds(folder) == {"1/policy": 180.0}
    # The driver of the second attempt renewed its lease a while after it began.
    lease = {"host": "elsewhere", "pid": 1, "began": 0.0, "renewed": 535.0}
    (tmp_path / "lease-000002.json").write_text(json.dumps(lease))
    assert stage_seconds(folder) == {"1/policy": 180.0 + 30.0}


def shard(folder: Path, number: int, calls: int) -> None:
    counts = {"calls.teacher": float(calls), "tokens.teacher": 10.0 * calls}
    write_shard(UPath(folder) / f"part-{number:05}.parquet", Shard([{"prompt_id": "p"}], counts=counts))


def test_committed_shards_of_a_stage_that_failed_are_paid_for(tmp_path: Path) -> None:
    entries = [{**RUN, "time": 0}, begun("1/preferences", 1), ended("1/preferences", 5, 4.0, "failed")]
    folder = ledger(tmp_path, *entries)
    assert cost_of_run(folder)["alignment"] == {}
    shard(tmp_path / "iterations" / "1" / "preferences", 0, 16)
    shard(tmp_path / "iterations" / "1" / "preferences", 1, 8)
    assert cost_of_run(folder)["alignment"] == {"teacher": {"calls": 24, "tokens": 240}}
    # Done at last, its own counts hold those shards.
    done = ended("1/preferences", 9, 2.0, counts={"calls.teacher": 30, "tokens.teacher": 300})
    folder = ledger(tmp_path, *entries, begun("1/preferences", 7), done)
    assert cost_of_run(folder)["alignment"] == {"teacher": {"calls": 30, "tokens": 300}}
    # And the shards of one done again for the same inputs, after some of them were damaged, are paid for once.
    folder = ledger(tmp_path, *entries, done, begun("1/preferences", 10))
    assert cost_of_run(folder)["alignment"] == {"teacher": {"calls": 30, "tokens": 300}}


def test_a_stage_done_for_two_inputs_was_paid_for_twice(tmp_path: Path) -> None:
    counts = {"calls.teacher": 10, "tokens.teacher": 100, "prompts": 5}
    entries = [ended("1/mine", time, 1.0, counts=counts, fingerprint=str(time)) for time in (1, 2)]
    cost = cost_of_run(ledger(tmp_path, *entries))
    assert cost["alignment"] == cost["stages"]["1/mine"] == {"teacher": {"calls": 20, "tokens": 200}}
    assert cost["prompts"] == 10


def test_what_an_exam_asks_is_measuring_even_while_it_is_at_work(tmp_path: Path) -> None:
    folder = ledger(tmp_path, {**RUN, "time": 0}, begun("base_scores", 1, measures=True))
    shard(tmp_path / "base_scores", 0, 4)
    assert cost_of_run(folder)["measuring"] == {"teacher": {"calls": 4, "tokens": 40}}
    assert [one.stage for one in asked_of_models(folder)] == ["base_scores"]
