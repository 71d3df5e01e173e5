"""Metrics beside `metrics.jsonl`: what TensorBoard reads back, and a tracker that is not installed."""

from __future__ import annotations

import struct
from pathlib import Path
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
