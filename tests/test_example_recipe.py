"""A recipe of another package, and one part of each other kind: found by entry points, and by `module:attribute`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from driver import EXAMPLE, Quickstart, rows_of
from typer.testing import CliRunner

from tsalign.cli import app
from tsalign.common.errors import TsalignError
from tsalign.config import CustomTrainConfig, EngineConfig, SamplingConfig
from tsalign.data.chat import load_tokenizer
from tsalign.engines import open_engine, request_from
from tsalign.recipes import find, with_quickstart
from tsalign.runs.artifacts import Model
from tsalign.scoring import Item, scorer_from_name
from tsalign.toy.oracle import grade
from tsalign.training import objectives

QUICKSTART = EXAMPLE / "best_of_n" / "quickstart.yaml"
PROMPT = [{"role": "user", "content": "sort 2 1"}]


@pytest.fixture
def _installed(best_of_n: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(best_of_n)


@pytest.mark.check
def test_quickstart_runs_the_recipe_and_reports(best_of_n_run: Quickstart) -> None:
    folder, printed = best_of_n_run.folder, best_of_n_run.printed
    assert "best-of-n · done" in printed
    assert (folder / "report.png").exists()
    summary = json.loads(CliRunner().invoke(app, ["show", str(folder), "--json"]).stdout)
    assert (summary["recipe"], summary["status"]) == ("best-of-n", "done")
    (iteration,) = summary["iterations"]
    won = iteration["reports"]["evaluation"]["table"]["columns"]["win rate"]["values"]
    assert set(won) == {"add", "sort", "reverse", "count", "upper", "max", "date"}
    assert {"candidates", "scores", "best", "policy", "answers", "evaluation"} <= set(iteration["seconds"])


@pytest.mark.check
def test_what_is_learnt_is_the_scorers_favourite(best_of_n_run: Quickstart) -> None:
    place = best_of_n_run.folder / "iterations" / "1"
    sets, rows = rows_of(place / "candidates"), rows_of(place / "best")
    assert len(rows) == len(sets) == 128
    for row, candidates in zip(rows, sets):
        grades = [grade(candidates["prompt"], completion["text"]) for completion in candidates["completions"]]
        assert grade(row["prompt"], row["completion"]) == max(grades)
    assert (place / "policy" / "model.safetensors").exists()


@pytest.mark.usefixtures("_installed")
def test_the_plan_is_the_recipe_run_dry() -> None:
    planned = CliRunner().invoke(app, ["plan", str(QUICKSTART)])
    assert planned.exit_code == 0, planned.output
    assert re.search(r"best\b.*128", planned.stdout)
    assert "512 completions" in planned.stdout.replace(",", "")
    assert "Nothing was started." in planned.stdout


@pytest.mark.usefixtures("_installed")
def test_recipes_are_found_by_entry_point_and_by_module() -> None:
    assert "best-of-n" in with_quickstart()
    assert find("best-of-n") is find("best_of_n.recipe:best_of_n")
    with pytest.raises(TsalignError, match=r"'best-of-m' is not one of ts-align, .*, best-of-n; to use your own"):
        find("best-of-m")


@pytest.mark.usefixtures("_installed")
def test_a_scorer_of_another_package() -> None:
    items = [Item(PROMPT, text) for text in ("1 2", "12345", "")]
    assert scorer_from_name("length:5").load()(items) == [-2.0, 0.0, -5.0]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["first_token", "best_of_n.parts:FirstToken"])
def test_an_objective_of_another_package(name: str, models: dict[str, Model]) -> None:
    objective = objectives.build(name, CustomTrainConfig(objective=name))
    example = objective.encode({"prompt": PROMPT, "completion": "1 2"}, load_tokenizer(models["policy"]))
    assert example is not None
    assert example.response_lengths == [1]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["parrot", "best_of_n.parts:Parrot"])
def test_an_engine_of_another_package(name: str, models: dict[str, Model]) -> None:
    (answer,) = open_engine(models["policy"], EngineConfig(engine=name)).generate(
        [request_from(SamplingConfig(), PROMPT, 0)]
    )
    assert getattr(answer, "text", None) == "sort 2 1"


def test_the_recipe_is_small_and_shown_in_full() -> None:
    code = (EXAMPLE / "best_of_n" / "recipe.py").read_text()
    assert len(code.splitlines()) < 80
    contributing = (EXAMPLE.parents[1] / "CONTRIBUTING.md").read_text()
    shown = dict(re.findall(r"`tests/example_recipe/(\S+)`.*?\n\n?```\w*\n(.*?)```", contributing, re.DOTALL))
    assert set(shown) == {"best_of_n/recipe.py", "pyproject.toml"}
    for name, text in shown.items():
        assert text in (EXAMPLE / name).read_text(), name
