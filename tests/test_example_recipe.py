"""A recipe of another package, and one part of each other kind: found by entry points, and by `module:attribute`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner
from upath import UPath

from tsalign.cli import app
from tsalign.common.errors import TsalignError
from tsalign.config import CustomTrainConfig, EngineConfig, SamplingConfig
from tsalign.data.chat import load_tokenizer
from tsalign.data.shards import read_rows
from tsalign.engines import open_engine, request_from
from tsalign.recipes import find, with_quickstart
from tsalign.runs.artifacts import Dataset, Model
from tsalign.scoring import Item, scorer_from_name
from tsalign.toy.oracle import grade
from tsalign.training import objectives

PACKAGE = Path(__file__).parent / "example_recipe"
QUICKSTART = PACKAGE / "best_of_n" / "quickstart.yaml"
PROMPT = [{"role": "user", "content": "sort 2 1"}]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the package into."""
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, PACKAGE], check=True)
    return target


@pytest.fixture
def _here(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)


@pytest.fixture(scope="module")
def ran(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the quickstart's run, and what the command printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    command = [Path(sys.executable).parent / "tsalign", "quickstart", "--recipe", "best-of-n"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "quickstart-best-of-n", done.stdout


@pytest.mark.check
def test_quickstart_runs_the_recipe_and_reports(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    assert "best-of-n · done" in printed
    assert (folder / "report.png").exists()
    summary = json.loads(CliRunner().invoke(app, ["show", str(folder), "--json"]).stdout)
    assert (summary["recipe"], summary["status"]) == ("best-of-n", "done")
    (iteration,) = summary["iterations"]
    assert set(iteration["win_rate"]["by_set"]) == {"add", "sort", "reverse", "count", "upper", "max", "date"}
    assert {"candidates", "scores", "best", "policy", "answers", "evaluation"} <= set(iteration["seconds"])


@pytest.mark.check
def test_what_is_learnt_is_the_scorers_favourite(ran: tuple[Path, str]) -> None:
    place = ran[0] / "iterations" / "1"
    sets, rows = (
        [row for shard in Dataset(str(place / stage), "").shards() for row in read_rows(UPath(shard))]
        for stage in ("candidates", "best")
    )
    assert len(rows) == len(sets) == 128
    for row, candidates in zip(rows, sets):
        grades = [grade(candidates["prompt"], completion["text"]) for completion in candidates["completions"]]
        assert grade(row["prompt"], row["completion"]) == max(grades)
    assert (place / "policy" / "model.safetensors").exists()


@pytest.mark.usefixtures("_here")
def test_the_plan_is_the_recipe_run_dry() -> None:
    planned = CliRunner().invoke(app, ["plan", str(QUICKSTART)])
    assert planned.exit_code == 0, planned.output
    assert re.search(r"best\b.*128", planned.stdout)
    assert "512 completions" in planned.stdout.replace(",", "")
    assert "Nothing was started." in planned.stdout


@pytest.mark.usefixtures("_here")
def test_recipes_are_found_by_entry_point_and_by_module() -> None:
    assert "best-of-n" in with_quickstart()
    assert find("best-of-n") is find("best_of_n.recipe:best_of_n")
    with pytest.raises(
        TsalignError, match=r"'best-of-m' is not one of ts-align, .*, best-of-n; write module:attribute"
    ):
        find("best-of-m")


@pytest.mark.usefixtures("_here")
def test_a_scorer_of_another_package() -> None:
    items = [Item(PROMPT, text) for text in ("1 2", "12345", "")]
    assert scorer_from_name("length:5").load()(items) == [-2.0, 0.0, -5.0]


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", ["first_token", "best_of_n.parts:FirstToken"])
def test_an_objective_of_another_package(name: str, models: dict[str, Model]) -> None:
    objective = objectives.build(name, CustomTrainConfig(objective=name))
    example = objective.encode({"prompt": PROMPT, "completion": "1 2"}, load_tokenizer(models["policy"]))
    assert example is not None
    assert example.response_lengths == [1]


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", ["parrot", "best_of_n.parts:Parrot"])
def test_an_engine_of_another_package(name: str, models: dict[str, Model]) -> None:
    (answer,) = open_engine(models["policy"], EngineConfig(engine=name)).generate(
        [request_from(SamplingConfig(), PROMPT, 0)]
    )
    assert getattr(answer, "text", None) == "sort 2 1"


def test_the_recipe_is_small_and_shown_in_full() -> None:
    code = (PACKAGE / "best_of_n" / "recipe.py").read_text()
    assert len(code.splitlines()) < 80
    contributing = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text()
    shown = dict(re.findall(r"`tests/example_recipe/(\S+)`.*?\n\n?```\w*\n(.*?)```", contributing, re.DOTALL))
    assert set(shown) == {"best_of_n/recipe.py", "pyproject.toml"}
    for name, text in shown.items():
        assert text in (PACKAGE / name).read_text(), name
