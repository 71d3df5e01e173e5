"""Which prompts are shown with their answers, and how."""

from __future__ import annotations

from typing import Any

import pytest

from tsalign.evaluation.samples import CHARACTERS, lowest, sample_of, shown
from tsalign.runs.report import Sample


def verdict(name: str) -> dict[str, Any]:
    return {
        "prompt_id": name,
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"say\n{name}"}],
        "completions": [{"text": "new, other temperature"}, {"text": f"new {name}"}],
        "base_completions": [{"text": "old, other temperature"}, {"text": f"old {name}"}],
    }


def test_the_same_two_prompts_whatever_their_order() -> None:
    rows = [verdict(f"p{number}") for number in range(50)]
    chosen = lowest(rows)
    assert len(chosen) == 2
    assert lowest(reversed(rows)) == chosen
    assert lowest(rows[:1]) == rows[:1]


def test_a_sample_is_the_last_turn_and_both_answers_at_a_place() -> None:
    assert sample_of(verdict("p1"), 1) == Sample("say\\np1", "old p1", "new p1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ütf-8 ☕ 漢字", "plain, ütf-8 ☕ 漢字"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\u202eright to left", "\\u202eright to left"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
        ("x" * CHARACTERS, "x" * CHARACTERS),
        ("x" * (CHARACTERS + 1), "x" * CHARACTERS + "..."),
        ("", ""),
    ],
)
def test_a_text_is_one_short_printable_line(text: str, expected: str) -> None:
    assert shown(text) == expected
