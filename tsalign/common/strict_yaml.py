"""YAML that people write: plain data of a sensible size, each key once; what is wrong names file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from upath import UPath

from tsalign.common.errors import TsalignError

LARGEST_BYTES = 1 << 20
MOST_VALUES = 100_000  # with what aliases stand for


class BadYaml(ValueError):
    """What is wrong, and in which line."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def read(path: Path | UPath) -> Any:
    """What is in a YAML file.

    Raises:
        TsalignError: it is no file, cannot be read, or is not YAML; with file and line.
    """
    try:
        if path.is_dir():
            raise TsalignError(f"{path}: is a folder; expected a YAML file.")
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise TsalignError(f"{path}: has {size:,} bytes; expected a YAML file of at most {LARGEST_BYTES:,}.")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise TsalignError(f"{path}: cannot be read: {error}") from error
    try:
        return parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise TsalignError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8.") from error
    except BadYaml as error:
        raise TsalignError(f"{path}:{error.line}: not valid YAML: {error}") from error


def parse(text: str) -> Any:
    """What a YAML text stands for.

    Raises:
        BadYaml: it is not YAML, gives a key twice, contains itself, or is too large.
    """
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise BadYaml(f"its aliases (*name) stand for more than {MOST_VALUES:,} values", 1)
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise BadYaml(f"the character {chr(error.character)!r} is not allowed", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadYaml(str(error.problem), mark.line + 1 if mark else 1) from error
    except RecursionError as error:
        raise BadYaml("it is nested too deeply", 1) from error


class Loader(yaml.SafeLoader):
    """Plain data; the last of two equal keys does not win silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping whose keys differ."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            known = (key.tag, str(key.value))
            if known in lines and isinstance(key, yaml.ScalarNode):
                raise _problem(f"the key {key.value!r} is given twice, first in line {lines[known] + 1}", key)
            lines[known] = key.start_mark.line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value of the kind that its text looks like, or that its tag says."""
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise _problem("the character '\\0' is not allowed", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            raise _problem(
                f"{node.value!r} is no {node.tag.rpartition(':')[2]}; quote it if it is text", node
            ) from error


def _problem(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _size(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """How many values a node stands for, aliases counted each time."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if node not in known:
        known[node] = None  # until its parts are counted
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[node] = 1 + sum(_size(part, known) for part in parts)
    size = known[node]
    if size is None:
        raise _problem("an alias (*name) stands for what contains it", node)
    return size
