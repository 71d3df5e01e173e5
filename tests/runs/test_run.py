"""The ledger's promises: done once, redone when an input changed, continued when cut, and an honest status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import psutil
import pytest
import yaml
from synthetic import hold
from upath import UPath

import tsalign.runs.progress
import tsalign.runs.run
from tsalign.common.errors import TsalignError
from tsalign.common.storage import append_line, atomic, read_lines, write_json
from tsalign.config import ModelConfig, ResourceConfig, RunConfig, SamplingConfig
from tsalign.data.sources import contents
from tsalign.runs.artifacts import Dataset, Model, content_fingerprint, fingerprint, model_from
from tsalign.runs.interrupts import Terminated
from tsalign.runs.ledger import Ledger
from tsalign.runs.progress import read_progress
from tsalign.runs.run import Cancelled, Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import StageFunction, measuring, stage_function
from tsalign.runs.status import status
from tsalign.scoring.function import PythonFunction

SLOW_TO_IMPORT = ("tsalign.engines.vllm", "tsalign.training.loop", "tsalign.teacher.app")  # and without stages


def config(folder: Path, **changes: Any) -> RunConfig:
    return RunConfig(recipe="test", storage=str(folder), loggers=(), **changes)


@stage_function("write")
def write(stage: Stage, text: str, source: Dataset | None = None) -> Dataset:
    """A stage that appends to what it finds, so that a second go would show."""
    stage.out.mkdir(parents=True, exist_ok=True)
    with (stage.out / "text").open("a") as file:
        file.write(text)
    stage.log({"characters": len(text)})
    return Dataset(str(stage.out), stage.fingerprint)


@stage_function("fails")
def fails(stage: Stage, message: str) -> Dataset:
    (stage.out).mkdir(parents=True)
    (stage.out / "part").write_text("kept")
    raise ValueError(message)


def text(dataset: Dataset) -> str:
    return (Path(dataset.path) / "text").read_text()


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    for _ in range(2):
        run = Run(config(tmp_path), "r")
        with run.open():
            made = run.stage("one", write, "a")
            for it in run.iterations(2):
                made = it.stage("two", write, "b", made)
        assert text(made) == "b"
    assert [entry["state"] for entry in run.ledger.entries if entry.get("stage") == "2/two"] == ["started", "done"]
    assert made.path == str(tmp_path / "r" / "iterations" / "2" / "two")
    assert run.ledger.last("one")["counts"] == {"characters": 1}


def test_a_changed_input_redoes_what_depends_on_it(tmp_path: Path) -> None:
    for content, expected in (("a", "a"), ("aa", "aa"), ("aa", "aa")):
        run = Run(config(tmp_path), "r")
        with run.open():
            first = run.stage("one", write, content)
            second = run.stage("two", write, "b", source=first)
        assert text(first) == expected
        assert text(second) == "b"
    states = [entry["state"] for entry in run.ledger.entries if entry.get("stage") == "two"]
    assert states == ["started", "done"] * 2
    done = run.ledger.last("two")
    started = next(e for e in reversed(run.ledger.entries) if e.get("stage") == "two" and e["state"] == "started")
    assert started["inputs"]["source"] == {"path": first.path, "fingerprint": first.fingerprint}
    assert done["output"]["fingerprint"] == second.fingerprint


MOVED = """
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

@stage_function("write", version={version})
def put_down(stage: Stage, text: str) -> Dataset:
    stage.out.mkdir(parents=True, exist_ok=True)
    with (stage.out / "text").open("a") as file:
        file.write(text.upper())
    return Dataset(str(stage.out), stage.fingerprint)
