"""Candidates of anybody's: what a row may hold, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from tsalign.data.candidates import candidate_set
from tsalign.data.schema import to_table
from tsalign.data.sources import BadRow, Record
from tsalign.recipes.ts_align.mining import decided, nominate


def row(**changes: Any) -> Any:
    return candidate_set(Record("c.jsonl", 1, "c", {"prompt": "hello", "completions": ["a", "b"], **changes}))


def test_texts_become_a_candidate_set() -> None:
    made = row()
    assert [completion["text"] for completion in made["completions"]] == ["a", "b"]
    assert made["prompt"] == [{"role": "user", "content": "hello"}]
    assert made["prompt_id"] == row()["prompt_id"] != row(prompt="other")["prompt_id"]
    assert to_table([made]).num_rows == 1


def test_what_a_run_wrote_is_kept() -> None:
    completion = {"text": "a", "token_ids": [1, 2], "finish": "length", "seed": 3, "temperature": 0.7}
    known = {"prompt_id": "7", "set": "s", "prompt_ids": [9], "writer": "w", "sampling": "{}", "score.student": [1, 0]}
    made = row(completions=[completion, completion], **known)
    assert made["completions"] == [completion, completion]
    assert {name: made[name] for name in known} == known


def test_preferences_come_of_them() -> None:
    made = row(**{"score.student": [0.1, 0.9]})
    nominees = nominate(made, "ts-align", 0)
    preference = decided(made, nominees, [0.2, 0.7], 0.0)
    assert preference is not None
    assert (preference["chosen"][0]["content"], preference["flipped"]) == ("a", True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": None}, "has none of the columns"),
        ({"completions": None}, "completions: expected a list of two"),
        ({"completions": ["a"]}, "completions: expected a list of two"),
        ({"completions": ["a", 1]}, "completions: expected texts, or objects with a text"),
        ({"completions": [{"text": "a"}, {"answer": "b"}]}, "completions: expected texts"),
        ({"score.student": [0.1]}, "score.student: expected one number for each of the 2 completions"),
        ({"score.student": None}, "score.student: expected one number"),
    ],
)
def test_a_malformed_row(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRow, match=told):
        row(**changes)
