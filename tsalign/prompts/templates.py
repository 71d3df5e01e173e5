"""Prompt templates: Jinja files beside the code that uses them; a config can replace any of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tsalign.common.errors import TsalignError
from tsalign.common.storage import text_or_file
from tsalign.data.sources import Message

FOLDER = Path(__file__).parent
OURS: Mapping[str, str] = MappingProxyType({})
SHOWN = 80  # characters of a template in an error
TURN = re.compile(r"^## (system|user|assistant)[ \t]*\n", re.M)
# Templates are data, of configs and task files: they run no code of their own on the machines of a cluster.
ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def texts(folder: Path, overrides: Mapping[str, str] = OURS) -> dict[str, str]:
    """The text of every template of a folder, by name; those in `overrides` instead of ours.

    Args:
        overrides: name -> Jinja text, or the path of one.

    Actors get texts, not paths: a file may not exist there, and a changed text has to change the fingerprint.

    Raises:
        TsalignError: no template of that name, no such file, or a malformed template.
    """
    ours = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))}
    if unknown := sorted(set(overrides) - set(ours)):
        raise TsalignError(f"templates.{unknown[0]}: no such template; expected one of {', '.join(ours)}.")
    theirs = {name: text_or_file(override, f"templates.{name}") for name, override in overrides.items()}
    for name, text in theirs.items():
        try:
            _turns(text)
        except TsalignError as error:
            raise TsalignError(f"templates.{name}: {error}") from error
    return ours | theirs


def render(template: str, /, **values: object) -> list[Message]:
    """A template's text, filled in, as messages.

    A line `## system`, `## user` or `## assistant` starts a message; without any, the text is one user message.

    Raises:
        TsalignError: the template is malformed, uses a value that it is not given, reaches for what templates may not
            (private attributes, changing a value), or fails.
    """
    turns = _turns(template)  # found before values are filled in, so that no value can start one
    try:
        return [{"role": role, "content": compiled.render(values).strip()} for role, compiled in turns]
    except UndefinedError as error:
        raise TsalignError(f"template: {error.message}; it can use {', '.join(sorted(values))}.") from error
    except Exception as error:  # whatever somebody's template raises
        raise TsalignError(f"template: {type(error).__name__}: {error}: {template[:SHOWN]!r}") from error


@cache
def _turns(template: str) -> list[tuple[str, Template]]:
    pieces = TURN.split(template)
    turns = list(zip(pieces[1::2], pieces[2::2])) if len(pieces) > 1 else [("user", template)]
    try:
        return [(role, ENVIRONMENT.from_string(text)) for role, text in turns]
    except TemplateError as error:
        raise TsalignError(f"template: {error}: {template[:SHOWN]!r}") from error