"""


@pytest.mark.parametrize(("version", "expected"), [(1, "a"), (2, "A")])
def test_a_stage_is_known_by_name_and_version_wherever_its_function_is(
    version: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"moved_{version}"
    (tmp_path / f"{module}.py").write_text(MOVED.format(version=version))
    monkeypatch.syspath_prepend(tmp_path)
    for function in (write, import_module(module).put_down):
        run = Run(config(tmp_path), "r")
        with run.open():
            made = run.stage("one", function, "a")
    assert text(made) == expected
    started = [entry for entry in run.ledger.entries if entry.get("stage") == "one" and entry["state"] == "started"]
    assert len(started) == version


@stage_function("sees-itself")
def sees_itself(stage: Stage) -> Dataset:
    """A stage that waits until it is told that it is at work."""
    deadline = time.monotonic() + 60
    while [one.stage for one in read_progress(stage.out.parent)] != [stage.name]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stage.out.mkdir(exist_ok=True)
    return Dataset(str(stage.out), stage.fingerprint)


def test_every_run_of_a_process_tells_what_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsalign.runs.progress, "SECONDS", 0.01)
    first, second, third = (Run(config(tmp_path), name) for name in ("first", "second", "third"))
    with first.open(), second.open():  # side by side
        second.stage("two", sees_itself)
        first.stage("one", sees_itself)
    with third.open():
        third.stage("three", sees_itself)
    assert [run.dir.name for run in (first, second, third) if read_progress(run.dir)] == []


def test_every_stage_function_has_a_name_of_its_own_and_a_plan() -> None:
    found = {
        id(value.do): value
        for module in walk_packages(tsalign.__path__, "tsalign.")
        if module.name not in SLOW_TO_IMPORT
        for value in vars(import_module(module.name)).values()
        if isinstance(value, StageFunction)
    }
    names = [function.name for function in found.values()]
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))
    assert [function.name for function in found.values() if function._expect is None] == []


def test_the_seed_is_an_input_and_resources_are_not(tmp_path: Path) -> None:
    prints = []
    for changes in ({}, {"seed": 1}, {"resources": {"score": {"replicas": 3}}}):
        run = Run(config(tmp_path, **changes), "r")
        with run.open():
            prints.append(run.stage("one", write, "a").fingerprint)
    assert prints[0] == prints[2] != prints[1]


def test_the_ledger_tells_measuring_from_the_rest(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with run.open():
        made, measured = run.stage("one", write, "a"), run.stage("two", measuring(write), "a")
    assert [run.ledger.last(stage)["measures"] for stage in ("one", "two")] == [False, True]
    assert text(made) == text(measured)
    assert not write.measures


def test_a_failed_stage_keeps_its_partial_work(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with pytest.raises(ValueError, match="no luck"), run.open():
        run.stage("one", fails, "no luck")
    assert status(run.dir) == "failed"
    assert (run.dir / "one" / "part").read_text() == "kept"
    assert "no luck" in run.ledger.last("one")["error"]


@stage_function("waits")
def waits(stage: Stage, file: str) -> Dataset:
    """Waits for a file for as long as a test lasts."""
    deadline = time.monotonic() + 60
    while not Path(file).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return write(stage, "late")


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for stages to end that nothing cuts off here."""
    monkeypatch.setattr(tsalign.runs.run, "CLOSING_SECONDS", 0.1)


