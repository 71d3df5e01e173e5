"""What the names `toy:...` stand for: models, prompts, preferences, demonstrations, tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tsalign.common.registry import attribute
from tsalign.toy import world

ASSETS = Path(__file__).parent / "assets"
MODELS = ("policy", "student", "teacher", "pad_teacher", "arte_teacher", "arte_student", "citing_teacher")
PROMPTS: dict[world.Split, int] = {"train": 8000, "tune": 1400, "test": 1400}


def model(name: str) -> str:
    """The folder of a model that ships with the package."""
    return str(ASSETS / name)


def prompts(split: world.Split) -> Iterator[tuple[str, dict[str, Any]]]:
    """(family, row with `prompt`) of each prompt of a split."""
    for task in world.tasks(split, 0, PROMPTS[split]):
        yield task.family, {"prompt": task.prompt}


def elsewhere(target: str, *arguments: Any) -> Any:
    """What the function `module:attribute` returns; what belongs to one recipe lies in its own folder."""
    return attribute(target)(*arguments)


NAMES: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "model": {name: partial(model, name) for name in MODELS},
    "rows": {
        **{split: partial(prompts, split) for split in PROMPTS},
        "student_preferences": partial(elsewhere, "tsalign.toy.build:student_preferences"),
        "demonstrations": partial(elsewhere, "tsalign.recipes.citing.toy.rows:demonstrations"),
    },
    "tasks": {
        name: partial(elsewhere, "tsalign.recipes.arte.toy.tasks:toy_tasks", name) for name in ("arte", "arte-tune")
    },
}
