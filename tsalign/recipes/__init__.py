"""Recipes, a folder each. A new one is a folder and a line here, or an entry point `tsalign.recipes` of a package."""

from __future__ import annotations

from tsalign.common import registry
from tsalign.common.errors import TsalignError
from tsalign.runs.recipe import Recipe

RECIPES = {
    "ts-align": "tsalign.recipes.ts_align.recipe:ts_align",
    "pad": "tsalign.recipes.pad.recipe:pad",
    "arte": "tsalign.recipes.arte.recipe:arte",
    "citing": "tsalign.recipes.citing.recipe:citing",
    "evaluate": "tsalign.recipes.evaluate.recipe:evaluate_models",
    "toy": "tsalign.toy.build:toy",
}


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        TsalignError: no such recipe, or something else has that name.
    """
    found = registry.find("recipes", RECIPES, name, "recipe")
    if not isinstance(found, Recipe):
        raise TsalignError(f"recipe: {name!r} is a {type(found).__name__}; expected a function with @recipe above it.")
    return found


def with_quickstart() -> list[str]:
    """The names of the recipes that `tsalign quickstart` can run."""
    return [name for name in registry.names("recipes", RECIPES) if find(name).quickstart]
