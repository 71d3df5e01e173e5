"""What travels with a job, under which names, and what is refused. Nothing here starts Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tsalign import api
from tsalign.common.errors import TsalignError
from tsalign.config import override
from tsalign.jobs import packing
from tsalign.jobs.packing import Luggage, pack
from tsalign.jobs.unpack import unpack


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with files that configs name, and others."""
    files = {
        "prompts.jsonl": '{"prompt": "hello"}\n',
        "more/a.jsonl": '{"prompt": "a"}\n',
        "more/b.jsonl": '{"prompt": "b"}\n',
        "more/.hidden": "x",
        "pair.jinja": "{{ prompt }}",
        "secret.env": "KEY=1",
        "grading.py": "def grade(prompt, completion): return 0.0\n",
        "graders/__init__.py": "from graders.inner import grade\n",
        "graders/inner.py": "def grade(prompt, completion): return 0.0\n",
        "graders/__pycache__/inner.pyc": "x",
        "model/config.json": "{}",
        "tasks/one.yaml": "description: d\n",
        "tasks/one.jsonl": "{}\n",
        "tasks/two.yaml": "description: d\n",
    }
    for name, text in files.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text)
    return tmp_path / "here"


def packed(here: Path, **changes: Any) -> Luggage:
    """The luggage of a config with some dotted keys (`__` for dots) set."""
    content = {
        "recipe": "ts-align",
        "storage": f"{here.parent}/runs",
        "policy": {"model": "org/policy"},
        "student": {"model": "/shared/student"},
        "teacher": {"model": "toy:teacher", "kind": "judge"},
        "data": {"prompts": "prompts.jsonl", "eval_fraction": 0.1},
        "evaluation": {"judge": "tsalign.toy.oracle:grade"},
        "tune": {"reference": "initial"},
    }
    changed = override(content, {key.replace("__", "."): value for key, value in changes.items()})
    return pack(api.load(changed, {}), "r", here)


def test_only_the_config_and_what_it_names_travels(here: Path, tmp_path: Path) -> None:
    luggage = packed(here, teacher__templates={"judge_pair": "pair.jinja", "judge_axes": "{{ prompt }}"})
    (tmp_path / "sent").mkdir()
    luggage.write(tmp_path / "sent")
    sent = {file.relative_to(tmp_path / "sent") for file in (tmp_path / "sent").rglob("*") if file.is_file()}
    assert sorted(file.name for file in sent) == ["config.yaml", "pair.jinja", "prompts.jsonl"]
    assert {file.parts[0] for file in sent if file.name != "config.yaml"} == {"inputs"}


@pytest.mark.parametrize(
    ("changes", "names", "end"),
    [
        ({"data__prompts": "prompts.jsonl"}, ["prompts.jsonl"], "prompts.jsonl"),
        ({"data__prompts": "{here}/prompts.jsonl"}, ["prompts.jsonl"], "prompts.jsonl"),
        ({"data__prompts": "more"}, ["more/a.jsonl", "more/b.jsonl"], "more"),
        ({"data__prompts": "more/*.jsonl"}, ["a.jsonl", "b.jsonl"], "*.jsonl"),
        ({"data__prompts": "mor?/a.jsonl"}, ["more/a.jsonl"], "mor?/a.jsonl"),
        ({"data__prompts": "tasks/one.yaml"}, ["one.jsonl", "one.yaml"], "one.yaml"),
    ],
)
def test_files_are_named_as_they_will_lie_in_the_run(
    changes: dict[str, str], names: list[str], end: str, here: Path
) -> None:
    luggage = packed(here, **{key: value.format(here=here) for key, value in changes.items()})
    _, digest, _ = luggage.inputs()[0].split("/", 2)
    assert luggage.inputs() == [f"inputs/{digest}/{name}" for name in names]
    assert luggage.content["data"]["prompts"] == f"{here.parent}/runs/r/inputs/{digest}/{end}"


@pytest.mark.parametrize(
    "location",
    [
        "toy:train",
        "s3://bucket/prompts.jsonl",
        "file:///shared/prompts.jsonl",
        "/shared/prompts.jsonl",
        "{runs}/p.jsonl",
    ],
)
def test_what_the_cluster_has_stays_as_it_is(location: str, here: Path) -> None:
    (here.parent / "runs").mkdir()
    (here.parent / "runs" / "p.jsonl").write_text("{}")
    location = location.format(runs=here.parent / "runs")
    luggage = packed(here, data__prompts=location)
    assert (luggage.inputs(), luggage.content["data"]["prompts"]) == ([], location)


def test_names_follow_the_content(here: Path) -> None:
    first, again = packed(here), packed(here)
    (here / "prompts.jsonl").write_text('{"prompt": "jello"}\n')
    changed = packed(here)
    assert first.content == again.content
    assert first.content["data"] != changed.content["data"]


@pytest.mark.parametrize(
    ("judge", "modules"),
    [
        ("grading:grade", ["grading.py"]),
        ("graders.inner:grade", ["graders/__init__.py", "graders/inner.py"]),
        ("tsalign.toy.oracle:grade", []),
        ("judge:org/model", []),
    ],
)
def test_modules_that_are_named_travel(judge: str, modules: list[str], here: Path) -> None:
    luggage = packed(here, evaluation__judge=judge)
    assert sorted(name for name in luggage.files if not name.startswith("inputs/")) == modules


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"storage": "runs"}, r"storage: runs: .* add storage=s3://BUCKET/runs"),
        ({"data__prompts": "nowhere.jsonl"}, "data.prompts: nowhere.jsonl: no such file in"),
        ({"evaluation__sets": {"a": "./no.jsonl"}}, r"evaluation.sets.a: \./no.jsonl: no such file"),
        ({"policy__model": "model"}, "policy.model: model is a model of this machine"),
        ({"policy__model": "./elsewhere"}, "policy.model: ./elsewhere is a model of this machine"),
        ({"evaluation__judge": "reward_model:~/judge"}, "evaluation.judge: ~/judge is a model of this machine"),
        ({"policy__chat_template": "chat.jinja"}, "policy.chat_template: chat.jinja: no such file"),
    ],
)
def test_what_cannot_travel_is_told(changes: dict[str, Any], told: str, here: Path) -> None:
    with pytest.raises(TsalignError, match=told):
        packed(here, **changes)


def test_too_much_to_travel(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 10)
    with pytest.raises(TsalignError, match=r"more than the 0 MB .* of .*prompts.jsonl: put it into storage"):
        packed(here)


def test_a_job_unpacks_once(here: Path, tmp_path: Path) -> None:
    luggage = packed(here, data__prompts=["prompts.jsonl", "more"])
    (tmp_path / "job").mkdir()
    luggage.write(tmp_path / "job")
    unpack(tmp_path / "job")
    locations = luggage.content["data"]["prompts"]
    assert Path(locations[0]).read_text() == '{"prompt": "hello"}\n'
    assert sorted(file.name for file in Path(locations[1]).iterdir()) == ["a.jsonl", "b.jsonl"]
    written = Path(locations[0]).stat().st_mtime_ns
    unpack(tmp_path / "job")
    assert Path(locations[0]).stat().st_mtime_ns == written
    config = yaml.safe_load((tmp_path / "job" / "config.yaml").read_text())
    assert api.load(config, {}).run == "r"


def test_a_job_does_not_unpack_into_what_is_no_run(here: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    packed(here).write(tmp_path / "job")
    (tmp_path / "runs" / "r" / "photos").mkdir(parents=True)
    with pytest.raises(TsalignError, match="is there and is not a run"):
        unpack(tmp_path / "job")
