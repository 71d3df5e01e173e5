"""Which nodes a run needs, and what is wrong with those that there are: pure functions over node types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsalign import api
from tsalign.recipes import find
from tsalign.runs import dry_run
from tsalign.runs.joining import ADDRESS
from tsalign.runs.node_types import HEAD, NodeType, possible, present, stuck
from tsalign.runs.nodes import Size
from tsalign.runs.preflight import differences, local_paths, wants

CPU_WORKER = NodeType("cpu-worker", {"CPU": 16}, {"disk": "ssd"})
GPU_WORKER = NodeType("gpu-worker", {"CPU": 8, "GPU": 1, "sampler": 1}, {})
BIG_WORKER = NodeType("big-worker", {"CPU": 96, "GPU": 8}, {"pool": "train"})


def content(tmp_path: Path, **resources: Any) -> dict[str, Any]:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n' * 10)
    return {
        "recipe": "ts-align",
        "policy": {"model": "org/policy"},
        "student": {"model": "org/student"},
        "teacher": {"model": "toy:teacher", "gpus": 2, "node": "teacher"},
        "data": {"prompts": str(tmp_path / "prompts.jsonl"), "eval_fraction": 0.1},
        "evaluation": {"judge": "reward_model:toy:teacher"},
        "tune": {"reference": "initial"},
        "resources": resources,
    }


def test_what_a_run_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "head:6379")
    sample = {"gpus": 1, "tensor_parallel": 4, "node": {"pool": "train"}}
    config = api.load(content(tmp_path, sample=sample, train_teacher={"gpus": 64}), {})
    wanted = wants(dry_run.plan(config, find("ts-align").function), config.resources)
    assert {what.partition(",")[0]: size for what, size in wanted.items()} == {
        "resources.sample": Size(1, 4, {"pool": "train"}),
        "resources.score": Size(1, 0),
        "resources.mine": Size(1, 0),
        "resources.train_policy": Size(1, 0),
        "resources.train_student": Size(1, 0),
        "a task": Size(1, 0),
        "teacher": Size(1, 2, "teacher"),
    }


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (Size(1, 0), ""),
        (Size(96, 8), ""),
        (Size(4, 0.5, "sampler"), ""),
        (Size(4, 1, {"pool": "train"}), ""),
        (Size(128, 0), "an actor wants 128 CPU, and the largest node type has less (big-worker: 96 CPU, 8 GPU)"),
        (Size(16, 1, "sampler"), "wants 16 CPU, 1 GPU on sampler, and the largest node type has less (gpu-worker: 8"),
        (Size(1, 0, "teacher"), "no node type is marked teacher. There are cpu-worker: 16 CPU; gpu-worker: 8 CPU, 1 G"),
        (Size(1, 0, {"pool": "score"}), "no node type is labelled pool=score."),
    ],
)
def test_what_would_wait_for_ever(size: Size, told: str) -> None:
    lines = list(stuck({"resources.sample, for candidates": size}, [CPU_WORKER, GPU_WORKER, BIG_WORKER]))
    assert [line.startswith("resources.sample, for candidates: would wait for ever: ") for line in lines] == (
        [True] if told else []
    )
    assert told in "".join(lines)


def test_a_cluster_without_workers() -> None:
    [line] = stuck({"teacher": Size(1, 0, "pool")}, [])
    assert line == "teacher: would wait for ever: no node type is marked pool. There are none."


def test_types_of_an_autoscalers_config() -> None:
    config: dict[str, Any] = {
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 8, "GPU": 1, "memory": 1e9}, "labels": {"spot": "yes"}, "max_workers": 3},
        }
    }
    assert possible(config) == [NodeType("gpu", {"CPU": 8, "GPU": 1}, {"spot": "yes"})]
    config["available_node_types"]["found out on arrival"] = {"resources": {}, "max_workers": 1}
    assert possible(config) is None


def node(address: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": address,
        "NodeManagerAddress": address,
        "Alive": alive,
        "Resources": {**resources, f"node:{address}": 1.0, "memory": 1e9, "object_store_memory": 1e8},
        "Labels": {"ray.io/node-id": address},
    }


def test_nodes_that_are_alike_are_one_type() -> None:
    nodes = [node("1", CPU=8, GPU=1), node("2", CPU=8, GPU=1), node("3", CPU=8), node("4", alive=False, CPU=64)]
    kinds = present([*nodes, node("5", **{HEAD: 1.0})])
    assert [(kind.ids, kind.resources) for kind in kinds] == [
        (("1", "2"), {"CPU": 8, "GPU": 1}),
        (("3",), {"CPU": 8}),
        (("5",), {}),
    ]


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({}, []),
        ({"tsalign": "0.0.9"}, ["has tsalign 0.0.9, the driver 0.1.0; install the same one on all nodes."]),
        ({"tsalign": ""}, ["has no tsalign; install 0.1.0, or send it with `tsalign submit --package`."]),
        ({"Ray": "2.59.0", "Python": "3.12"}, ["has Ray 2.59.0, the driver 2.60.0;", "has Python 3.12, the driver"]),
    ],
)
def test_other_versions_on_a_node(theirs: dict[str, str], told: list[str]) -> None:
    ours = {"Ray": "2.60.0", "Python": "3.11.7", "tsalign": "0.1.0"}
    found = list(differences({**ours, **theirs}, ours))
    assert [line[: len(start)] for line, start in zip(found, told)] == told
    assert len(found) == len(told)


def test_paths_that_nodes_have_to_see(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    given = {**content(tmp_path), "student": {"model": str(tmp_path / "student")}}
    given["evaluation"]["sets"] = {"remote": "s3://bucket/set.jsonl", "built in": "toy:test"}
    assert local_paths(api.load(given, {})) == {
        "student.model": str(tmp_path / "student"),
        "data.prompts": str(tmp_path / "prompts.jsonl"),
    }
