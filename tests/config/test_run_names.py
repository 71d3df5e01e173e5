"""Wherever the name of a run comes in, it stays a folder in the storage folder: nothing outside is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic import make_run
from typer.testing import CliRunner, Result

from tsalign import api
from tsalign.cli import app
from tsalign.common.errors import TsalignError
from tsalign.config import run_name
from tsalign.report.summary import find_run

BAD = ["..", ".", "", "../up", "a/b", "/etc", ".hidden", "-rf", "_x", "a b", "a\n", "a\\b", "naïve", "x" * 129, "a\0"]
EXPECTED = "expected letters, digits"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content: dict[str, Any] = {
        "recipe": "ts-align",
        "storage": str(tmp_path / "home" / "runs"),
        "policy": {"model": "toy:policy"},
        "student": {"model": "toy:student"},
        "teacher": {},
        "data": {"prompts": "toy:train"},
        "evaluation": {"judge": "tsalign.toy.oracle:grade", "sets": {"toy": "toy:test"}},
        "tune": {"reference": "initial"},
    }
    path = tmp_path / "home" / "config.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    (path.parent / "prompts").mkdir()
    (path.parent / "prompts" / "mine.jsonl").write_text('{"prompt": "kept"}\n')
    return path


def untouched(config: Path) -> None:
    names = sorted(str(path.relative_to(config.parent)) for path in config.parent.rglob("*"))
    assert names == ["config.yaml", "prompts", "prompts/mine.jsonl"]
    assert yaml.safe_load(config.read_text())["recipe"] == "ts-align"
    assert (config.parent / "prompts" / "mine.jsonl").read_text() == '{"prompt": "kept"}\n'


@pytest.mark.parametrize("name", [name for name in BAD if "\0" not in name])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_config_cannot_name_a_run_outside_its_storage(config: Path, command: str, name: str) -> None:
    content = {**yaml.safe_load(config.read_text()), "run": name}
    before, mine = config.read_text(), config.parent / "mine.yaml"
    mine.write_text(yaml.safe_dump(content))
    result = call(command, mine)
    mine.unlink()
    assert (result.exit_code, result.stdout) == (2, "")
    assert EXPECTED in result.stderr
    assert "mine.yaml: run: " in result.stderr
    assert config.read_text() == before
    untouched(config)


@pytest.mark.parametrize("arguments", [["run=.."], ["run='.'"], ["run=../x"], ["run=prompts/.."]])
def test_an_override_cannot_either(config: Path, arguments: list[str]) -> None:
    result = call("run", config, *arguments)
    assert (result.exit_code, EXPECTED in result.stderr) == (2, True)
    untouched(config)


def test_neither_can_the_options_of_other_commands(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    judged = ["--sets", "toy:test", "--judge", "tsalign.toy.oracle:grade"]
    for command in (["quickstart"], ["evaluate", "toy:policy", "--against", "toy:policy", *judged]):
        result = call(*command, "--run", "..")
        assert (result.exit_code, EXPECTED in result.stderr) == (2, True)
    built = call("toy", "build", "--out", "a b")
    assert (built.exit_code, EXPECTED in built.stderr) == (2, True)
    untouched(config)


@pytest.mark.parametrize("name", BAD)
def test_what_may_not_name_a_run(name: str) -> None:
    with pytest.raises(ValueError, match=EXPECTED):
        run_name(name)
    with pytest.raises(TsalignError, match=EXPECTED):
        api.resume(name)


@pytest.mark.parametrize("name", ["a", "7", "demo", "ts-align-20260101-120000", "v1.2_b", "x" * 128])
def test_what_may(name: str) -> None:
    assert run_name(name) == name


def test_a_run_is_found_by_its_directory_however_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "runs", "demo")
    (folder / "report").mkdir()
    monkeypatch.chdir(folder / "report")
    for written in ("..", "../../demo", str(folder), "../."):
        assert (str(find_run(written)), find_run(written).name) == (str(folder), "demo")


def test_a_name_is_not_a_way_out_of_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "other", "demo")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(TsalignError, match="no such run"):
        find_run("../demo", str(tmp_path / "other" / "x"))