@pytest.mark.usefixtures("closing")
def test_errors_of_overlapping_stages_end_what_runs_meanwhile(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with pytest.raises(ValueError, match="beside"), run.open():
        run.overlap(run.stage, "one", fails, "beside")
        run.stage("two", waits, str(tmp_path / "never"))
    assert status(run.dir) == "failed"
    assert [entry for entry in run.ledger.entries if entry.get("run")][-1]["error"] == "ValueError: beside"
    (tmp_path / "never").touch()


def test_a_stage_that_is_not_waited_for_fails_the_run_too(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with pytest.raises(ValueError, match="beside"), run.open():
        run.overlap(run.stage, "one", fails, "beside")
    assert status(run.dir) == "failed"


def test_no_stage_begins_once_the_run_has_ended(tmp_path: Path) -> None:
    def chain(run: Run) -> None:
        run.stage("one", waits, str(tmp_path / "go"))
        run.stage("two", write, "never")

    run = Run(config(tmp_path), "r")
    with pytest.raises(KeyboardInterrupt), run.open():
        beside = run.overlap(chain, run)
        while run.ledger.last("one") is None:
            time.sleep(0.01)
        (tmp_path / "go").touch()
        raise KeyboardInterrupt
    assert isinstance(beside.exception(), Cancelled)
    assert run.ledger.last("two") is None
    (last,) = [entry for entry in run.ledger.entries if entry.get("run") not in (None, "started")]
    assert (last["run"], last["error"]) == ("stopped", "Ctrl-C")


@pytest.mark.usefixtures("closing")
def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), run.open():
        run.overlap(lambda: os.kill(os.getpid(), signal.SIGTERM))
        run.stage("two", waits, str(tmp_path / "never"))
    assert status(run.dir) == "stopped"
    assert signal.getsignal(signal.SIGTERM) == before
    assert run.ledger.run_state()["error"] == "SIGTERM"
    (tmp_path / "never").touch()


def test_statuses(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with pytest.raises(KeyboardInterrupt), run.open():
        raise KeyboardInterrupt
    assert status(run.dir) == "stopped"
    with Run(config(tmp_path), "r").open():
        pass
    assert status(run.dir) == "done"
    Ledger(run.dir / "ledger.jsonl").append(run="started")
    assert status(run.dir) == "stopped"
    hold(run.dir, psutil.Process().parent())
    assert status(run.dir) == "running"
    with pytest.raises(TsalignError, match=r"run r is already running: process \d+ on .* drives it"), run.open():
        pass


def test_the_run_directory_tells_its_config_and_origin(tmp_path: Path) -> None:
    run = Run(config(tmp_path, seed=7), "r")
    with run.open():
        run.stage("one", write, "a")
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["seed"] == 7
    assert "ray" in json.loads((tmp_path / "r" / "provenance.json").read_text())["packages"]
    (metrics,) = read_lines(run.dir / "metrics.jsonl")
    assert (metrics["stage"], metrics["characters"]) == ("one", 1)


@pytest.mark.parametrize("cut", ['{"stage": "tw', "\x00\x00\x00", '{"stage": "two"\n', "[1]\n", '"x"\n'])
def test_a_ledger_cut_in_its_last_line_goes_on(cut: str, tmp_path: Path) -> None:
    path = UPath(tmp_path) / "ledger.jsonl"
    append_line(path, {"stage": "one", "state": "done"})
    with path.open("a") as file:
        file.write(cut)
    assert [entry["stage"] for entry in read_lines(path)] == ["one"]
    Ledger(path).append(stage="three", state="done")
    assert [entry["stage"] for entry in read_lines(path)] == ["one", "three"]


@pytest.mark.parametrize("line", [b"{", b"", b"\xff\xfe", b"null", b"[]"])
def test_a_ledger_damaged_elsewhere_says_where(line: bytes, tmp_path: Path) -> None:
    path = UPath(tmp_path) / "ledger.jsonl"
    path.write_bytes(b'{"stage": "one"}\n' + line + b'\n{"stage": "two"}\n')
    with pytest.raises(TsalignError, match=r"ledger.jsonl:2: not a JSON object"):
        Ledger(path)


def test_errors_with_what_utf8_cannot_hold_are_recorded(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with pytest.raises(ValueError, match="\udc80"), run.open():
        run.stage("one", fails, "bad byte \udc80")
    assert "bad byte" in Ledger(run.dir / "ledger.jsonl").last("one")["error"]


def test_a_run_whose_ledger_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    run = Run(config(tmp_path), "r")
    with run.open():
        next(run.iterations(1)).stage("one", write, "a")
    run.ledger.path.unlink()
    with pytest.raises(TsalignError, match=r"ledger\.jsonl is gone, but .* is there"), run.open():
        pass


def test_what_is_not_whole_any_more_is_made_again(tmp_path: Path) -> None:
    for spoil in (lambda path: path.unlink(), lambda path: path.write_text("cut")):
        run = Run(config(tmp_path), "r")
        with run.open():
            made = run.stage("one", write, "a")
        assert run.finished()
        spoil(Path(made.path) / "text")
        assert not run.finished()
        shutil.rmtree(made.path)
    with (again := Run(config(tmp_path), "r")).open():
        assert text(again.stage("one", write, "a")) == "a"
    assert again.ledger.entries[-3]["anew"].endswith("one is not whole any more")


def test_a_renamed_run_goes_on_in_its_folder(tmp_path: Path) -> None:
    with Run(config(tmp_path), "r").open() as _:
        pass
    run = Run(config(tmp_path), "r")
    with run.open():
        run.stage("one", write, "a")
    (tmp_path / "r").rename(tmp_path / "s")
    with (moved := Run(config(tmp_path), "s")).open():
        made = moved.stage("one", write, "a")
    assert (made.path, text(made)) == (str(tmp_path / "s" / "one"), "a")


@stage_function("reads")
def reads(stage: Stage, settings: ResourceConfig, note: str, place: str) -> Dataset:
    return write(stage, Path(place).read_text())


@reads.reads
def _files(settings: ResourceConfig, note: str, place: str) -> dict[str, str]:
    return {place: content_fingerprint([UPath(place)])}


def test_a_stage_done_anew_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, told = tmp_path / "prompts.jsonl", []
    for content, wait, note in (("a", 1, "x"), ("b", 1, "x"), ("b", 2, "x" * 200), ("b", 2, "y" * 200)):
        place.write_text(content)
        run = Run(config(tmp_path, resources={"wait_seconds": wait}), "r")
        with run.open():
            assert text(run.stage("one", reads, run.config.resources, note, str(place))) == content
        told.append(next(e for e in reversed(run.ledger.entries) if e.get("state") == "started").get("anew"))
    assert told[0] is None
    assert told[1] == f"{place} changed"
    assert told[2] == "resources.wait_seconds 1.0 -> 2.0, note changed"
    assert told[3] == "note changed"
    with run.open():
        run.stage("one", reads, run.config.resources, note, str(place))
    shown = capsys.readouterr().err
    assert "done anew: note changed" in shown
    assert ["·", "one", "done", "before"] in [line.split() for line in shown.splitlines()]


def test_a_file_that_is_gone_is_known_by_what_it_was(tmp_path: Path) -> None:
    place = tmp_path / "prompts.jsonl"
    place.write_text("a")
    for _ in range(2):
        run = Run(config(tmp_path), "r")
        with run.open():
            assert text(run.stage("one", gone, str(place))) == "late"
        place.unlink(missing_ok=True)
    assert [entry["state"] for entry in run.ledger.entries if entry.get("stage") == "one"] == ["started", "done"]


@stage_function("gone")
def gone(stage: Stage, place: str) -> Dataset:
    return write(stage, "late")


@gone.reads
def _gone_files(place: str) -> dict[str, str]:
    return contents([place])


@pytest.mark.parametrize("content", ["return 1.0", "return 2.0"])
def test_a_judge_is_known_by_its_file(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge.py").write_text("def grade(prompt, completion):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint(PythonFunction("my_judge:grade"))
    (tmp_path / "my_judge.py").write_text(f"def grade(prompt, completion):\n    {content}\n")
    assert (fingerprint(PythonFunction("my_judge:grade")) == before) == (content == "return 1.0")


def test_a_chat_template_is_known_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    chosen = ModelConfig(model=str(tmp_path), chat_template=str(tmp_path / "t.jinja"))
    one = model_from(chosen, "policy")
    assert one.chat_template == "{{ messages }}"
    (tmp_path / "t.jinja").write_text("{{ messages[0] }}")
    assert model_from(chosen, "policy").fingerprint != one.fingerprint


@pytest.mark.parametrize("key", ["gpu_memory", "batch_tokens"])
def test_keys_of_how_work_is_done_are_no_input(key: str) -> None:
    half = SamplingConfig().model_copy(update={key: getattr(SamplingConfig(), key) / 2})
    assert fingerprint(half) == fingerprint(SamplingConfig()) != fingerprint(SamplingConfig(k=3))


@pytest.mark.parametrize("root", ["memory://bucket/runs", "{tmp}"])
def test_writes_are_whole_or_not_at_all(root: str, tmp_path: Path) -> None:
    path = UPath(root.format(tmp=tmp_path)) / "a" / "x.json"
    write_json(path, {"v": 1})
    write_json(path, {"v": 2})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"v": 2}
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


def test_fingerprints_follow_content(tmp_path: Path) -> None:
    one = Dataset("/a", "f")
    assert fingerprint(one, {"x": (1, 2)}) == fingerprint(Dataset("/b", "f"), {"x": [1, 2]})
    assert fingerprint(one) != fingerprint(Dataset("/a", "g"))
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="cannot fingerprint object"):
        fingerprint(object())


def test_models_are_known_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = model_from(ModelConfig(model=str(tmp_path)), "policy")
    assert isinstance(first, Model)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert model_from(ModelConfig(model=str(tmp_path)), "policy").fingerprint != first.fingerprint
    hub = model_from(ModelConfig(model="org/name", revision="v1"), "policy")
    assert (hub.path, hub.revision) == ("org/name", "v1")
    with pytest.raises(TsalignError, match=r"policy.model: .*/nothing: no config.json there"):
        model_from(ModelConfig(model=str(tmp_path / "nothing")), "policy")
