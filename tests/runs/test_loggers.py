"""Metrics beside `metrics.jsonl`: what TensorBoard reads back, and a tracker that is not installed."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.runs import loggers


def events(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every scalar: length, its checksum, the event, its checksum."""
    found = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += length + 16
    return found


def test_tensorboard_has_steps_inside_a_stage_and_iterations_across(tmp_path: Path) -> None:
    (sink,) = loggers.open_sinks(["tensorboard"], UPath(tmp_path), "r")
    sink.write(2, "policy", {"step": 7, "loss": 0.5, "note": "text"})
    sink.write(2, "evaluation", {"win_rate": 0.75, "kept": True})
    sink.close()
    assert sorted(events(tmp_path / "tensorboard")) == [
        ("2/policy/loss", 7, 0.5),
        ("2/policy/step", 7, 7.0),
        ("evaluation/kept", 2, 1.0),
        ("evaluation/win_rate", 2, 0.75),
    ]


def test_only_numbers_are_metrics() -> None:
    assert loggers.numbers("s", {"a": 1, "b": 2.5, "c": None, "d": "x", "e": [1]}) == {"s/a": 1, "s/b": 2.5}


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_names_its_extra(tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == tracker:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TsalignError, match=rf"loggers: {tracker} is not installed; pip install 'tsalign\[{tracker}\]'"):
        loggers.open_sinks([tracker], UPath("."), "r")


def test_no_logger_is_no_sink() -> None:
    assert loggers.open_sinks([], UPath("."), "r") == []


class FakeMLflow:
    """Stands for the package, which is not installed here: remembers runs and what was logged."""

    def __init__(self) -> None:
        self.started: list[tuple[str | None, str]] = []
        self.logged: list[tuple[dict[str, float], int]] = []

    def start_run(self, run_id: str | None, run_name: str) -> Any:
        self.started.append((run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"made-{len(self.started)}"))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((metrics, step))

    def end_run(self) -> None: ...


class FakeWandB:
    """Stands for the package: remembers how runs were opened."""

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []

    def init(self, **options: Any) -> Any:
        self.opened.append(options)
        return SimpleNamespace(log=lambda metrics: None, finish=lambda: None)


def test_a_resumed_run_goes_on_in_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, wandb = FakeMLflow(), FakeWandB()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for _ in range(2):
        for sink in loggers.open_sinks(["mlflow", "wandb"], UPath(tmp_path), "r"):
            sink.write(2, "policy", {"step": 7, "loss": 0.5})
            sink.close()
    assert mlflow.started == [(None, "r"), ("made-1", "r")]
    assert mlflow.logged == [({"2/policy/step": 7, "2/policy/loss": 0.5}, 7)] * 2
    first, again = wandb.opened
    assert first == again
    assert (first["name"], first["resume"]) == ("r", "allow")
    loggers.open_sinks(["wandb"], UPath(tmp_path) / "other", "r")
    assert wandb.opened[2]["id"] != first["id"]
