"""YAML plus dotted overrides to a typed config; errors name the key and the nearest valid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from upath import UPath

from tsalign.common import strict_yaml
from tsalign.common.errors import TsalignError
from tsalign.config.blocks import CHOOSES, blocks
from tsalign.config.suggestions import suggestion

C = TypeVar("C", bound=BaseModel)
PLAIN_CHOICES = ("str", "list[str]")  # what pydantic calls those of a key that takes one text or several


def read_yaml(path: Path | UPath) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        TsalignError: no such file, not YAML, or not a mapping; with file and line.
    """
    if not path.exists():
        raise TsalignError(f"{path}: no such config file. `configs/` holds examples.")
    if (content := strict_yaml.read(path)) is None:
        raise TsalignError(f"{path}: is empty; expected a mapping of keys.")
    if not isinstance(content, dict):
        raise TsalignError(f"{path}: expected a mapping of keys, got {type(content).__name__}.")
    return content


def override(content: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    """`content` with dotted keys set: `{"tune.beta": 0.2}`. The input is not changed.

    Raises:
        TsalignError: what a key should lie in is a list or a value.
    """
    result: dict[str, Any] = _copied(content)
    for dotted, value in assignments.items():
        *parents, last = dotted.split(".")
        if not all((*parents, last)):
            raise TsalignError(f"{dotted}: expected the names of keys with single dots between them, as in tune.beta.")
        node = result
        for depth, parent in enumerate(parents, 1):
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                whole = ".".join(parents[:depth])
                kind = "a list" if isinstance(node, list) else "a value"
                raise TsalignError(f"{dotted}: {whole} is {kind}, not a block of keys; set {whole} as a whole.")
        node[last] = value
    return result


def _copied(value: Any) -> Any:
    """Blocks and lists anew: what an alias repeats is then set by itself."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """`["tune.beta=0.2"]` -> `{"tune.beta": 0.2}`; values are read as YAML."""
    assignments = {}
    for pair in pairs:
        key, sep, value = pair.partition("=")
        if not sep or not key:
            raise TsalignError(f"{pair!r}: expected key.path=value, for example tune.beta=0.2")
        try:
            assignments[key] = strict_yaml.parse(value)
        except strict_yaml.BadYaml as error:
            raise TsalignError(f"{pair!r}: the value is not valid YAML: {error}; quote it if it is text.") from error
    return assignments


def validate(schema: type[C], content: dict[str, Any], source: str) -> C:
    """`content` as a typed config; every problem in one message, unknown keys with the nearest valid one.

    Raises:
        TsalignError: a key is unknown or missing, or a value is not allowed.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        found: list[dict[str, Any]] = [dict(problem) for problem in error.errors()]
        lines = {
            _located(schema, one["loc"])[0]: _problem(schema, one) for one in reversed(found) if _apart(one, found)
        }
        raise TsalignError(f"{source}: " + "\n  ".join(reversed(lines.values()))) from error


def _apart(problem: dict[str, Any], found: list[dict[str, Any]]) -> bool:
    """Whether nothing is wrong further inside, which would say it better."""
    place = problem["loc"]
    return not any(len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in found)


# What pydantic calls a problem -> what was expected.
EXPECTED = {
    "string_type": "expected text; quote it",
    "string_too_short": "expected text that is not empty",
    "invalid_key": "expected text as the name of a key; quote it",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping of names to values",
    "missing": "required, but not given",
    "model_type": "expected a block of keys",
    "model_attributes_type": "expected a block of keys",
}


def _problem(schema: type[BaseModel], problem: dict[str, Any]) -> str:
    """One line for what pydantic found wrong."""
    path, block, choice = _located(schema, problem["loc"])
    context, value = problem.get("ctx", {}), problem["input"]
    given = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
    match problem["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{choice and f' for {choice}'}; {suggestion(path, schema, block)}"
        case "union_tag_invalid":
            return f"{path}.{CHOOSES}: expected one of {context['expected_tags']} (got {context['tag']!r})"
        case "too_short":
            return f"{path}: expected at least {context['min_length']} in the list{given}"
        case "value_error":
            return f"{path}: {context['error']}{given}".removeprefix(": ")
    return f"{path}: {EXPECTED.get(problem['type'], problem['msg'])}{given}"


def _located(schema: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[str, type[BaseModel], str]:
    """The dotted path of an error, the block of keys that it lies in, and which choice of a union that block is."""
    path: list[str] = []
    block, choice = schema, ""
    inside: dict[Any, type[BaseModel]] = {"": schema}
    for part in loc:
        if len(inside) > 1 and part in inside:  # not a key: pydantic names the choice of a union
            inside, choice = {part: inside[part]}, str(part)
            continue
        if part in PLAIN_CHOICES:
            continue
        path.append(str(part))
        if len(inside) == 1:
            [(name, block)] = inside.items()
            choice = choice if choice == name else ""
        if part in block.model_fields:
            inside = blocks(block.model_fields[str(part)].annotation)
    return ".".join(path), block, choice
