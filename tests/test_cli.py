"""The command line on synthetic runs: output, JSON, exit codes, messages. Nothing here starts Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from synthetic import SETS, STAGES, hold, make_run
from typer.testing import CliRunner, Result
from upath import UPath

from tsalign import api
from tsalign.cli import app, evaluation, running
from tsalign.config import EndpointConfig
from tsalign.recipes import find, with_quickstart
from tsalign.recipes.evaluate.config import EvaluateConfig
from tsalign.runs.ledger import Ledger


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A TS-Align config over 100 JSONL prompts and two small evaluation sets."""
    (tmp_path / "train.jsonl").write_text('{"prompt": "hello"}\n' * 100)
    (tmp_path / "easy.json").write_text(json.dumps([{"prompt": "hi"}] * 5))
    pq.write_table(pa.table({"prompt": ["hi"] * 50}), tmp_path / "hard.parquet")
    return {
        "recipe": "ts-align",
        "run": "demo",
        "storage": str(tmp_path / "runs"),
        "iterations": 2,
        "policy": {"model": "org/policy"},
        "student": {"model": "org/student"},
        "teacher": {"model": "org/teacher", "max_replicas": 2, "cpus": 2},
        "data": {"prompts": str(tmp_path / "train.jsonl")},
        "sampling": {"k": 8},
        "evaluation": {
            "judge": "tsalign.toy.oracle:grade",
            "sets": {"easy": str(tmp_path / "easy.json"), "hard": str(tmp_path / "hard.parquet")},
            "temperatures": [1.0, 0.0],
            "prompts_per_set": 20,
        },
        "tune": {"reference": "initial"},
    }


def test_show_json(tmp_path: Path) -> None:
    make_run(tmp_path, "demo")
    result = call("show", "demo", "--json", "--storage", tmp_path)
    shown = json.loads(result.stdout)
    assert list(shown) == [
        *("run", "recipe", "status", "results", "iterations", "reports", "warnings", "anew", "cost", "seconds")
    ]
    assert (shown["run"], shown["recipe"], shown["status"]) == ("demo", "ts-align", "done")
    first = shown["iterations"][0]
    assert list(first) == ["iteration", "results", "reports", "seconds"]
    names = ["win rate T=1.0", "win rate T=0.7", "win rate T=0.0", "agreement"]
    assert list(first["results"]) == list(shown["results"]) == names
    assert first["results"]["win rate T=1.0"] == pytest.approx(0.61)
    assert shown["results"] == shown["iterations"][-1]["results"]
    won = first["reports"]["evaluation"]["table"]["columns"]["win rate"]
    assert (won["mean"], set(won["values"])) == (first["results"]["win rate T=1.0"], set(SETS))
    assert won["ci95"] == pytest.approx([0.58, 0.64])
    agreed = first["reports"]["agreement"]["trends"]["student ~ teacher"]
    assert agreed == pytest.approx({"before": 0.73, "after": 0.76, "percent": False})
    assert shown["cost"]["alignment"]["teacher"] == {"calls": 1600, "tokens": 32_000}
    assert shown["cost"]["stages"]["1/preferences"]["teacher"]["calls"] == 800
    assert first["seconds"] == {stage: seconds for stage, (seconds, *_) in STAGES.items()}
    assert shown["seconds"] == pytest.approx(1.5 + 2 * 131.75)


def test_show_json_before_the_first_evaluation(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "demo", 1)
    for stage in ("evaluation", "agreement"):
        (folder / "iterations" / "1" / stage / "report.json").unlink()
    first = json.loads(call("show", folder, "--json").stdout)["iterations"][0]
    assert (first["results"], first["reports"]) == ({}, {})
    assert call("show", folder).exit_code == 0


