"""YAML plus dotted overrides to a typed config; errors name the key and the nearest valid one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tsalign.common.errors import TsalignError
from tsalign.config.blocks import CHOOSES, blocks

C = TypeVar("C", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        TsalignError: no such file, not YAML, or not a mapping; with file and line.
    """
    if not path.is_file():
        raise TsalignError(f"{path}: no such config file. `configs/` holds examples.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise TsalignError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    if not isinstance(content, dict):
        raise TsalignError(f"{path}: expected a mapping of keys, got {type(content).__name__}.")
    return content


def override(content: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    """`content` with dotted keys set: `{"tune.beta": 0.2}`. The input is not changed."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(content))
    for dotted, value in assignments.items():
        *parents, last = dotted.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise TsalignError(f"{dotted}: {parent} is a value, not a block of keys.")
        node[last] = value
    return result


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """`["tune.beta=0.2"]` -> `{"tune.beta": 0.2}`; values are read as YAML."""
    assignments = {}
    for pair in pairs:
        key, sep, value = pair.partition("=")
        if not sep or not key:
            raise TsalignError(f"{pair!r}: expected key.path=value, for example tune.beta=0.2")
        try:
            assignments[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise TsalignError(f"{pair!r}: the value is not valid YAML; quote it if it is text.") from error
    return assignments


def validate(schema: type[C], content: dict[str, Any], source: str) -> C:
    """`content` as a typed config; every problem in one message, unknown keys with the nearest valid one.

    Raises:
        TsalignError: a key is unknown or missing, or a value is not allowed.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_problem(schema, dict(problem)) for problem in error.errors()]
        raise TsalignError(f"{source}: " + "\n  ".join(lines)) from error


def _problem(schema: type[BaseModel], problem: dict[str, Any]) -> str:
    """One line for what pydantic found wrong."""
    path, block, choice = _located(schema, problem["loc"])
    context, value = problem.get("ctx", {}), problem["input"]
    given = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
    match problem["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{choice and f' for {choice}'}; {_nearest(path, schema, block)}"
        case "missing":
            return f"{path}: required, but not given"
        case "model_type" | "model_attributes_type":
            return f"{path}: expected a block of keys{given}"
        case "union_tag_invalid":
            return f"{path}.{CHOOSES}: expected one of {context['expected_tags']} (got {context['tag']!r})"
        case "too_short":
            return f"{path}: expected at least {context['min_length']} in the list{given}"
        case "value_error":
            return f"{path}: {context['error']}{given}".removeprefix(": ")
    return f"{path}: {problem['msg']}{given}"


def _located(schema: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[str, type[BaseModel], str]:
    """The dotted path of an error, the block of keys that it lies in, and which choice of a union that block is."""
    path: list[str] = []
    block, choice = schema, ""
    inside: dict[Any, type[BaseModel]] = {"": schema}
    for part in loc:
        if len(inside) > 1 and part in inside:  # not a key: pydantic names the choice of a union
            inside, choice = {part: inside[part]}, str(part)
            continue
        path.append(str(part))
        if len(inside) == 1:
            [(name, block)] = inside.items()
            choice = choice if choice == name else ""
        if part in block.model_fields:
            inside = blocks(block.model_fields[str(part)].annotation)
    return ".".join(path), block, choice


def _nearest(path: str, schema: type[BaseModel], block: type[BaseModel]) -> str:
    """What an unknown key may have meant: a similar key of its block; at the top, also the same key of a block."""
    parent, _, name = path.rpartition(".")
    similar = [f"{parent}.{key}".strip(".") for key in difflib.get_close_matches(name, block.model_fields, 1)]
    deeper = [] if parent else [key for key in _keys(schema) if key.endswith(f".{name}")]
    near = [*similar, *deeper]
    return f"did you mean {near[0]}?" if near else f"valid here: {', '.join(block.model_fields)}"


def _keys(schema: type[BaseModel]) -> Iterator[str]:
    """All dotted keys."""
    for name, field in schema.model_fields.items():
        yield name
        for block in blocks(field.annotation).values():
            yield from (f"{name}.{key}" for key in _keys(block))
