"""`docs/config.md`, written from the config models: `python -m tsalign.recipes.reference docs/config.md`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tsalign.config import ConfigModel, ServeConfig
from tsalign.config.blocks import blocks
from tsalign.evaluation import procedures
from tsalign.recipes import RECIPES, find

INTRODUCTION = """# Every config key

`make docs` writes this page from the config models; edit the descriptions there. A config is YAML; any key can be set
on the command line (`tune.beta=0.2`). Unknown keys are errors that name the nearest valid one.
"""
BUILDS_THE_TOY_WORLD = "toy"
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "at least {}", "pattern": "`{}`"}


def page() -> str:
    """The whole page: a section for each recipe with the blocks that only it has, then what is shared."""
    recipes = {name: find(name).config_type for name in RECIPES if name != BUILDS_THE_TOY_WORLD}
    own = {name: list(dict.fromkeys(reachable(config))) for name, config in recipes.items()}
    uses = Counter(block for blocks in own.values() for block in blocks)
    parts = [INTRODUCTION]
    for name, config in recipes.items():
        parts.append(section(f"## Recipe `{name}`", config))
        parts += [section(f"### {block.__name__}", block) for block in own[name][1:] if uses[block] == 1]
    parts.append("## Procedures of `tsalign evaluate`\n")
    keys = [procedures.find(name).config_type for name in procedures.PROCEDURES]
    parts += [section(f"### {config.__name__}", config) for config in keys]
    parts.append(section("## Command `tsalign serve teacher`", ServeConfig))
    parts.append("## Shared blocks\n")
    parts += [section(f"### {block.__name__}", block) for block in uses if uses[block] > 1]
    return "\n".join(parts)


def reachable(config: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A config model, the one that it extends, and those of its blocks."""
    yield config
    if extended := _extended(config):
        yield from reachable(extended)
    for field in _own(config).values():
        for block in blocks(field.annotation).values():
            yield from reachable(block)


def section(title: str, config: type[BaseModel]) -> str:
    """A heading, what the block is, and a table of its keys; inherited ones are left to the section that has them."""
    lines = [title, "", (config.__doc__ or "").strip().splitlines()[0], ""]
    if extended := _extended(config):
        lines += [f"Also takes the keys of {_link(extended)}.", ""]
    if own := _own(config):
        lines += ["| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
        lines += [_row(name, field) for name, field in own.items()] + [""]
    return "\n".join(lines)


def _extended(config: type[BaseModel]) -> type[BaseModel] | None:
    base = config.__mro__[1]
    return base if issubclass(base, ConfigModel) and base is not ConfigModel else None


def _own(config: type[BaseModel]) -> dict[str, FieldInfo]:
    return {name: config.model_fields[name] for name in config.__annotations__ if name in config.model_fields}


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name}`", _type(field.annotation), _default(field), _bounds(field), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(annotation: Any) -> str:
    """An annotation in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "anything"
    if isinstance(annotation, type) and origin is None:
        return _link(annotation) if issubclass(annotation, BaseModel) else annotation.__name__
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is list or arguments[-1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} x {_type(arguments[0])}"
    return " or ".join(dict.fromkeys(_type(one) for one in arguments if one is not NoneType))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default is PydanticUndefined else field.default  # type: ignore[call-arg, misc]
    plain = value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value
    return "None" if plain is None else f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _bounds(field: FieldInfo) -> str:
    found = [(name, getattr(meta, name, None)) for meta in field.metadata for name in BOUNDS]
    return ", ".join(BOUNDS[name].format(bound) for name, bound in found if bound is not None)


def _link(block: type[BaseModel]) -> str:
    return f"[{block.__name__}](#{block.__name__.lower()})"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
