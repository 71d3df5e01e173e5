"""Waiting for a service that sleeps: for its model as long as patience lasts, for its turn as long as it takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tsalign.common import http
from tsalign.common.applications import ApplicationState, waits_in_turn
from tsalign.common.http import RetryingClient, Service, ServiceDown

SCHEDULED = (
    "Deployment 'TeacherReplica' in application 'teacher-1' has 1 replicas that have taken more than 30s to be "
    "scheduled. This may be due to waiting for the cluster to auto-scale or for a runtime environment to be installed. "
    'Resources required for each replica: {"CPU": 2.0, "GPU": 1.0}, total resources available: {"CPU": 3.0}. Use `ray '
    "status` for more details."
)
LOADING = "Deployment 'TeacherReplica' in application 'x' has 1 replicas that have taken more than 30s to initialize."


@pytest.mark.parametrize(
    ("said", "have", "in_turn"),
    [
        (SCHEDULED, {"CPU": 4, "GPU": 1}, True),
        (SCHEDULED, {"CPU": 4, "GPU": 8, "teacher": 1}, True),
        (SCHEDULED, {"CPU": 4}, False),  # a node has to come first
        (SCHEDULED, {"CPU": 1, "GPU": 1}, False),
        (LOADING, {"CPU": 4, "GPU": 1}, False),
        ("", {"CPU": 4, "GPU": 1}, False),
    ],
)
def test_what_waits_in_turn(said: str, have: dict[str, float], in_turn: bool) -> None:
    assert waits_in_turn(said, have) == in_turn


class Clock:
    """A minute passes whenever somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 60


def waking(monkeypatch: pytest.MonkeyPatch, states: Iterator[ApplicationState]) -> float:
    """Minutes until a client with half an hour's patience has woken an application that is in these states."""
    clock = Clock()
    monkeypatch.setattr(http, "time", clock)
    monkeypatch.setattr(http, "application_state", lambda _: next(states))
    service = Service("teacher", "http://127.0.0.1:9", None, "Resume.", "/healthz", 1.0, 1800.0, False, "teacher-1")
    RetryingClient(service).wake()
    return clock.now / 60


UP, TURN = ApplicationState(1, "RUNNING", ""), ApplicationState(0, "RUNNING", "", in_turn=True)


def test_hours_of_other_stages_are_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = ApplicationState(0, "RUNNING", LOADING)
    states = [*[TURN] * 300, *[loads] * 20, UP]
    assert waking(monkeypatch, iter(states)) == 320


def test_a_model_that_never_loads_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = ApplicationState(0, "RUNNING", LOADING)
    with pytest.raises(ServiceDown, match="teacher is not up after 1860 s: Deployment"):
        waking(monkeypatch, iter([TURN, TURN, *[loads] * 40]))
