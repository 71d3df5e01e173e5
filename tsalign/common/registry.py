"""Names that stand for objects: built-in ones, those of installed packages, and `module:attribute`.

Registries hold strings, so that naming a part imports nothing: vLLM takes seconds, and may not be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tsalign.common.errors import TsalignError

# Where names such as `toy:train` are looked up: scheme -> the mapping of kind -> name -> function.
BUILTIN = {"toy": "tsalign.toy.names:NAMES"}


def attribute(target: str) -> Any:
    """What `module:attribute` names.

    Raises:
        ImportError: no such module, also not in the working directory, or it cannot be imported.
        AttributeError: the module has no such attribute.
    """
    module, _, name = target.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as Ray does for its workers
    return getattr(import_module(module), name)


def names(kind: str, builtin: Mapping[str, str]) -> list[str]:
    """The names of a kind of part: ours, then those of installed packages (entry points `tsalign.<kind>`)."""
    return [*builtin, *sorted(point.name for point in entry_points(group=f"tsalign.{kind}"))]


def find(kind: str, builtin: Mapping[str, str], name: str, key: str) -> Any:
    """The part of a name: ours, an installed package's, or `module:attribute`.

    Args:
        kind: recipes, scorers, objectives, engines or procedures.
        key: config key that holds the name, for messages.

    Raises:
        TsalignError: no such part.
        ModuleNotFoundError: a package that the part needs is not installed.
    """
    if name in builtin:
        return attribute(builtin[name])
    for point in entry_points(group=f"tsalign.{kind}", name=name):
        return point.load()
    if ":" not in name:
        known = ", ".join(names(kind, builtin))
        raise TsalignError(f"{key}: {name!r} is not one of {known}; to use your own, write module:attribute.")
    try:
        return attribute(name)
    except Exception as error:  # whatever a module of somebody else's raises when it is imported
        problem = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise TsalignError(f"{key}: {name!r}: {problem}; expected module:attribute that Python can import.") from error


def is_builtin(location: str) -> bool:
    """Whether a location is a built-in name such as `toy:train`, not a path."""
    return location.partition(":")[0] in BUILTIN


def builtin(kind: str, location: str) -> Any:
    """What a built-in name stands for.

    Args:
        kind: `model` gives a folder; `rows` gives an iterator of (set, row); `tasks` a list of tasks.

    Raises:
        TsalignError: nothing of that kind has this name.
    """
    scheme, _, name = location.partition(":")
    known = attribute(BUILTIN[scheme])[kind]
    if name not in known:
        raise TsalignError(f"{location}: no such {kind}; expected {', '.join(f'{scheme}:{one}' for one in known)}.")
    return known[name]()
