"""Why a stage is done anew: what it was given then, beside what it is given now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from pydantic import BaseModel

from tsalign.runs.artifacts import fingerprint, identity

SHOWN = 3  # changes that are named
LONG = 100  # characters from which a text is known by its fingerprint


def inputs_of(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    config: BaseModel,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Name -> what a stage function is given, as plain data for the ledger; the stage, which comes first, left out.

    A block of the run's config has the block's name, a file that is read its own, with its fingerprint, anything else
    the name of the function's parameter.
    """
    _, *parameters = signature(function).parameters
    keys = dict(_blocks(config))
    given = {**dict(zip(parameters, args)), **kwargs}
    read = {location: {"fingerprint": known} for location, known in files.items()}
    return {keys.get(id(value), name): recorded(value) for name, value in given.items()} | read


def recorded(value: Any) -> Any:
    """A value as a ledger keeps it: configs key by key, artifacts and long texts by their fingerprints."""
    if (known := getattr(value, "fingerprint", None)) is not None:
        return {"path": getattr(value, "path", None), "fingerprint": known}
    if isinstance(value, str) and len(value) > LONG:
        return {"fingerprint": fingerprint(value)}
    if isinstance(value, BaseModel):
        return recorded(identity(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: recorded(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): recorded(each) for name, each in value.items()}
    return [recorded(each) for each in value] if isinstance(value, list | tuple) else value


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first keys in which two records differ, such as `tune.beta 0.1 -> 0.2`; empty where none does."""
    old, new = (dict(_flat(json.loads(json.dumps(record, default=str)))) for record in (before, now))
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return ", ".join([*(_told(name, old, new) for name in changed[:SHOWN]), *more])


def _told(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if isinstance(old.get(name), Known) or isinstance(new.get(name), Known):
        return f"{name} changed"
    return f"{name} {old.get(name)} -> {new.get(name)}"


class Known(str):
    """A fingerprint: it says that something differs, not what."""


def _flat(record: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the values of nested mappings and lists."""
    if isinstance(record, dict) and "fingerprint" in record:
        yield name, Known(record["fingerprint"])
    elif isinstance(record, dict | list):
        parts = record.items() if isinstance(record, dict) else enumerate(record)
        for key, value in parts:
            yield from _flat(value, f"{name}.{key}".strip("."))
    else:
        yield name, record


def _blocks(config: BaseModel, parent: str = "") -> Iterator[tuple[int, str]]:
    """Identity of each block of a config -> its dotted key."""
    for name, value in config:
        if isinstance(value, BaseModel):
            yield id(value), f"{parent}{name}"
            yield from _blocks(value, f"{parent}{name}.")
