"""Which keys of a config name files or models, so that a run can be sent to machines that have other ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

# Mark keys, or what they map to: rows that are read, Jinja text or the path of one, a model, what scores.
FILES, TEXT, MODEL, SCORER = "files", "text", "model", "scorer"
MODEL_SCORERS = ("reward_model", "logprob", "judge")

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Location:
    """What a config names.

    Attributes:
        key: where: names of keys, and positions in lists.
        name: a path, a URI, or the name of a model.
    """

    key: Key
    kind: Literal["files", "text", "model"]
    name: str

    def __str__(self) -> str:
        """The dotted key."""
        return ".".join(map(str, self.key))


def locations(config: BaseModel, key: Key = ()) -> Iterator[Location]:
    """All files and models that a config names; not what is built in, text that stands there, or behind a url."""
    fields = type(config).model_fields
    for name, value in config:
        marks = [mark for mark in fields[name].metadata if isinstance(mark, str)] if name in fields else []
        if kind := next((mark for mark in marks if mark in (FILES, TEXT, MODEL, SCORER)), None):
            yield from (found for place, text in _texts(value, (*key, name)) for found in _location(place, kind, text))
        else:
            yield from _inside(value, (*key, name))
    if callable(options := getattr(config, "options", None)):  # keys that belong to what the block chooses
        yield from locations(options(), key)


def _inside(value: Any, key: Key) -> Iterator[Location]:
    if isinstance(value, BaseModel):
        yield from locations(value, key)
    elif isinstance(value, list | tuple | dict):
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _inside(inner, (*key, part))


def _texts(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif value is not None:
        for part, text in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*key, part), text


def _location(key: Key, kind: str, name: str) -> Iterator[Location]:
    if kind == SCORER:
        scorer, _, model = name.partition(":")
        if scorer in MODEL_SCORERS and "@http" not in model:
            yield Location(key, "model", model)
    elif kind == MODEL:
        yield Location(key, "model", name)
    elif kind == FILES:
        yield Location(key, "files", name)
    elif "{" not in name and "\n" not in name:
        yield Location(key, "text", name)