@pytest.mark.parametrize(
    ("ending", "held", "status"),
    [
        ({"run": "done"}, False, "done"),
        ({"run": "failed", "error": "boom"}, False, "failed"),
        ({"run": "stopped"}, False, "stopped"),
        ({"run": "started"}, True, "running"),
        ({"run": "started"}, False, "stopped"),
        ({"run": "done"}, True, "done"),
    ],
)
def test_status(tmp_path: Path, ending: dict[str, Any], held: bool, status: str) -> None:
    folder = make_run(tmp_path, "demo", 1, ending)
    if held:
        hold(UPath(folder), psutil.Process(os.getppid()))
    assert json.loads(call("show", "demo", "--json", "--storage", tmp_path).stdout)["status"] == status


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("ledger.jsonl", b'{"run": "started"}\n{\n{"run": "done"}\n', "ledger.jsonl:2: not a JSON object"),
        ("ledger.jsonl", b"\xff\xfe\n{}\n", "ledger.jsonl:1: not a JSON object"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml"),
        ("config.yaml", b"recipe: [", "config.yaml"),
        ("config.yaml", b"- 1", "config.yaml: expected a mapping"),
        ("config.yaml", None, "config.yaml"),
        ("iterations/1/evaluation/report.json", b"{", "report.json: damaged"),
        ("iterations/1/evaluation/report.json", b'{"results": 3}', "report.json: damaged"),
    ],
)
def test_a_damaged_run_is_told_and_spoils_no_list(file: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    make_run(tmp_path, "good", 1)
    damaged = make_run(tmp_path, "bad", 1) / file
    damaged.unlink() if content is None else damaged.write_bytes(content)
    listed = call("runs", "--json", "--storage", tmp_path)
    lines = {line["run"]: line for line in json.loads(listed.stdout)}
    assert lines["good"]["results"]
    assert lines["bad"]["status"] == "damaged"
    assert told in lines["bad"]["error"]
    assert "damaged" in call("runs", "--storage", tmp_path).stdout
    shown = call("show", "bad", "--storage", tmp_path)
    assert (shown.exit_code, "Traceback" in shown.output) == (2, False)
    assert told in shown.stderr.replace("\n", "")


def test_show_tells_what_was_done_anew(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "demo", 1)
    entries = [{"run": "started"}, {"stage": "1/policy", "state": "started", "anew": "tune.beta 0.1 -> 0.2"}]
    for entry in (entries[0], {**entries[1], "anew": "an earlier time"}, *entries, {"run": "stopped"}):
        Ledger(UPath(folder / "ledger.jsonl")).append(**entry)
    assert "done anew           1/policy: tune.beta 0.1 -> 0.2" in call("show", folder).stdout
    assert json.loads(call("show", folder, "--json").stdout)["anew"] == {"1/policy": "tune.beta 0.1 -> 0.2"}


def test_runs_json_is_newest_last(tmp_path: Path) -> None:
    make_run(tmp_path, "late", 1, start=2000.0)
    make_run(tmp_path, "early", 0, start=1000.0)
    early, late = json.loads(call("runs", "--json", "--storage", tmp_path).stdout)
    assert list(late) == ["run", "recipe", "status", "started", "iterations_done", "results"]
    assert (early["run"], early["iterations_done"], early["results"]) == ("early", 0, {})
    assert (late["run"], late["iterations_done"], late["results"]["win rate T=1.0"]) == ("late", 1, pytest.approx(0.61))
    assert late["started"] == "1970-01-01T00:33:20.000+00:00"


def test_runs_of_an_empty_folder(tmp_path: Path) -> None:
    assert call("runs", "--json", "--storage", tmp_path).stdout == "[]\n"
    result = call("runs", "--storage", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no runs in" in result.stderr


@pytest.mark.parametrize("command", ["show", "resume"])
def test_unknown_run_lists_the_nearest(tmp_path: Path, command: str) -> None:
    make_run(tmp_path, "quickstart-1", 0)
    result = call(command, "quickstrat-1", "--storage", tmp_path)
    assert result.exit_code == 2
    assert "did you mean quickstart-1?" in result.stderr
    assert "Traceback" not in result.output


def test_plan_prints(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    result = call("plan", tmp_path / "run.yaml", "resources.sample.replicas=4", "resources.sample.gpus=1")
    assert result.exit_code == 0, result.output
    assert "org/teacher" in result.stdout
    assert "4 x 1 CPU, 1 GPU" in result.stdout
    assert "at the peak: 5 CPU, 4 GPU. Nothing was started." in result.stdout
    assert not (tmp_path / "runs").exists()


def test_plan_without_prompts(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    result = call("plan", tmp_path / "run.yaml", "data.prompts=nowhere.jsonl")
    assert result.exit_code == 0, result.output
    assert "not counted: nowhere.jsonl (nothing there)" in result.stdout
    assert "unknown completions" in result.stdout
    unreadable = call("plan", tmp_path / "run.yaml", f"data.prompts={tmp_path / 'run.yaml'}")
    assert unreadable.exit_code == 2
    assert "run.yaml: unknown format" in unreadable.stderr


def test_config_errors_exit_2(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    unknown = call("run", tmp_path / "run.yaml", "tune.betta=1")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "did you mean tune.beta?" in unknown.stderr
    assert call("run", tmp_path / "none.yaml").exit_code == 2


def test_interrupt_says_how_to_resume(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", interrupted)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    result = call("run", tmp_path / "run.yaml")
    assert result.exit_code == 130
    assert "tsalign resume demo" in result.stderr


def test_crash_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tsalign.report.summary.list_runs", crash)
    assert isinstance(call("runs").exception, ZeroDivisionError)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Path | dict[str, Any], dict[str, Any]]]:
    """What the command would run, by name of the run; a finished run is there instead."""
    ran: dict[str, tuple[Path | dict[str, Any], dict[str, Any]]] = {}

    def execute(config: Path | dict[str, Any], overrides: dict[str, Any]) -> UPath:
        name = overrides.get("run") or config["run"]  # type: ignore[index]
        ran[name] = config, overrides
        return UPath(make_run(tmp_path, name))

    for module in (running, evaluation):
        monkeypatch.setattr(module, "execute", execute)
    return ran


def test_quickstart_with_baselines(tmp_path: Path, ran: dict[str, Any]) -> None:
    result = call("quickstart", "--baselines", "--run", "toy", "--seed", 3)
    assert result.exit_code == 0, result.output
    variants = ["teacher-all", "student-only", "random", "off-policy", "refresh"]
    assert list(ran) == ["toy", *(f"toy-{variant}" for variant in variants)]
    assert ran["toy-refresh"][1]["mining.refresh"] == 0.5
    assert all(overrides["seed"] == 3 for _, overrides in ran.values())
    assert [line.split()[0] for line in result.stdout.splitlines()[-6:]] == ["ts-align", *variants]
    assert (tmp_path / "toy" / "report.png").exists()


def test_quickstart_of_another_recipe_with_seeds(ran: dict[str, Any]) -> None:
    result = call("quickstart", "--recipe", "pad", "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert list(ran) == ["quickstart-pad-seed0", "quickstart-pad-seed1"]
    assert [(config, overrides["seed"]) for config, overrides in ran.values()] == [
        (find("pad").quickstart, 0),
        (find("pad").quickstart, 1),
    ]
    assert "±" in result.stdout


def test_quickstart_of_no_recipe() -> None:
    result = call("quickstart", "--recipe", "padd")
    assert result.exit_code == 2
    assert "'padd' is not one of ts-align, pad, arte, citing" in result.stderr


@pytest.mark.parametrize("recipe", with_quickstart())
def test_every_quickstart_and_its_controls_are_valid(recipe: str) -> None:
    for variant, changes in {"": {}, **find(recipe).controls}.items():
        assert api.load(find(recipe).quickstart, {**changes, "run": f"quickstart-{variant}"}).recipe == recipe


def test_evaluate(ran: dict[str, Any]) -> None:
    arguments = ["org/new", "--against", "gpt@https://host/v1", "--judge", "judge:org/judge", "--run", "duel"]
    result = call("evaluate", *arguments, "--sets", "mine=prompts.jsonl", "--sets", "toy:test", "evaluation.k=3")
    assert result.exit_code == 0, result.output
    config, overrides = ran["duel"]
    loaded = api.load(config, overrides)
    assert isinstance(loaded, EvaluateConfig)
    assert (loaded.model.model, loaded.evaluation.k) == ("org/new", 3)
    assert isinstance(loaded.against, EndpointConfig)
    assert (loaded.against.url, loaded.against.model) == ("https://host/v1", "gpt")
    assert loaded.evaluation.sets == {"mine": "prompts.jsonl", "test": "toy:test"}


def test_evaluate_needs_rubrics_to_rewrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ("--sets", "toy:test", "--judge", "tsalign.toy.oracle:grade")
    result = call("evaluate", "toy:policy", "--against", "toy:policy", *sets, "--procedure", "rewrite")
    assert result.exit_code == 2
    assert "procedure: rubrics: required, but not given" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_doctor_json() -> None:
    result = call("doctor", "--json")
    findings = json.loads(result.stdout)
    assert {"python", "torch", "ray", "memory", "compiler"} <= {finding["what"] for finding in findings}
    assert all(finding["fix"] for finding in findings if finding["state"] != "ok")
    assert result.exit_code == int(any(finding["state"] == "fail" for finding in findings))


def test_version() -> None:
    assert call("--version").stdout.startswith("tsalign ")


def test_help_starts_fast() -> None:
    heavy = (
        "import sys, tsalign.cli; print([m for m in ('torch', 'ray', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
