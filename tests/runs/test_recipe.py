"""A recipe is one folder: what ships beside it is found there, and every recipe of ours has what a recipe needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from tsalign import api
from tsalign.common.errors import TsalignError
from tsalign.config import RunConfig
from tsalign.recipes import RECIPES, find, with_quickstart
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run

PUBLISHED = ("ts-align", "pad", "arte", "citing")


@recipe("here", RunConfig)
def here(run: Run, cfg: RunConfig) -> None:
    """A recipe whose folder is this one."""


def test_what_ships_with_a_recipe_lies_beside_it() -> None:
    assert (here.name, here.config_type, here.folder) == ("here", RunConfig, Path(__file__).parent)
    assert here.quickstart is None
    assert here.controls == {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_recipe_is_a_folder_of_its_own(name: str) -> None:
    found = find(name)
    assert found.name == name
    assert found.folder.name == name.replace("-", "_")
    assert {"recipe.py", "config.py", "quickstart.yaml", "controls.yaml"} <= {
        file.name for file in found.folder.iterdir()
    }
    assert found.quickstart == found.folder / "quickstart.yaml"
    assert found.controls
    config = api.load(found.quickstart, {})
    assert type(config) is found.config_type
    assert config.recipe == name
    for control, changes in found.controls.items():
        assert api.load(found.quickstart, changes) != config, f"{control} changes nothing"


def test_quickstarts_are_of_recipes_that_have_one() -> None:
    assert set(with_quickstart()) >= set(PUBLISHED)
    assert {name for name in RECIPES if find(name).quickstart} == set(PUBLISHED)


def test_every_recipe_says_what_it_does() -> None:
    for name in RECIPES:
        assert find(name).function.__doc__, name
        assert find(name).config_type.__doc__, name


def test_a_finished_run_of_the_same_config_is_not_started_again(tmp_path: Path) -> None:
    config = RunConfig(recipe="test_recipe:here", run="r", storage=str(tmp_path), loggers=())
    run = Run(config, "r")
    assert not run.finished()
    with run.open():
        here.function(run, config)
    assert Run(config, "r").finished()
    assert not Run(config.model_copy(update={"seed": 1}), "r").finished()
    moved = UPath(tmp_path).rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert Run(config.model_copy(update={"storage": str(moved)}), "r").finished(), "wherever its storage is mounted"


def test_a_config_without_a_recipe_is_one_message() -> None:
    with pytest.raises(TsalignError, match="recipe: required, but not given"):
        api.load({"run": "r"}, {})
    with pytest.raises(TsalignError, match="recipe: 'padd' is not one of ts-align, pad"):
        api.load({"recipe": "padd"}, {})
