"""Strict parsers of what models write: text that does not have the requested form is refused, with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

QUESTION = re.compile(
    r"<Question_(\w+)>\s*<input>(?P<input>.*?)</input>\s*<target>(?P<target>.*?)</target>\s*</Question_\1>", re.DOTALL
)


class Unparsed(Exception):
    """Text without the requested form; the message says what is wrong."""


def tagged(text: str, tag: str) -> str:
    """The text between the only <tag> and its </tag>, stripped.

    Raises:
        Unparsed: none, more than one, or nothing inside.
    """
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    if len(found) != 1 or text.count(f"<{tag}>") != 1:
        raise Unparsed(f"expected one <{tag}>...</{tag}>, found {len(found)}")
    if not found[0].strip():
        raise Unparsed(f"<{tag}> is empty")
    return str(found[0]).strip()


def part(template: str, tag: str, text: str) -> str:
    """The part that a template asked for: what is inside <tag> if the template mentions it, otherwise all of the text.

    Raises:
        Unparsed: not exactly one <tag>, or nothing was written.
    """
    if f"<{tag}>" in template:
        return tagged(text, tag)
    if not text.strip():
        raise Unparsed("nothing was written")
    return text.strip()


def answer(text: str) -> str:
    """The final answer of a rationale, inside <ans>.

    Raises:
        Unparsed: not exactly one.
    """
    return tagged(text, "ans")


def questions(text: str) -> tuple[list[tuple[str, str]], int]:
    """(question, answer) of each well-formed <Question_x> block, and how many blocks are malformed.

    A block is `<Question_x><input>..</input><target>..</target></Question_x>`, with no part empty and
    no other tags inside.
    """
    made = []
    for block in QUESTION.finditer(text):
        question, target = block["input"].strip(), block["target"].strip()
        if question and target and "<" not in question + target:
            made.append((question, target))
    return made, len(re.findall(r"<Question_\w+>", text)) - len(made)


def choice(text: str, options: Sequence[str]) -> str:
    """The one option that an answer consists of, ignoring case and punctuation around it.

    Raises:
        Unparsed: anything else.
    """
    given = text.strip().strip(".)(:*\"' ").casefold()
    for option in options:
        if given == option.casefold():
            return option
    raise Unparsed(f"expected one of {', '.join(options)}, got {text.strip()[:80]!r}")


def axes(text: str, names: Sequence[str], low: float = 1, high: float = 10) -> dict[str, float]:
    """One number per axis, from lines `name: number`.

    Raises:
        Unparsed: an axis is missing, given twice, or outside [low, high].
    """
    scores = {}
    for name in names:
        found = re.findall(rf"^\s*{re.escape(name)}\s*:\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*\d+)?\s*$", text, re.M | re.I)
        if len(found) != 1:
            raise Unparsed(f"expected one line `{name}: number`, found {len(found)}")
        scores[name] = float(found[0])
        if not low <= scores[name] <= high:
            raise Unparsed(f"{name}: {scores[name]:g} is not between {low:g} and {high:g}")
    return scores


def winners(text: str, names: Sequence[str], options: Sequence[str]) -> dict[str, str]:
    """One option per axis, from lines `name: option`.

    Raises:
        Unparsed: an axis is missing, given twice, or names no option.
    """
    chosen = {}
    for name in names:
        found = re.findall(rf"^\s*{re.escape(name)}\s*:(.*)$", text, re.M | re.I)
        if len(found) != 1:
            raise Unparsed(f"expected one line `{name}: option`, found {len(found)}")
        chosen[name] = choice(found[0], options)
    return chosen
