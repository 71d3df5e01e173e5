"""YAML plus dotted overrides to a typed config; errors name the key and the nearest valid one."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tsalign.common.errors import TsalignError

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
    """`content` as a typed config; every problem in one message, unknown keys with the nearest valid one."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(schema, dict(problem)) for problem in error.errors()]
        raise TsalignError(f"{source}: " + "\n  ".join(lines)) from error


def _explain(schema: type[BaseModel], problem: dict[str, Any]) -> str:
    # Alternatives of a union are tagged <so>; nobody writes that in YAML.
    path = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("<"))
    if problem["type"] != "extra_forbidden":
        given = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
        return f"{path}: {problem['msg']}{given}"
    known = _keys(schema)
    inside = [key for key in known if key.rpartition(".")[0] == path.rpartition(".")[0]]
    near = difflib.get_close_matches(path, inside, 1, 0.5) or difflib.get_close_matches(path, known, 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else f"valid here: {', '.join(inside)}"
    return f"{path}: unknown key; {hint}"


def _keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in schema.model_fields.items():
        found.append(prefix + name)
        for section in _sections(field.annotation):
            found += _keys(section, f"{prefix}{name}.")
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The blocks of keys that an annotation allows: itself, or those in its union or optional."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for argument in get_args(annotation) for section in _sections(argument)]
