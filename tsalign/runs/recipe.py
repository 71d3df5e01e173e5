"""A recipe: a published method as a function of a run and its config, and what ships beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tsalign.config import RunConfig
from tsalign.runs.run import Run

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Recipe:
    """A name, the config it takes, and the function that runs it.

    Attributes:
        folder: what ships with it: `quickstart.yaml`, a config for two cores, and `controls.yaml`, the variants that
            `tsalign quickstart --baselines` runs beside it.
    """

    name: str
    config_type: type[RunConfig]
    function: Callable[[Run, Any], None]
    folder: Path

    @property
    def quickstart(self) -> Path | None:
        """The config that `tsalign quickstart` runs, where the recipe has one."""
        path = self.folder / "quickstart.yaml"
        return path if path.exists() else None

    @property
    def controls(self) -> dict[str, dict[str, Any]]:
        """Name of a control -> the dotted config keys in which it differs from the quickstart."""
        path = self.folder / "controls.yaml"
        return yaml.safe_load(path.read_text()) if path.exists() else {}


def recipe(name: str, config_type: type[C]) -> Callable[[Callable[[Run, C], None]], Recipe]:
    """Make the decorated function the recipe `name`; its files lie beside it."""

    def made(function: Callable[[Run, C], None]) -> Recipe:
        return Recipe(name, config_type, function, Path(function.__code__.co_filename).parent)

    return made
