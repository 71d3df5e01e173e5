"""Recipes: one file each. `@recipe` registers a function and the config it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tsalign.config import RunConfig
from tsalign.errors import TsalignError
from tsalign.runs.run import Run


@dataclass(frozen=True)
class Recipe:
    """A published system: its config type and the function that runs it."""

    name: str
    config_type: type[RunConfig]
    function: Callable[[Run, Any], None]


RECIPES: dict[str, Recipe] = {}
MODULES = {  # imported when a recipe is looked for
    "ts-align": "tsalign.recipes.ts_align",
    "pad": "tsalign.recipes.pad",
    "arte": "tsalign.recipes.arte",
    "citing": "tsalign.recipes.citing",
    "evaluate": "tsalign.recipes.evaluate",
    "toy": "tsalign.toy.build",
}


def recipe(
    name: str, config_type: type[RunConfig]
) -> Callable[[Callable[[Run, Any], None]], Callable[[Run, Any], None]]:
    """Register the decorated function as the recipe `name`."""

    def register(function: Callable[[Run, Any], None]) -> Callable[[Run, Any], None]:
        RECIPES[name] = Recipe(name, config_type, function)
        return function

    return register


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        TsalignError: no such recipe.
    """
    if name not in MODULES:
        raise TsalignError(f"recipe: {name!r} is not one of {', '.join(MODULES)}.")
    import_module(MODULES[name])
    return RECIPES[name]
