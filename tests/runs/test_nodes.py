"""What an actor takes of a node, how many a cluster holds, and stages that are done together."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from tsalign.common.applications import asked_by, turn
from tsalign.config import Placement, SamplePlacement, TeacherConfig
from tsalign.runs.artifacts import Endpoint
from tsalign.runs.nodes import Size, actor_options, fits, holds, size_of
from tsalign.runs.together import Missing, Seat, Streamed, Together
from tsalign.teacher.client import TeacherClient

GPU_NODE = {"CPU": 8.0, "GPU": 4.0, "sampler": 1.0, "memory": 1e9}
CPU_NODE = {"CPU": 2.0, "memory": 1e9}


@pytest.mark.parametrize(
    ("size", "text", "options"),
    [
        (Size(1, 0), "1 CPU", {"num_cpus": 1, "num_gpus": 0}),
        (Size(2, 0.5), "2 CPU, 0.5 GPU", {"num_cpus": 2, "num_gpus": 0.5}),
        (
            Size(1, 1, "sampler"),
            "1 CPU, 1 GPU on sampler",
            {"num_cpus": 1, "num_gpus": 1, "resources": {"sampler": 0.0001}},
        ),
        (
            Size(1, 0, {"zone": "a", "spot": "true"}),
            "1 CPU on zone=a, spot=true",
            {"num_cpus": 1, "num_gpus": 0, "label_selector": {"zone": "a", "spot": "true"}},
        ),
    ],
)
def test_an_actor_is_told_to_people_and_to_ray(size: Size, text: str, options: dict[str, Any]) -> None:
    assert str(size) == text
    assert actor_options(size) == options


@pytest.mark.parametrize(
    ("node", "labels", "size", "many"),
    [
        (GPU_NODE, {}, Size(1, 1), 4),
        (GPU_NODE, {}, Size(1, 0.25), 8),
        (GPU_NODE, {}, Size(0, 0.25), 16),
        (GPU_NODE, {}, Size(0.1, 0), 80),  # no rounding error takes one away
        (GPU_NODE, {}, Size(1, 1, "sampler"), 4),
        (CPU_NODE, {}, Size(1, 0, "sampler"), 0),
        (CPU_NODE, {}, Size(1, 1), 0),
        (CPU_NODE, {}, Size(0, 0), math.inf),
        (CPU_NODE, {"zone": "a"}, Size(1, 0, {"zone": "a"}), 2),
        (CPU_NODE, {"zone": "b"}, Size(1, 0, {"zone": "a"}), 0),
        (CPU_NODE, {}, Size(0, 0, {"zone": "a"}), 0),
    ],
)
def test_how_many_actors_an_idle_node_holds(
    node: dict[str, float], labels: dict[str, str], size: Size, many: float
) -> None:
    assert fits(node, labels, size) == many


def test_nodes_that_are_gone_hold_nothing() -> None:
    nodes = [
        {"Alive": True, "Resources": GPU_NODE, "Labels": {}},
        {"Alive": False, "Resources": GPU_NODE, "Labels": {}},
        {"Alive": True, "Resources": CPU_NODE, "Labels": {}},
    ]
    assert holds(nodes, Size(1, 0)) == 10
    assert holds(nodes, Size(1, 1)) == 4


def test_where_there_is_one_machine_nodes_are_not_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    place, teacher = SamplePlacement(gpus=1, tensor_parallel=2, node="sampler"), TeacherConfig(node="teacher")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (size_of(place), size_of(teacher)) == (Size(1, 2), Size(1, 0))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert (size_of(place), size_of(teacher)) == (Size(1, 2, "sampler"), Size(1, 0, "teacher"))


def test_a_range_of_replicas() -> None:
    assert [(one.least, one.most) for one in (Placement(replicas=3), Placement(replicas={"min": 2, "max": 8}))] == [
        (3, 3),
        (2, 8),
    ]


def in_threads(*calls: Callable[[], Any]) -> list[Future[Any]]:
    futures = [Future[Any]() for _ in calls]

    def call(one: Callable[[], Any], future: Future[Any]) -> None:
        try:
            future.set_result(one())
        except BaseException as error:
            future.set_exception(error)

    for one, future in zip(calls, futures):
        threading.Thread(target=call, args=(one, future), daemon=True).start()
    return futures


def test_all_parts_are_done_once_in_the_order_of_the_seats() -> None:
    together, done = Together(), list[Sequence[str]]()
    seats = [together.seat() for _ in range(3)]
    doing = in_threads(
        lambda: seats[2].bring("c", done.append),
        lambda: seats[0].bring("a", done.append),
        lambda: seats[1].leave(failed=False),  # done before
        together.close,
    )
    for one in doing:
        one.result(timeout=10)
    assert done == [["a", "c"]]


def test_nothing_is_done_before_all_seats_are_known() -> None:
    together, done = Together(), list[Sequence[str]]()
    seat = together.seat()
    (doing,) = in_threads(lambda: seat.bring("a", done.append))
    with pytest.raises(TimeoutError):
        doing.result(timeout=0.2)
    assert done == []
    together.close()
    doing.result(timeout=10)
    assert done == [["a"]]


def test_who_waits_hears_that_a_stage_beside_has_failed() -> None:
    together, done = Together(), list[Sequence[str]]()
    first, second = together.seat(), together.seat()
    together.close()
    (waiting,) = in_threads(lambda: first.bring("a", done.append))
    second.leave(failed=True)
    with pytest.raises(Missing):
        waiting.result(timeout=10)
    assert done == []


def test_an_error_of_the_work_is_every_stage_s() -> None:
    together = Together()
    seats: list[Seat] = [together.seat(), together.seat()]
    together.close()

    def fail(parts: Sequence[str]) -> None:
        raise ValueError("".join(parts))

    for one in in_threads(*(lambda seat=seat: seat.bring("x", fail) for seat in seats)):
        with pytest.raises(ValueError, match="xx"):
            one.result(timeout=10)


def test_a_row_that_is_closed_is_followed_by_another() -> None:
    streamed = Streamed()
    with streamed:
        first = streamed.seat()
    streamed.close()
    with streamed:
        second = streamed.seat()
    assert first.together is not second.together
    assert (first.number, second.number) == (0, 0)


def test_what_a_worker_asks_is_found_in_what_it_gets() -> None:
    client, endpoint = TeacherClient("http://x", application="a"), Endpoint("http://x/v1", "m", "e", application="b")
    assert asked_by({"scorers": {"teacher": client}, "asking": [endpoint, "text", 3]}) == {"a", "b"}
    assert asked_by({"scorers": {"teacher": TeacherClient("http://x")}}) == set()


def test_stages_that_ask_one_application_take_turns() -> None:
    inside, most, entered = 0, 0, threading.Lock()
    over = threading.Event()

    def ask(names: set[str]) -> None:
        nonlocal inside, most
        with turn(names):
            with entered:
                inside += 1
                most = max(most, inside)
            over.wait(0.05)
            with entered:
                inside -= 1

    for one in in_threads(*(lambda names=names: ask(names) for names in ({"a"}, {"a", "b"}, {"b", "a"}, {"a"}))):
        one.result(timeout=10)
    assert most == 1
